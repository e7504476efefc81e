/* The gates that circuits may use without defining them. The names of qelib1.inc are those that the
 * Python client reads; those of stdgates.inc are in the specification of OpenQASM 3. */
#include <string.h>

#include "internal.h"

enum { V2 = 1, V3 = 2, BUILT_IN = 4 };

static const GateShape GATES[] = {
    {"id", "id", 1, 0, V2 | V3}, {"x", "x", 1, 0, V2 | V3}, {"y", "y", 1, 0, V2 | V3},
    {"z", "z", 1, 0, V2 | V3}, {"h", "h", 1, 0, V2 | V3}, {"s", "s", 1, 0, V2 | V3},
    {"sdg", "sdg", 1, 0, V2 | V3}, {"t", "t", 1, 0, V2 | V3}, {"tdg", "tdg", 1, 0, V2 | V3},
    {"sx", "sx", 1, 0, V2 | V3}, {"sxdg", "sxdg", 1, 0, V2}, {"u1", "u1", 1, 1, V2 | V3},
    {"p", "p", 1, 1, V2 | V3}, {"phase", "p", 1, 1, V3}, {"rx", "rx", 1, 1, V2 | V3},
    {"ry", "ry", 1, 1, V2 | V3}, {"rz", "rz", 1, 1, V2 | V3}, {"u2", "u2", 1, 2, V2 | V3},
    {"u3", "u3", 1, 3, V2 | V3}, {"u", "u", 1, 3, V2}, {"U", "u", 1, 3, V2 | V3 | BUILT_IN},
    {"cx", "cx", 2, 0, V2 | V3}, {"CX", "cx", 2, 0, V2 | BUILT_IN}, {"CX", "cx", 2, 0, V3},
    {"cz", "cz", 2, 0, V2 | V3}, {"cy", "cy", 2, 0, V2 | V3}, {"swap", "swap", 2, 0, V2 | V3},
    {"ch", "ch", 2, 0, V2 | V3}, {"csx", "csx", 2, 0, V2}, {"crx", "crx", 2, 1, V2 | V3},
    {"cry", "cry", 2, 1, V2 | V3}, {"crz", "crz", 2, 1, V2 | V3}, {"cu1", "cu1", 2, 1, V2},
    {"cp", "cp", 2, 1, V2 | V3}, {"cphase", "cp", 2, 1, V3}, {"rxx", "rxx", 2, 1, V2},
    {"rzz", "rzz", 2, 1, V2}, {"cu3", "cu3", 2, 3, V2}, {"cu", "cu", 2, 4, V2 | V3},
    {"ccx", "ccx", 3, 0, V2 | V3}, {"cswap", "cswap", 3, 0, V2 | V3},
    {"rccx", "rccx", 3, 0, V2}, {"rc3x", "rcccx", 4, 0, V2}, {"c3x", "mcx", 4, 0, V2},
    {"c3sqrtx", "c3sx", 4, 0, V2}, {"c4x", "mcx", 5, 0, V2},
    {"gphase", "global_phase", 0, 1, V3 | BUILT_IN},
};

const GateShape *qpi_gate_shape(const Token *name, int version, int included)
{
    int wanted = version == 2 ? V2 : V3;
    for (size_t index = 0; index < sizeof GATES / sizeof *GATES; index++)
        if ((GATES[index].versions & wanted) && qpi_token_is(name, GATES[index].name)
            && (included || (GATES[index].versions & BUILT_IN)))
            return &GATES[index];
    return NULL;
}

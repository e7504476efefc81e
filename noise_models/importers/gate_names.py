"""Names and shapes of gates: Qiskit's names, and their aliases in files of other vendors."""

from __future__ import annotations

import math

# Qiskit's name -> (qubits, parameters).
SHAPES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg"), (1, 0)),
    **dict.fromkeys(("p", "u1", "rx", "ry", "rz"), (1, 1)),
    **dict.fromkeys(("r", "u2"), (1, 2)),
    **dict.fromkeys(("u", "u3"), (1, 3)),
    **dict.fromkeys(
        ("cx", "cy", "cz", "ch", "cs", "csdg", "csx", "swap", "iswap", "dcx", "ecr"), (2, 0)
    ),
    **dict.fromkeys(("cp", "cu1", "crx", "cry", "crz", "rxx", "ryy", "rzz", "rzx"), (2, 1)),
    **dict.fromkeys(("xx_plus_yy", "xx_minus_yy"), (2, 2)),
    "cu3": (2, 3),
    "cu": (2, 4),
    **dict.fromkeys(("ccx", "ccz", "cswap"), (3, 0)),
}

# Fractional gates of IBM's processors, and the limits of their angles in radians.
FRACTIONAL: dict[str, list[list[float]] | None] = {"rx": None, "rzz": [[0.0, math.pi / 2]]}

# Lower-case names of Amazon Braket, IQM, Quantinuum, IonQ, AQT and CUNQA.
_ALIASES = {
    "i": "id", "identity": "id", "pauli-x": "x", "v": "sx", "vi": "sxdg", "si": "sdg",
    "ti": "tdg", "phaseshift": "p", "prx": "r", "phased_rx": "r", "u1q": "r", "cnot": "cx",
    "cphaseshift": "cp", "cphase": "cp", "ccnot": "ccx", "xx": "rxx", "yy": "ryy",
    "zz": "rzz", "zzphase": "rzz", "xy": "xx_plus_yy",
}  # fmt: skip


def qiskit_name(name: str) -> str:
    """Return Qiskit's name of a gate, or the name in lower case if no table has it."""
    lower = name.strip().lower()
    return lower if lower in SHAPES else _ALIASES.get(lower, lower)

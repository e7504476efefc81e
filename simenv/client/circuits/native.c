/* Encode a Qiskit circuit through Qiskit's C interface: read its instructions into the flat arrays
 * of a Program, and write these arrays as msgpack. The interpreter lock is held, and no pointer into
 * the circuit outlives the call. A circuit that holds anything without a plain row in a Program is
 * given up; the encoder in Python then takes it. `encode_circuits`, through Python's C interface,
 * encodes many circuits; `counts_dict` makes dicts of many counts.
 *
 * native.ll is generated from this file by scripts/native_ll.sh. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    char *start;
    int64_t capacity, used; /* in elements */
} Column;

enum { ROWS, OPS, QUBITS, CLBITS, PARAMS, SHAPE, TAIL, COLUMNS };

/* One row of ROWS: a pair of name and arities that occurs in the circuit. */
typedef struct {
    uint64_t name[2]; /* 16 characters, padded with zeros */
    uint64_t arities; /* qubits, clbits, params and 0: 16 bits each, little-endian */
} Row;

/* OPS, QUBITS, CLBITS: 16 bits an element; PARAMS: doubles. SHAPE: bytes; numbers of qubits, clbits
 * and registers, 64 bits each, then of each register its size, 64 bits, and its name with a zero
 * behind it, then the rows. TAIL: bytes; OPS to PARAMS as msgpack. */
typedef struct {
    Column columns[COLUMNS];
    uint16_t *clbit_numbers; /* of each clbit of the circuit */
    uint32_t *register_bits;
    const char *key, *head, *foot; /* SHAPE of earlier programs, and their bytes around TAIL */
    int64_t key_bytes, head_bytes, foot_bytes;
} Scratch;

typedef struct { /* QkCircuitInstructionView of Qiskit 2.6 */
    const char *name;
    const uint32_t *qubits, *clbits;
    const char *params;
    int64_t name_length;
    uint32_t num_qubits, num_clbits;
    int64_t num_params;
} View;

enum { GATE = 0, BARRIER = 1, MEASURE = 3, RESET = 4 }; /* kinds of instructions */
enum { REAL = 1, INTEGER = 3 };                         /* kinds of parameters */
enum { MAX_BITS = 65535, NO_NUMBER = 65535 };

void *qk_circuit_borrow_from_python(void *data);
uint32_t qk_circuit_num_qubits(void *circuit);
uint32_t qk_circuit_num_clbits(void *circuit);
int64_t qk_circuit_num_classical_registers(void *circuit);
void *qk_circuit_get_classical_register(void *circuit, int64_t index);
int64_t qk_classical_register_num_bits(void *reg);
char *qk_classical_register_name(void *reg);
void qk_str_free(char *text);
void qk_classical_register_circuit_bits(void *reg, void *circuit, uint32_t *bits);
int64_t qk_circuit_num_instructions(void *circuit);
uint8_t qk_circuit_instruction_kind(void *circuit, int64_t index);
void qk_circuit_view_instruction(void *circuit, int64_t index, View *view);
int64_t qk_param_stride(void);
uint8_t qk_param_kind(const char *param);
double qk_param_as_real(const char *param);

/* The next `count` elements of a column, each of `width` bytes; NULL if the column is full. */
static char *take(Scratch *scratch, int column, int64_t count, int64_t width)
{
    Column *to = &scratch->columns[column];
    int64_t first = to->used;
    if ((uint64_t)(first + count) > (uint64_t)to->capacity)
        return NULL;
    to->used = first + count;
    return to->start + first * width;
}

static int append(Scratch *scratch, int column, const void *from, int64_t count, int64_t width)
{
    char *to = take(scratch, column, count, width);
    if (to)
        memcpy(to, from, count * width);
    return to != NULL;
}

/* Append the index of an operation's row to OPS; add the row at its first use. */
static int add_operation(Scratch *scratch, const char *name, int64_t length, uint32_t qubits,
                         uint32_t clbits, int64_t params)
{
    Row row = {{0, 0}, qubits | (uint64_t)clbits << 16 | (uint64_t)params << 32};
    const Row *rows = (const Row *)scratch->columns[ROWS].start;
    int64_t used = scratch->columns[ROWS].used, index = 0;
    if ((uint64_t)length > sizeof row.name)
        return 0;
    memcpy(row.name, name, (size_t)length);
    while (index < used
           && ((rows[index].name[0] ^ row.name[0]) | (rows[index].name[1] ^ row.name[1])
               | (rows[index].arities ^ row.arities)))
        index++;
    if (index == used && !append(scratch, ROWS, &row, 1, sizeof row))
        return 0;
    uint16_t op = (uint16_t)index;
    return append(scratch, OPS, &op, 1, sizeof op);
}

/* Append a parameter, unless it is infinite or not a number. */
static int add_param(Scratch *scratch, double value)
{
    return value - value == 0.0 && append(scratch, PARAMS, &value, 1, sizeof value);
}

/* Append bit indices, translated by `numbers` unless that is NULL. */
static int add_bits(Scratch *scratch, int column, const uint32_t *bits, int64_t count,
                    const uint16_t *numbers)
{
    uint16_t *to = (uint16_t *)take(scratch, column, count, sizeof *to);
    if (!to)
        return 0;
    for (int64_t index = 0; index < count; index++) {
        if (bits[index] >= MAX_BITS)
            return 0;
        to[index] = numbers ? numbers[bits[index]] : (uint16_t)bits[index];
    }
    return 1;
}

static int add_instruction(Scratch *scratch, const View *view)
{
    if (!add_operation(scratch, view->name, view->name_length, view->num_qubits, view->num_clbits,
                       view->num_params)
        || !add_bits(scratch, QUBITS, view->qubits, view->num_qubits, NULL)
        || !add_bits(scratch, CLBITS, view->clbits, view->num_clbits, scratch->clbit_numbers))
        return 0;
    if (view->num_params == 0)
        return 1;
    int64_t stride = qk_param_stride();
    for (int64_t index = 0; index < view->num_params; index++) {
        const char *param = view->params + index * stride;
        uint8_t kind = qk_param_kind(param);
        if ((kind != REAL && kind != INTEGER) || !add_param(scratch, qk_param_as_real(param)))
            return 0;
    }
    return 1;
}

/* Append a register's size and name to SHAPE. Qiskit writes a zero in a name as a backslash and
 * "0"; such a name is given up. */
static int add_register(Scratch *scratch, void *reg, int64_t size)
{
    char *name = qk_classical_register_name(reg);
    int added = strchr(name, '\\') == NULL
                && append(scratch, SHAPE, &size, sizeof size, 1)
                && append(scratch, SHAPE, name, (int64_t)strlen(name) + 1, 1);
    qk_str_free(name);
    return added;
}

/* Number the clbits of one register after the other, then the loose ones. Registers that share a
 * bit are given up. */
static int number_clbits(Scratch *scratch, void *circuit)
{
    uint32_t count = qk_circuit_num_clbits(circuit);
    int64_t registers = qk_circuit_num_classical_registers(circuit), next = 0;
    uint16_t *numbers = scratch->clbit_numbers;
    memset(numbers, 0xff, (size_t)count * sizeof *numbers); /* NO_NUMBER */
    for (int64_t which = 0; which < registers; which++) {
        void *reg = qk_circuit_get_classical_register(circuit, which);
        int64_t size = qk_classical_register_num_bits(reg);
        /* Unpickled, a circuit may lack bits of a register: `register_bits` has no room for them. */
        if (size > count - next || !add_register(scratch, reg, size))
            return 0;
        qk_classical_register_circuit_bits(reg, circuit, scratch->register_bits);
        for (int64_t index = 0; index < size; index++) {
            uint32_t bit = scratch->register_bits[index];
            if (bit >= count || numbers[bit] != NO_NUMBER)
                return 0;
            numbers[bit] = (uint16_t)next++;
        }
    }
    for (uint32_t bit = 0; bit < count; bit++)
        if (numbers[bit] == NO_NUMBER)
            numbers[bit] = (uint16_t)next++;
    return 1;
}

/* Append a column to TAIL as msgpack bytes: a big-endian length of 8, 16 or 32 bits, then them. */
static int add_binary(Scratch *scratch, int column, int64_t width)
{
    int64_t bytes = scratch->columns[column].used * width;
    int size = bytes < 256 ? 1 : bytes < 65536 ? 2 : 4;
    unsigned char head[5] = {(unsigned char)(size == 1 ? 0xc4 : size == 2 ? 0xc5 : 0xc6)};
    for (int index = 0; index < size; index++)
        head[1 + index] = (unsigned char)(bytes >> 8 * (size - 1 - index));
    return append(scratch, TAIL, head, 1 + size, 1)
           && append(scratch, TAIL, scratch->columns[column].start, bytes, 1);
}

/* Return 1, or 0 if the circuit is given up. */
static int encode(void *circuit, double global_phase, Scratch *scratch)
{
    for (int column = 0; column < COLUMNS; column++)
        scratch->columns[column].used = 0;
    int64_t counts[3] = {qk_circuit_num_qubits(circuit), qk_circuit_num_clbits(circuit),
                         qk_circuit_num_classical_registers(circuit)};
    if (counts[0] > MAX_BITS || counts[1] > MAX_BITS
        || !append(scratch, SHAPE, counts, sizeof counts, 1) || !number_clbits(scratch, circuit))
        return 0;
    if (global_phase != 0.0
        && !(add_operation(scratch, "global_phase", 12, 0, 0, 1) && add_param(scratch, global_phase)))
        return 0;
    int64_t total = qk_circuit_num_instructions(circuit);
    for (int64_t index = 0; index < total; index++) {
        View view;
        uint8_t kind = qk_circuit_instruction_kind(circuit, index);
        if (kind != GATE && kind != BARRIER && kind != MEASURE && kind != RESET)
            return 0;
        qk_circuit_view_instruction(circuit, index, &view);
        if (!add_instruction(scratch, &view))
            return 0;
    }
    return append(scratch, SHAPE, scratch->columns[ROWS].start,
                  scratch->columns[ROWS].used * (int64_t)sizeof(Row), 1)
           && add_binary(scratch, OPS, 2) && add_binary(scratch, QUBITS, 2)
           && add_binary(scratch, CLBITS, 2) && add_binary(scratch, PARAMS, 8);
}

typedef struct PyObject PyObject;
PyObject *PyBytes_FromStringAndSize(const char *from, int64_t bytes);
char *PyBytes_AsString(PyObject *bytes);
PyObject *_PyDict_NewPresized(int64_t size); /* PyDict_New, where Python has no such function */
int PyDict_SetItem(PyObject *dict, PyObject *key, PyObject *value);
PyObject *PyList_New(int64_t size);
int PyList_Append(PyObject *list, PyObject *item);
PyObject *PyList_GetItem(PyObject *list, int64_t index);
PyObject *PyLong_FromUnsignedLong(unsigned long value);
PyObject *PyUnicode_InternFromString(const char *text);
PyObject *PyObject_VectorcallMethod(PyObject *name, PyObject *const *arguments, size_t count,
                                    PyObject *keywords);
void PyErr_Clear(void);
void Py_DecRef(PyObject *object);

/* Return whether no code of Qiskit is reading or changing a circuit, in this thread or in one that
 * waits for the interpreter lock: `qk_circuit_borrow_from_python` would then end the process. A
 * reservation of no room needs the same access, and raises an exception instead. */
static int is_unused(PyObject *data)
{
    static PyObject *reserve, *zero;
    if (!reserve)
        reserve = PyUnicode_InternFromString("reserve");
    if (!zero)
        zero = PyLong_FromUnsignedLong(0);
    PyObject *arguments[2] = {data, zero}, *none = NULL;
    if (reserve && zero)
        none = PyObject_VectorcallMethod(reserve, arguments, 2, NULL);
    if (none)
        Py_DecRef(none);
    else
        PyErr_Clear();
    return none != NULL;
}

/* Return 1, or 0 if the circuit is given up. `data`: the CircuitData of a QuantumCircuit. */
int encode_circuit(PyObject *data, double global_phase, Scratch *scratch)
{
    void *circuit = is_unused(data) ? qk_circuit_borrow_from_python(data) : NULL;
    return circuit && encode(circuit, global_phase, scratch);
}

/* The whole program of the circuit that was encoded last, whose SHAPE is `key`. */
static PyObject *program(const Scratch *scratch)
{
    const Column *tail = &scratch->columns[TAIL];
    PyObject *bytes = PyBytes_FromStringAndSize(
        NULL, scratch->head_bytes + tail->used + scratch->foot_bytes);
    if (bytes) {
        char *to = PyBytes_AsString(bytes);
        memcpy(to, scratch->head, scratch->head_bytes);
        memcpy(to + scratch->head_bytes, tail->start, tail->used);
        memcpy(to + scratch->head_bytes + tail->used, scratch->foot, scratch->foot_bytes);
    }
    return bytes;
}

/* Return a new list of the programs of a list's circuits from `first` on, at most `count`: bytes,
 * empty for one that is given up. It ends before a circuit whose SHAPE is not `key`; that one is in
 * the columns. NULL with an error set if an object is no CircuitData, or without memory. */
PyObject *encode_circuits(PyObject *circuits, const double *global_phases, int64_t first,
                          int64_t count, Scratch *scratch)
{
    PyObject *programs = PyList_New(0);
    for (int64_t index = first; programs && index < first + count; index++) {
        PyObject *data = PyList_GetItem(circuits, index), *item = NULL; /* borrowed */
        int unused = data && is_unused(data);
        void *circuit = unused ? qk_circuit_borrow_from_python(data) : NULL;
        if (circuit || (data && !unused)) {
            const Column *shape = &scratch->columns[SHAPE];
            int encoded = circuit && encode(circuit, global_phases[index], scratch);
            if (encoded
                && (shape->used != scratch->key_bytes
                    || memcmp(shape->start, scratch->key, shape->used)))
                return programs;
            item = encoded ? program(scratch) : PyBytes_FromStringAndSize("", 0);
        }
        int failed = !item || PyList_Append(programs, item);
        if (item)
            Py_DecRef(item);
        if (failed) {
            Py_DecRef(programs);
            programs = NULL;
        }
    }
    return programs;
}

/* Return a new dict of the strings table[outcome] with their counts; NULL with an error set if an
 * outcome is not in the list. `outcomes`: `count` numbers of `width` bytes, 1 or 2; `counts`: as
 * many of 32 bits; both little-endian, like this machine. */
PyObject *counts_dict(PyObject *table, const char *outcomes, int64_t width, const char *counts,
                      int64_t count)
{
    PyObject *dict = _PyDict_NewPresized(count); /* growing would take a third of the time */
    for (int64_t index = 0; dict && index < count; index++) {
        uint16_t outcome = 0;
        uint32_t times;
        memcpy(&outcome, outcomes + index * width, width == 1 ? 1 : 2);
        memcpy(&times, counts + index * sizeof times, sizeof times);
        PyObject *key = PyList_GetItem(table, outcome); /* borrowed */
        PyObject *value = key ? PyLong_FromUnsignedLong(times) : NULL;
        int failed = !value || PyDict_SetItem(dict, key, value);
        if (value)
            Py_DecRef(value);
        if (failed) {
            Py_DecRef(dict);
            dict = NULL;
        }
    }
    return dict;
}

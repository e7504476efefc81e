/* The flat arrays of a circuit, and the Program that is sent; see simenv.model.program. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { PROGRAM_FORMAT = 1, MAX_ROWS = 65535, MAX_OPERATIONS = 1000000, MAX_OPERANDS = 1 << 23 };

/* One kind of operation: its name, padded with zeros, and how many bits and angles it takes. */
typedef struct Row {
    char name[16];
    uint16_t arities[3];
} Row;

typedef struct Slot { /* an angle of parameters: its code */
    size_t start, size;
} Slot;

static int too_many(const char *what, long limit)
{
    return qpi_fail(QPI_LIMIT, "split the circuit", "the circuit has more than %ld %s", limit,
                    what);
}

int qpi_add_operation(qpi_circuit *circuit, const char *name, size_t qubits, size_t clbits,
                      size_t params)
{
    Row row = {{0}, {(uint16_t)qubits, (uint16_t)clbits, (uint16_t)params}};
    const Row *rows = (const Row *)(const void *)circuit->names.data;
    size_t used = circuit->names.used / sizeof row, index = 0;
    memcpy(row.name, name, strnlen(name, sizeof row.name));
    while (index < used && memcmp(&rows[index], &row, sizeof row))
        index++;
    if (index == MAX_ROWS)
        return too_many("kinds of operations", MAX_ROWS);
    if (index == used)
        qpi_buffer_add(&circuit->names, &row, sizeof row);
    uint16_t op = (uint16_t)index;
    qpi_buffer_add(&circuit->ops, &op, sizeof op);
    if (circuit->ops.used / 2 > MAX_OPERATIONS)
        return too_many("operations", MAX_OPERATIONS);
    return circuit->ops.failed || circuit->names.failed ? qpi_fail_memory() : QPI_OK;
}

int qpi_add_qubit(qpi_circuit *circuit, size_t qubit)
{
    uint16_t number = (uint16_t)qubit;
    qpi_buffer_add(&circuit->qubit_list, &number, sizeof number);
    if (circuit->qubit_list.used / 2 > MAX_OPERANDS)
        return too_many("operands", MAX_OPERANDS);
    return circuit->qubit_list.failed ? qpi_fail_memory() : QPI_OK;
}

int qpi_add_clbit(qpi_circuit *circuit, size_t clbit)
{
    uint16_t number = (uint16_t)clbit;
    qpi_buffer_add(&circuit->clbit_list, &number, sizeof number);
    return circuit->clbit_list.failed ? qpi_fail_memory() : QPI_OK;
}

size_t qpi_circuit_slots(const qpi_circuit *circuit)
{
    return circuit->slots.used / sizeof(Slot);
}

/* The number of the slot with this code, which is added where there is none. */
static int32_t slot_of(qpi_circuit *circuit, const Buffer *code)
{
    const Slot *slots = (const Slot *)(const void *)circuit->slots.data;
    size_t count = qpi_circuit_slots(circuit);
    for (size_t index = 0; index < count; index++)
        if (slots[index].size == code->used
            && !memcmp(circuit->slot_code.data + slots[index].start, code->data, code->used))
            return (int32_t)index;
    Slot slot = {circuit->slot_code.used, code->used};
    qpi_buffer_add(&circuit->slot_code, code->data, code->used);
    qpi_buffer_add(&circuit->slots, &slot, sizeof slot);
    return (int32_t)count;
}

int qpi_add_angle(qpi_circuit *circuit, const Expression *angle)
{
    double value = angle->has_parameters ? 0.0 : angle->value;
    if (!isfinite(value))
        return qpi_fail(QPI_PROGRAM, "angles must be finite real numbers",
                        "an angle has no finite value");
    if (angle->has_parameters) {
        int32_t entry[2] = {(int32_t)(circuit->params.used / sizeof value),
                            slot_of(circuit, &angle->code)};
        qpi_buffer_add(&circuit->slot_list, entry, sizeof entry);
    }
    qpi_buffer_add(&circuit->params, &value, sizeof value);
    return circuit->params.failed || circuit->slot_list.failed || circuit->slots.failed
                   || circuit->slot_code.failed || angle->code.failed
               ? qpi_fail_memory()
               : QPI_OK;
}

/* The Program, as an array of its fields. */
int qpi_pack_program(qpi_circuit *circuit)
{
    Buffer *to = &circuit->packed;
    const Row *rows = (const Row *)(const void *)circuit->names.data;
    size_t count = circuit->names.used / sizeof *rows;
    Buffer arities = {0};
    qpi_put_array(to, 17);
    qpi_put_uint(to, PROGRAM_FORMAT);
    qpi_put_uint(to, circuit->qubits);
    qpi_put_uint(to, circuit->clbits);
    qpi_put_array(to, circuit->num_registers);
    qpi_buffer_add(to, circuit->registers.data, circuit->registers.used);
    qpi_put_array(to, count);
    for (size_t index = 0; index < count; index++) {
        qpi_put_text_n(to, rows[index].name, strnlen(rows[index].name, sizeof rows->name));
        qpi_buffer_add(&arities, rows[index].arities, sizeof rows->arities);
    }
    qpi_put_bytes(to, arities.data, arities.used);
    qpi_put_bytes(to, circuit->ops.data, circuit->ops.used);
    qpi_put_bytes(to, circuit->qubit_list.data, circuit->qubit_list.used);
    qpi_put_bytes(to, circuit->clbit_list.data, circuit->clbit_list.used);
    qpi_put_bytes(to, circuit->params.data, circuit->params.used);
    qpi_put_uint(to, qpi_circuit_slots(circuit));
    qpi_put_bytes(to, circuit->slot_list.data, circuit->slot_list.used);
    qpi_put_bytes(to, NULL, 0); /* conditions */
    qpi_put_array(to, 0);       /* constants */
    qpi_put_array(to, 0);       /* variables */
    qpi_put_array(to, 0);       /* matrices */
    qpi_put_array(to, 0);       /* labels */
    to->failed |= arities.failed | circuit->registers.failed;
    qpi_buffer_free(&arities);
    return to->failed ? qpi_fail_memory() : QPI_OK;
}

int qpi_circuit_bind(const qpi_circuit *circuit, const double *parameters, size_t row, double *to)
{
    const Slot *slots = (const Slot *)(const void *)circuit->slots.data;
    size_t count = qpi_circuit_slots(circuit);
    for (size_t index = 0; index < circuit->num_parameters; index++)
        if (!isfinite(parameters[index]))
            return qpi_fail(QPI_OPTION, "parameter values must be finite numbers",
                            "row %zu: parameter '%s' is %g", row,
                            qpi_circuit_parameter(circuit, index), parameters[index]);
    for (size_t index = 0; index < count; index++) {
        const uint8_t *code = circuit->slot_code.data + slots[index].start;
        to[index] = qpi_evaluate(code, slots[index].size, parameters);
        if (!isfinite(to[index]))
            return qpi_fail(QPI_PROGRAM, "angles must be finite real numbers",
                            "row %zu: an angle has no finite value", row);
    }
    return QPI_OK;
}

/* --- the circuit as its caller sees it ------------------------------------------------------ */

size_t qpi_circuit_qubits(const qpi_circuit *circuit)
{
    return circuit->qubits;
}

size_t qpi_circuit_clbits(const qpi_circuit *circuit)
{
    return circuit->clbits;
}

size_t qpi_circuit_parameters(const qpi_circuit *circuit)
{
    return circuit->num_parameters;
}

const char *qpi_circuit_parameter(const qpi_circuit *circuit, size_t index)
{
    const char *name = (const char *)circuit->parameter_names.data;
    if (index >= circuit->num_parameters)
        return NULL;
    while (index-- > 0)
        name += strlen(name) + 1;
    return name;
}

void qpi_circuit_free(qpi_circuit *circuit)
{
    if (!circuit)
        return;
    Buffer *buffers[] = {&circuit->registers, &circuit->names, &circuit->ops, &circuit->qubit_list,
                         &circuit->clbit_list, &circuit->params, &circuit->slot_list,
                         &circuit->slot_code, &circuit->slots, &circuit->parameter_names,
                         &circuit->packed};
    for (size_t index = 0; index < sizeof buffers / sizeof *buffers; index++)
        qpi_buffer_free(buffers[index]);
    free(circuit);
}

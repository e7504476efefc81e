/* The result of a row, from JSON or from a file of numpy: the forms of the gateway's native API. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_REGISTERS = 4096, MAX_BITS = 1 << 16 };

static int fail_read(const char *what)
{
    return qpi_fail(QPI_PROTOCOL, "use one version of simenv on both sides",
                    "a result cannot be read: %s", what);
}

void qpi_row_free(Row *row)
{
    if (!row)
        return;
    for (int exact = 0; exact < 2; exact++)
        qpi_buffer_free(&row->texts[exact]);
    qpi_buffer_free(&row->warnings);
    free(row->counts);
    free(row->probabilities);
    free(row->expectations);
    free(row->statevector);
    free(row);
}

/* Hand over what was read; or free it. */
static int give(Row *made, int status, Row **row)
{
    *row = status == QPI_OK ? made : NULL;
    if (status != QPI_OK)
        qpi_row_free(made);
    return status;
}

static int compare(const void *one, const void *other)
{
    return strcmp(((const Outcome *)one)->bits, ((const Outcome *)other)->bits);
}

/* Outcomes in ascending order, of which the texts are complete. `values` [count]. */
static int make_outcomes(Buffer *texts, const double *values, size_t count, Outcome **outcomes)
{
    Outcome *made = calloc(count + 1, sizeof *made);
    const char *at = texts->data;
    if (!made || texts->failed) {
        free(made);
        return qpi_fail_memory();
    }
    for (size_t index = 0; index < count; index++, at += strlen(at) + 1)
        made[index] = (Outcome){at, values[index]};
    qsort(made, count, sizeof *made, compare);
    *outcomes = made;
    return QPI_OK;
}

/* --- JSON ------------------------------------------------------------------------------------ */

static int is_there(const char *value)
{
    return value && *value != 'n';
}

static size_t length_of(const char *value)
{
    size_t count = 0;
    for (const char *at = qpi_json_first(value); at; at = qpi_json_next(at))
        count++;
    return count;
}

/* An object of bits and numbers. */
static int read_outcomes(const char *object, Buffer *texts, Outcome **outcomes, size_t *size)
{
    if (*object != '{')
        return fail_read("outcomes are no object");
    size_t count = length_of(object), index = 0;
    double *values = calloc(count + 1, sizeof *values);
    int status = values ? QPI_OK : qpi_fail_memory();
    for (const char *at = qpi_json_first(object); at && status == QPI_OK; at = qpi_json_next(at)) {
        size_t bytes = qpi_json_text(at, NULL, 0);
        char *to = qpi_buffer_reserve(texts, bytes);
        if (!to)
            status = qpi_fail_memory();
        else {
            qpi_json_text(at, to, bytes);
            values[index++] = qpi_json_number(qpi_json_value(at));
            if (!(values[index - 1] >= 0.0 && values[index - 1] < 1e18))
                status = fail_read("a count or probability is no number");
        }
    }
    if (status == QPI_OK)
        status = make_outcomes(texts, values, index, outcomes);
    *size = index;
    free(values);
    return status;
}

/* Two lists of the same length, side by side; `pairs`: one list of pairs instead of both. */
static int read_pairs(const char *first, const char *second, const char *pairs, double **to,
                      size_t *size)
{
    size_t count = length_of(pairs ? pairs : first), index = 0;
    *to = calloc(2 * count + 1, sizeof **to);
    if (!*to)
        return qpi_fail_memory();
    const char *other = qpi_json_first(second);
    for (const char *at = qpi_json_first(pairs ? pairs : first); at; at = qpi_json_next(at)) {
        const char *one = pairs ? qpi_json_first(at) : at;
        const char *two = pairs ? (one ? qpi_json_next(one) : NULL) : other;
        (*to)[2 * index] = qpi_json_number(one);
        (*to)[2 * index++ + 1] = qpi_json_number(two);
        other = other ? qpi_json_next(other) : NULL;
    }
    *size = count;
    return QPI_OK;
}

static int read_warnings(const char *list, Row *row)
{
    for (const char *at = qpi_json_first(list); at; at = qpi_json_next(at), row->num_warnings++) {
        size_t bytes = qpi_json_text(at, NULL, 0);
        char *to = bytes ? qpi_buffer_reserve(&row->warnings, bytes) : NULL;
        if (!to)
            return bytes ? qpi_fail_memory() : fail_read("a warning is no text");
        qpi_json_text(at, to, bytes);
    }
    return QPI_OK;
}

static int fill_of_json(const char *json, Row *row)
{
    const char *counts = qpi_json_member(json, "counts");
    const char *probabilities = qpi_json_member(json, "probabilities");
    const char *values = qpi_json_member(json, "expectations");
    const char *statevector = qpi_json_member(json, "statevector");
    if (!qpi_json_member(json, "task"))
        return fail_read("it is no result");
    if ((row->has_counts = is_there(counts)))
        TRY(read_outcomes(counts, &row->texts[0], &row->counts, &row->num_counts));
    if ((row->has_probabilities = is_there(probabilities)))
        TRY(read_outcomes(probabilities, &row->texts[1], &row->probabilities,
                          &row->num_probabilities));
    if ((row->has_expectations = is_there(values)))
        TRY(read_pairs(values, qpi_json_member(json, "std_errors"), NULL, &row->expectations,
                       &row->num_expectations));
    if (is_there(statevector) && *statevector != '[')
        return fail_read("its statevector is no list");
    if ((row->has_statevector = is_there(statevector)))
        TRY(read_pairs(NULL, NULL, statevector, &row->statevector, &row->num_amplitudes));
    return read_warnings(qpi_json_member(json, "warnings"), row);
}

int qpi_row_of_json(const char *json, Row **row)
{
    Row *made = calloc(1, sizeof *made);
    return give(made, made ? fill_of_json(json, made) : qpi_fail_memory(), row);
}

/* --- files of numpy -------------------------------------------------------------------------- */

/* The text of `metadata`, characters of 4 bytes, as UTF-8. */
static int read_metadata(const Buffer *file, Buffer *json)
{
    Array array;
    TRY(qpi_npz_find((const uint8_t *)file->data, file->used, "metadata", &array));
    if (array.kind != 'U' || array.items != 1)
        return fail_read("its metadata are no text");
    for (size_t at = 0; at < array.item_bytes; at += 4) {
        uint32_t point;
        memcpy(&point, array.data + at, 4);
        if (!point)
            break;
        if (point < 0x80)
            qpi_buffer_add(json, &(char){(char)point}, 1);
        else { /* of warnings and names alone */
            char text[16];
            if (point > 0x10ffff)
                return fail_read("its metadata are no text");
            unsigned high = point >> 16, low = point & 0xffff;
            if (high) {
                high = 0xd800 | (point - 0x10000) >> 10;
                low = 0xdc00 | (point & 0x3ff);
                snprintf(text, sizeof text, "\\u%04x\\u%04x", high, low);
            } else
                snprintf(text, sizeof text, "\\u%04x", low);
            qpi_put(json, text);
        }
    }
    qpi_buffer_add(json, "", 1);
    if (json->failed)
        return qpi_fail_memory();
    return qpi_json_check(json->data) ? QPI_OK : fail_read("its metadata are no JSON");
}

/* The numbers of bits of the registers, and of all of them; without registers those of qubits. */
static int read_registers(const char *metadata, size_t *sizes, size_t *count, size_t *bits)
{
    const char *at = qpi_json_first(qpi_json_member(metadata, "registers"));
    *count = *bits = 0;
    for (; at; at = qpi_json_next(at)) {
        const char *name = qpi_json_first(at);
        double size = qpi_json_number(name ? qpi_json_next(name) : NULL);
        if (!(size >= 0.0 && size <= MAX_BITS) || *count == MAX_REGISTERS)
            return fail_read("a register has no size");
        sizes[(*count)++] = (size_t)size;
        *bits += (size_t)size;
    }
    if (*count == 0) {
        double qubits = qpi_json_number(qpi_json_member(metadata, "num_qubits"));
        if (!(qubits >= 0.0 && qubits <= MAX_BITS))
            return fail_read("it has no number of qubits");
        sizes[(*count)++] = *bits = (size_t)qubits;
    }
    return *bits <= MAX_BITS ? QPI_OK : fail_read("it has too many bits");
}

/* The bits of an outcome, the last register leftmost, one space between registers. */
static void put_bits(Buffer *texts, const uint8_t *outcome, size_t width, const size_t *sizes,
                     size_t count, size_t bits)
{
    size_t at = bits + count - 1, bit = 0;
    char *text = qpi_buffer_reserve(texts, at + 1);
    if (!text)
        return;
    text[at] = 0;
    for (size_t index = 0; index < count; index++) {
        if (index > 0)
            text[--at] = ' ';
        for (size_t left = sizes[index]; left > 0; left--, bit++)
            text[--at] = bit / 8 < width && outcome[bit / 8] >> bit % 8 & 1 ? '1' : '0';
    }
}

static int read_values(const Buffer *file, const char *outcomes, const char *numbers,
                       const char *metadata, Buffer *texts, Outcome **found, size_t *size)
{
    static _Thread_local size_t sizes[MAX_REGISTERS];
    Array bits, values;
    size_t registers, total;
    TRY(qpi_npz_find((const uint8_t *)file->data, file->used, outcomes, &bits));
    TRY(qpi_npz_find((const uint8_t *)file->data, file->used, numbers, &values));
    TRY(read_registers(metadata, sizes, &registers, &total));
    size_t count = values.items, width = count ? bits.items * bits.item_bytes / count : 0;
    int exact = values.kind == 'f' && values.item_bytes == 8;
    if (bits.kind != 'u' || bits.rows != count || (count && 8 * width < total)
        || (!exact && (values.kind != 'u' || values.item_bytes != 4)))
        return fail_read("outcomes and values differ in number");
    double *each = calloc(count + 1, sizeof *each);
    if (!each)
        return qpi_fail_memory();
    for (size_t index = 0; index < count; index++) {
        uint32_t number;
        if (exact)
            memcpy(&each[index], values.data + 8 * index, 8);
        else {
            memcpy(&number, values.data + 4 * index, 4);
            each[index] = number;
        }
        put_bits(texts, bits.data + index * width, width, sizes, registers, total);
    }
    int status = make_outcomes(texts, each, count, found);
    *size = count;
    free(each);
    return status;
}

/* Numbers of one array, as doubles: float64, complex128 or complex64. */
static int read_numbers(const Buffer *file, const char *name, double **to, size_t *pairs)
{
    Array array;
    TRY(qpi_npz_find((const uint8_t *)file->data, file->used, name, &array));
    size_t bytes = array.items * array.item_bytes;
    int single = array.kind == 'c' && array.item_bytes == 8;
    if (!single && !(array.kind == 'c' && array.item_bytes == 16)
        && !(array.kind == 'f' && array.item_bytes == 8))
        return fail_read("numbers are of another kind");
    size_t count = bytes / (single ? 4 : 8);
    *to = calloc(count + 1, sizeof **to);
    if (!*to)
        return qpi_fail_memory();
    for (size_t index = 0; single && index < count; index++) {
        float value;
        memcpy(&value, array.data + 4 * index, 4);
        (*to)[index] = value;
    }
    if (!single)
        memcpy(*to, array.data, bytes);
    *pairs = count / 2;
    return QPI_OK;
}

/* `has`: whether the array was there, which is no error if not. */
static int optional(int status, int *has)
{
    *has = status == QPI_OK;
    return status == QPI_NO_DATA ? QPI_OK : status;
}

static int fill_of_npz(const Buffer *file, const char *metadata, Row *row)
{
    TRY(optional(read_values(file, "counts/outcomes", "counts/counts", metadata, &row->texts[0],
                             &row->counts, &row->num_counts),
                 &row->has_counts));
    TRY(optional(read_values(file, "probabilities/outcomes", "probabilities/values", metadata,
                             &row->texts[1], &row->probabilities, &row->num_probabilities),
                 &row->has_probabilities));
    TRY(optional(read_numbers(file, "expectations", &row->expectations, &row->num_expectations),
                 &row->has_expectations));
    TRY(optional(read_numbers(file, "statevector", &row->statevector, &row->num_amplitudes),
                 &row->has_statevector));
    return read_warnings(qpi_json_member(metadata, "warnings"), row);
}

int qpi_row_of_npz(const Buffer *file, Row **row)
{
    Row *made = calloc(1, sizeof *made);
    Buffer metadata = {0};
    int status = made ? read_metadata(file, &metadata) : qpi_fail_memory();
    if (status == QPI_OK)
        status = fill_of_npz(file, metadata.data, made);
    else if (status == QPI_NO_DATA)
        status = fail_read("it has no metadata");
    qpi_buffer_free(&metadata);
    return give(made, status, row);
}

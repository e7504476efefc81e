/* Results of rows, read from the packed ResultData of their task; see simenv.model.task.
 *
 * Invariant: every length is checked against the bytes that are there before one is read. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { RESULT_FORMAT = 1, CHUNK_BYTES = 1 << 20, MAX_WIDTH = 8192 };
static const char *const NAMES[FIELDS] = {"outcomes", "counts", "probability_outcomes",
                                          "probabilities", "statevector", "expectations"};

typedef struct View {
    Part *part;
    size_t row; /* within the part */
    Reader registers, file;
    size_t num_registers, num_qubits, bits; /* bits: of the registers */
    size_t width, probability_width, count;
    Slice arrays[FIELDS], rows, probability_rows;
    int has_file;
} View;

static int fail_damaged(const char *what)
{
    return qpi_fail(QPI_PROTOCOL, "use one version of simenv on both sides",
                    "a result cannot be read: %s", what);
}

static size_t small(Reader *from)
{
    uint64_t value = qpi_get_uint(from);
    if (value > UINT32_MAX)
        from->bad = 1;
    return from->bad ? 0 : (size_t)value;
}

static void read_registers(Reader *from, View *view)
{
    view->num_registers = qpi_get_array(from);
    view->registers = *from;
    for (size_t index = 0; index < view->num_registers && !from->bad; index++) {
        if (qpi_get_array(from) != 2)
            from->bad = 1;
        qpi_get_text(from);
        view->bits += small(from);
        if (view->bits > 8 * MAX_WIDTH)
            from->bad = 1;
    }
}

/* The fields of a ResultData, in order. */
static int read_view(Part *part, View *view)
{
    Reader from = qpi_reader(part->payload, part->payload_size);
    size_t fields = qpi_get_array(&from);
    if (fields < 21 || qpi_get_uint(&from) != RESULT_FORMAT)
        return fail_damaged("it has another format");
    read_registers(&from, view);
    view->num_qubits = small(&from);
    qpi_skip(&from, 2); /* shots, seed */
    view->width = small(&from);
    view->arrays[FIELD_OUTCOMES] = qpi_get_bytes(&from);
    view->arrays[FIELD_COUNTS] = qpi_get_bytes(&from);
    view->arrays[FIELD_PROBABILITY_OUTCOMES] = qpi_get_bytes(&from);
    view->probability_width = small(&from);
    view->arrays[FIELD_PROBABILITIES] = qpi_get_bytes(&from);
    view->arrays[FIELD_STATEVECTOR] = qpi_get_bytes(&from);
    view->arrays[FIELD_EXPECTATIONS] = qpi_get_bytes(&from);
    qpi_skip(&from, 4); /* truncation, remark, precision, binding */
    view->count = small(&from);
    view->rows = qpi_get_bytes(&from);
    view->probability_rows = qpi_get_bytes(&from);
    view->has_file = !qpi_skip_nil(&from);
    view->file = from;
    if (from.bad || view->count != part->rows || view->width > MAX_WIDTH
        || view->probability_width > MAX_WIDTH || view->num_qubits > 8 * MAX_WIDTH)
        return fail_damaged("its fields do not fit");
    return QPI_OK;
}

/* --- arrays in a file ----------------------------------------------------------------------- */

typedef struct Stored {
    char *file;
    uint64_t offset, size, checksum;
} Stored;

/* ResultFile: name, bytes, checksum, arrays (field, dtype, shape, offset, bytes, checksum). */
static int find_stored(View *view, int field, Stored *stored)
{
    Reader from = view->file;
    size_t fields = qpi_get_array(&from);
    Slice file = qpi_get_text(&from);
    qpi_skip(&from, 2);
    size_t count = fields < 4 ? 0 : qpi_get_array(&from), found = 0;
    for (size_t index = 0; index < count && !from.bad && !found; index++) {
        size_t parts = qpi_get_array(&from);
        found = parts >= 6 && qpi_slice_is(qpi_get_text(&from), NAMES[field]);
        if (!found)
            qpi_skip(&from, parts ? parts - (parts >= 6) : 0);
    }
    if (!found || from.bad)
        return 0;
    qpi_skip(&from, 2);
    stored->offset = qpi_get_uint(&from);
    stored->size = qpi_get_uint(&from);
    stored->checksum = qpi_get_uint(&from);
    stored->file = from.bad || stored->offset > INT64_MAX / 2 || stored->size > INT64_MAX / 2
                       ? NULL
                       : qpi_slice_copy(file);
    return stored->file != NULL;
}

/* One ResultChunk: request, bytes. */
static int fetch_chunk(qpi_session *session, uint64_t task, const Stored *stored, Buffer *to)
{
    Buffer body = {0}, answer = {0};
    uint64_t number = qpi_next_number(session), left = stored->size - to->used;
    qpi_put_head(&body, 6, TAG_FETCH, number);
    qpi_put_uint(&body, task);
    qpi_put_text(&body, stored->file);
    qpi_put_uint(&body, stored->offset + to->used);
    qpi_put_uint(&body, left < CHUNK_BYTES ? left : CHUNK_BYTES);
    int status = qpi_ask(session, TAG_CHUNK, number, &body, session->config.timeout_s, &answer);
    if (status == QPI_OK) {
        Reader from = qpi_reader(answer.data, answer.used);
        qpi_get_array(&from);
        qpi_skip(&from, 2);
        Slice data = qpi_get_bytes(&from);
        if (from.bad || data.size == 0 || data.size > left)
            status = qpi_fail(QPI_RESULT_STORE, "submit it again with its seed",
                              "%s ends too early", stored->file);
        else
            qpi_buffer_add(to, data.data, data.size);
    }
    qpi_buffer_free(&answer);
    return status != QPI_OK ? status : to->failed ? qpi_fail_memory() : QPI_OK;
}

static int fetch(qpi_job *job, View *view, int field, const Stored *stored)
{
    Buffer found = {0};
    qpi_lock(job->shared);
    qpi_session *session = job->session;
    qpi_unlock(job->shared);
    int status = session ? QPI_OK
                         : qpi_fail(QPI_NO_SERVICE, "read results before qpi_finalize",
                                    "the session was finalized");
    while (status == QPI_OK && found.used < stored->size)
        status = fetch_chunk(session, view->part->task, stored, &found);
    if (status == QPI_OK && qpi_crc32(found.data, found.used) != stored->checksum)
        status = qpi_fail(QPI_RESULT_STORE, "submit it again with its seed",
                          "%s of %s has a wrong checksum", NAMES[field], stored->file);
    qpi_lock(job->shared);
    if (status == QPI_OK && !view->part->fetched[field].data)
        view->part->fetched[field] = found;
    else
        qpi_buffer_free(&found);
    qpi_unlock(job->shared);
    return status;
}

/* An array of all rows of the part; QPI_NO_DATA where the result has none of that name. */
static int find_array(qpi_job *job, View *view, int field, Slice *array)
{
    Stored stored = {0};
    Buffer *fetched = &view->part->fetched[field];
    *array = view->arrays[field];
    if (array->size == 0 && view->has_file && find_stored(view, field, &stored)) {
        qpi_lock(job->shared);
        int is_here = fetched->data != NULL;
        qpi_unlock(job->shared);
        int status = is_here ? QPI_OK : fetch(job, view, field, &stored);
        free(stored.file);
        TRY(status);
        *array = (Slice){fetched->data, fetched->used};
    }
    return QPI_OK;
}

static int fail_absent(int field)
{
    return qpi_fail(QPI_NO_DATA, "name it in qpi_options.outputs", "the result has no %s",
                    NAMES[field]);
}

/* --- rows ----------------------------------------------------------------------------------- */

int qpi_row_status(qpi_job *job, size_t row)
{
    if (row >= job->rows)
        return qpi_fail(QPI_OPTION, NULL, "row %zu of %zu", row, job->rows);
    const Part *part = qpi_part_of(job, row);
    qpi_lock(job->shared);
    int status = part->state != PART_ENDED
                     ? qpi_fail(QPI_PENDING, "qpi_wait", "row %zu has not ended", row)
                 : part->failure.status ? qpi_fail_as(&part->failure)
                                        : QPI_OK;
    qpi_unlock(job->shared);
    return status;
}

static int open_row(qpi_job *job, size_t row, View *view)
{
    *view = (View){0};
    TRY(qpi_row_status(job, row));
    view->part = qpi_part_of(job, row);
    view->row = row - view->part->first_row;
    return read_view(view->part, view);
}

static uint32_t get_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

typedef struct Outcomes { /* of one row */
    const uint8_t *outcomes, *values;
    size_t size, width;
} Outcomes;

/* Where the outcomes of a row are: the rows' parts follow one another, as long as `rows` says. */
static int cut_row(View *view, Slice outcomes, Slice values, size_t value_bytes, size_t width,
                   Slice rows, Outcomes *found)
{
    size_t total = values.size / value_bytes, first = 0, size = total;
    if (values.size % value_bytes || (width ? outcomes.size / width != total : total > view->count)
        || (width && outcomes.size % width))
        return fail_damaged("outcomes and values differ in number");
    if (rows.size) {
        if (rows.size != 4 * view->count)
            return fail_damaged("it has another number of rows");
        for (size_t row = 0; row < view->row; row++)
            first += get_u32(rows.data + 4 * row);
        size = get_u32(rows.data + 4 * view->row);
    } else if (view->count != 1)
        return fail_damaged("it does not say where its rows are");
    if (first > total || size > total - first)
        return fail_damaged("a row ends beyond the result");
    *found = (Outcomes){outcomes.data + first * width, values.data + first * value_bytes, size,
                        width};
    return QPI_OK;
}

static int find_outcomes(qpi_job *job, size_t row, int exact, View *view, Outcomes *found)
{
    Slice outcomes, values;
    int values_field = exact ? FIELD_PROBABILITIES : FIELD_COUNTS;
    TRY(open_row(job, row, view));
    TRY(find_array(job, view, exact ? FIELD_PROBABILITY_OUTCOMES : FIELD_OUTCOMES, &outcomes));
    TRY(find_array(job, view, values_field, &values));
    if (values.size == 0)
        return fail_absent(values_field);
    size_t bits = view->num_registers ? view->bits : view->num_qubits;
    size_t width = exact ? view->probability_width : view->width;
    if (width < (bits + 7) / 8)
        return fail_damaged("its outcomes are too narrow");
    return cut_row(view, outcomes, values, exact ? 8 : 4, width,
                   exact ? view->probability_rows : view->rows, found);
}

/* The bits of an outcome, the last register leftmost, one space between registers. */
static int write_bits(const View *view, const uint8_t *outcome, char *text, size_t capacity)
{
    size_t bits = view->num_registers ? view->bits : view->num_qubits;
    size_t spaces = view->num_registers > 1 ? view->num_registers - 1 : 0;
    size_t at = bits + spaces, bit = 0;
    Reader from = view->registers;
    if (capacity <= at)
        return qpi_fail(QPI_LIMIT, NULL, "an outcome needs %zu bytes, there are %zu", at + 1,
                        capacity);
    text[at] = 0;
    for (size_t index = 0; index < (view->num_registers ? view->num_registers : 1); index++) {
        size_t size = bits;
        if (view->num_registers) {
            qpi_get_array(&from);
            qpi_get_text(&from);
            size = small(&from);
        }
        if (index > 0)
            text[--at] = ' ';
        for (; size > 0; size--, bit++)
            text[--at] = outcome[bit / 8] >> bit % 8 & 1 ? '1' : '0';
    }
    return QPI_OK;
}

static int outcomes_size(qpi_job *job, size_t row, int exact, size_t *outcomes)
{
    View view;
    Outcomes found;
    TRY(find_outcomes(job, row, exact, &view, &found));
    *outcomes = found.size;
    return QPI_OK;
}

static int entry(qpi_job *job, size_t row, int exact, size_t index, char *bits, size_t capacity,
                 const uint8_t **value)
{
    View view;
    Outcomes found;
    TRY(find_outcomes(job, row, exact, &view, &found));
    if (index >= found.size)
        return qpi_fail(QPI_OPTION, NULL, "outcome %zu of %zu", index, found.size);
    *value = found.values + index * (exact ? 8 : 4);
    return write_bits(&view, found.outcomes + index * found.width, bits, capacity);
}

int qpi_counts_size(qpi_job *job, size_t row, size_t *outcomes)
{
    return outcomes_size(job, row, 0, outcomes);
}

int qpi_counts_entry(qpi_job *job, size_t row, size_t index, char *bits, size_t capacity,
                     uint64_t *count)
{
    const uint8_t *value;
    TRY(entry(job, row, 0, index, bits, capacity, &value));
    *count = get_u32(value);
    return QPI_OK;
}

int qpi_probabilities_size(qpi_job *job, size_t row, size_t *outcomes)
{
    return outcomes_size(job, row, 1, outcomes);
}

int qpi_probabilities_entry(qpi_job *job, size_t row, size_t index, char *bits, size_t capacity,
                            double *probability)
{
    const uint8_t *value;
    TRY(entry(job, row, 1, index, bits, capacity, &value));
    memcpy(probability, value, sizeof *probability);
    return QPI_OK;
}

int qpi_expectation(qpi_job *job, size_t row, size_t index, double *value, double *standard_error)
{
    View view;
    Slice array;
    TRY(open_row(job, row, &view));
    TRY(find_array(job, &view, FIELD_EXPECTATIONS, &array));
    if (array.size == 0)
        return fail_absent(FIELD_EXPECTATIONS);
    if (array.size % (16 * view.count))
        return fail_damaged("its expectation values do not fit its rows");
    size_t observables = array.size / (16 * view.count);
    if (index >= observables)
        return qpi_fail(QPI_OPTION, NULL, "observable %zu of %zu", index, observables);
    const uint8_t *at = array.data + 16 * (view.row * observables + index);
    memcpy(value, at, sizeof *value);
    memcpy(standard_error, at + 8, sizeof *standard_error);
    return QPI_OK;
}

/* The warnings of a result's DeviceRecord, its ninth field; returns their number. */
static size_t find_warnings(const View *view, Reader *from)
{
    *from = view->file;
    qpi_skip(from, view->has_file ? 3 : 2); /* file, options, gradients */
    if (from->bad || qpi_skip_nil(from) || qpi_get_array(from) < 9)
        return 0;
    qpi_skip(from, 8);
    return qpi_get_array(from);
}

int qpi_warnings_size(qpi_job *job, size_t row, size_t *warnings)
{
    View view;
    Reader from;
    TRY(open_row(job, row, &view));
    *warnings = find_warnings(&view, &from);
    return from.bad ? fail_damaged("its warnings do not fit") : QPI_OK;
}

int qpi_warning(qpi_job *job, size_t row, size_t index, char *text, size_t capacity)
{
    View view;
    Reader from;
    TRY(open_row(job, row, &view));
    size_t count = find_warnings(&view, &from);
    if (index >= count)
        return qpi_fail(QPI_OPTION, NULL, "warning %zu of %zu", index, count);
    qpi_skip(&from, index);
    Slice found = qpi_get_text(&from);
    if (from.bad)
        return fail_damaged("its warnings do not fit");
    if (found.size >= capacity)
        return qpi_fail(QPI_LIMIT, NULL, "the warning needs %zu bytes", found.size + 1);
    memcpy(text, found.data, found.size);
    text[found.size] = 0;
    return QPI_OK;
}

int qpi_statevector(qpi_job *job, size_t row, double *amplitudes, size_t capacity)
{
    View view;
    Slice array;
    TRY(open_row(job, row, &view));
    TRY(find_array(job, &view, FIELD_STATEVECTOR, &array));
    if (array.size == 0)
        return fail_absent(FIELD_STATEVECTOR);
    size_t size = view.num_qubits < 60 ? (size_t)1 << view.num_qubits : 0;
    size_t bytes = array.size / view.count;
    if (!size || array.size % view.count || (bytes != 16 * size && bytes != 8 * size))
        return fail_damaged("its statevector does not fit its qubits");
    if (capacity < size)
        return qpi_fail(QPI_LIMIT, NULL, "there are %zu amplitudes, and room for %zu", size,
                        capacity);
    const uint8_t *from = array.data + view.row * bytes;
    if (bytes == 16 * size) {
        memcpy(amplitudes, from, bytes);
        return QPI_OK;
    }
    for (size_t part = 0; part < 2 * size; part++) { /* complex64 */
        float value;
        memcpy(&value, from + 4 * part, sizeof value);
        amplitudes[part] = value;
    }
    return QPI_OK;
}

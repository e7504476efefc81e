/* From a circuit, checked options and bindings to messages. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "internal.h"

enum { MESSAGE_TASKS = 500, MESSAGE_BYTES = 1 << 20, MAX_ROWS = 10000000, MOST_ROWS = 256,
       SPEC_BYTES = 64 };
static const double ROW_RESULT_BYTES = 16 << 20, BINDING_BYTES = 1 << 20, MOST_US = 1e5;

static int draw_seed(qpi_options *options)
{
    uint64_t seed = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */
    if (options->has_seed)
        return QPI_OK;
    for (const char *at = options->idempotency_key; at && *at; at++)
        seed = (seed ^ (uint8_t)*at) * 0x100000001b3u;
    if (!options->idempotency_key && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return qpi_fail(QPI_ERROR, NULL, "the system gives no random numbers");
    options->seed = seed >> 11; /* 53 bits survive readers of JSON that use doubles */
    return QPI_OK;
}

/* --- messages ------------------------------------------------------------------------------- */

/* Rows that travel as one task: a function of circuit and options alone, so that a repeat of the
 * submit is cut in the same places. */
static size_t rows_per_task(const qpi_circuit *circuit, const qpi_options *options)
{
    double gates = (double)(circuit->ops.used / 2) + 2.0;
    double amplitudes = pow(2.0, fmin((double)circuit->qubits, 60.0));
    double outcomes = pow(2.0, fmin((double)(circuit->clbits ? circuit->clbits : circuit->qubits),
                                    60.0));
    double shots = (double)options->shots, slots = (double)qpi_circuit_slots(circuit);
    double cost_us = gates * (0.03 + 1.2e-3 * amplitudes) + 3e-3 * shots;
    double bytes = 16.0 + 16.0 * (double)options->num_observables;
    if (options->outputs & QPI_COUNTS)
        bytes += fmin(shots, outcomes) * (12.0 + (double)circuit->clbits / 8.0);
    if (options->outputs & QPI_PROBABILITIES)
        bytes += 16.0 * outcomes;
    if (options->outputs & QPI_STATEVECTOR)
        bytes += 16.0 * amplitudes;
    double rows = fmin(ROW_RESULT_BYTES / bytes, MOST_US / cost_us);
    rows = fmin(rows, BINDING_BYTES / fmax(8.0, 8.0 * slots));
    return rows < 1.0 ? 1 : rows > MOST_ROWS ? MOST_ROWS : (size_t)rows;
}

/* TaskSpec: program, shots, seed, bindings, number of the first, count. */
static void put_spec(Buffer *to, const qpi_circuit *circuit, const qpi_options *options,
                     const double *values, const Part *part)
{
    size_t slots = qpi_circuit_slots(circuit);
    qpi_put_array(to, 6);
    qpi_put_bytes(to, circuit->packed.data, circuit->packed.used);
    qpi_put_int(to, options->shots);
    qpi_put_uint(to, options->seed);
    qpi_put_bytes(to, values ? values + part->first_row * slots : NULL,
                  part->rows * slots * sizeof *values);
    qpi_put_uint(to, part->first_row);
    qpi_put_uint(to, part->rows);
}

typedef struct Order { /* what a submit is made of */
    qpi_session *session;
    const qpi_circuit *circuit;
    const qpi_options *options;
    const double *values; /* float64 [rows, slots] */
    const char *key;
    uint64_t offset; /* of the first task */
    int is_pool;     /* options->device is a pool or NULL, else an emulated device */
} Order;

/* One Submit with the parts first .. first + count - 1; with the lock held. */
static int put_message(const Order *order, qpi_job *job, size_t first, size_t count)
{
    qpi_session *session = order->session;
    Buffer body = {0};
    uint64_t number = ++session->next_number;
    qpi_put_head(&body, 6, TAG_SUBMIT, number);
    qpi_put_text(&body, order->key);
    qpi_put_uint(&body, order->offset + first);
    qpi_put_terms(&body, order->options, order->is_pool);
    qpi_put_array(&body, count);
    for (size_t index = first; index < first + count; index++)
        put_spec(&body, order->circuit, order->options, order->values, &job->parts[index]);
    if (body.used > session->message_bytes) {
        size_t size = body.used;
        qpi_buffer_free(&body);
        return qpi_fail(QPI_LIMIT, "a smaller program",
                        "a message of %zu bytes is over this connection's limit of %zu", size,
                        session->message_bytes);
    }
    Request *request = qpi_request_add(session, KIND_SUBMIT, number, &body);
    if (!request)
        return qpi_fail_memory();
    request->job = job;
    request->first = first;
    request->count = count;
    job->unanswered++;
    return QPI_OK;
}

static int put_messages(const Order *order, qpi_job *job)
{
    size_t slots = qpi_circuit_slots(order->circuit);
    for (size_t first = 0, count; first < job->num_parts; first += count) {
        size_t bytes = 0;
        for (count = 0; first + count < job->num_parts && count < MESSAGE_TASKS; count++) {
            size_t more = order->circuit->packed.used + SPEC_BYTES
                          + job->parts[first + count].rows * slots * sizeof(double);
            if (count > 0 && bytes + more > MESSAGE_BYTES)
                break;
            bytes += more;
        }
        TRY(put_message(order, job, first, count));
    }
    return QPI_OK;
}

static qpi_job *make_job(qpi_session *session, size_t rows, size_t each)
{
    qpi_job *job = calloc(1, sizeof *job);
    size_t parts = (rows + each - 1) / each;
    if (!job || !(job->parts = calloc(parts, sizeof *job->parts))) {
        free(job);
        return NULL;
    }
    job->rows = rows;
    job->num_parts = parts;
    for (size_t index = 0; index < parts; index++) {
        job->parts[index].job = job;
        job->parts[index].first_row = index * each;
        job->parts[index].rows = rows - index * each < each ? rows - index * each : each;
    }
    job->shared = session->shared;
    return job;
}

static int is_settled(void *argument)
{
    return ((qpi_job *)argument)->unanswered == 0;
}

/* Was one of a job's messages sent that has no answer? */
static int is_on_its_way(const qpi_session *session, const qpi_job *job)
{
    for (const Request *each = session->requests; each; each = each->next)
        if (each->kind == KIND_SUBMIT && each->job == job && each->sent_s > 0.0)
            return 1;
    return 0;
}

static int send(Order *order, size_t rows, double timeout_s, qpi_job **job)
{
    qpi_session *session = order->session;
    qpi_job *made = make_job(session, rows, rows_per_task(order->circuit, order->options));
    if (!made)
        return qpi_fail_memory();
    qpi_lock(session->shared);
    session->shared->users++;
    made->session = session;
    made->next = session->jobs;
    session->jobs = made;
    order->key = order->options->idempotency_key;
    if (!order->key) {
        order->key = session->client;
        order->offset = session->next_offset;
        session->next_offset += made->num_parts;
    }
    int status = put_messages(order, made);
    if (status == QPI_OK)
        status = qpi_session_wait(session, is_settled, made, timeout_s, "no acceptance");
    if (status == QPI_OK && made->refused.status)
        status = qpi_fail_as(&made->refused);
    else if (status != QPI_OK && is_on_its_way(session, made))
        qpi_fail_unanswered();
    qpi_unlock(session->shared);
    if (status == QPI_OK || status == QPI_TIMEOUT || status == QPI_SERVICE_LOST)
        *job = made;
    else
        qpi_job_free(made);
    return status;
}

static int bind(const qpi_circuit *circuit, const double *bindings, size_t rows, double **values)
{
    size_t parameters = circuit->num_parameters, slots = qpi_circuit_slots(circuit);
    *values = NULL;
    if (rows < 1 || rows > MAX_ROWS)
        return qpi_fail(QPI_OPTION, "1 to 10000000", "%zu rows", rows);
    if (parameters == 0 && rows > 1)
        return qpi_fail(QPI_OPTION, "1 row; or declare parameters: input float NAME;",
                        "%zu rows of a circuit without parameters", rows);
    if (!bindings && parameters > 0)
        return qpi_fail(QPI_OPTION, "float64 [rows, parameters]",
                        "no values for the circuit's %zu parameters", parameters);
    *values = malloc((rows * slots + 1) * sizeof **values);
    if (!*values)
        return qpi_fail_memory();
    for (size_t row = 0; row < rows && parameters > 0; row++)
        TRY(qpi_circuit_bind(circuit, bindings + row * parameters, row, *values + row * slots));
    return QPI_OK;
}

int qpi_submit(qpi_session *session, const qpi_circuit *circuit, const qpi_options *options,
               const double *bindings, size_t rows, double timeout_s, qpi_job **job)
{
    double start_s = qpi_now_s();
    qpi_options checked;
    double *values = NULL;
    char pool[POOL_CHARS + 1];
    *job = NULL;
    int is_pool = 1;
    qpi_options_init_sized(&checked, sizeof checked);
    if (options && options->struct_bytes != sizeof checked
        && options->struct_bytes != QPI_ACCOUNT_OPTIONS_BYTES
        && options->struct_bytes != QPI_NOISE_OPTIONS_BYTES
        && options->struct_bytes != QPI_FIRST_OPTIONS_BYTES)
        return qpi_fail(QPI_OPTION, "begin with qpi_options_init",
                        "qpi_options.struct_bytes is %zu, not %zu", options->struct_bytes,
                        sizeof checked);
    if (options)
        memcpy(&checked, options, options->struct_bytes);
    TRY(qpi_check_options(circuit, &checked, pool));
    if (checked.device)
        TRY(qpi_find_pool(session, checked.device, timeout_s, &is_pool));
    TRY(draw_seed(&checked));
    int status = bind(circuit, bindings, rows, &values);
    if (status == QPI_OK) {
        Order order = {session, circuit, &checked, values, NULL, 0, is_pool};
        status = send(&order, rows, qpi_left_s(timeout_s, start_s), job);
    }
    free(values);
    return status;
}

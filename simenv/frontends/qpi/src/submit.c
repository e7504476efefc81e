/* From a circuit, options and bindings to messages. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "internal.h"

enum { MESSAGE_TASKS = 500, MESSAGE_BYTES = 1 << 20, MAX_ROWS = 10000000, MOST_ROWS = 256,
       SPEC_BYTES = 64, KEY_CHARS = 256, MAX_PRIORITY = 1000000, MAX_TERMS = 200000 };
static const double ROW_RESULT_BYTES = 16 << 20, BINDING_BYTES = 1 << 20, MOST_US = 1e5;

void qpi_options_init(qpi_options *options)
{
    *options = (qpi_options){.struct_bytes = sizeof *options, .shots = 1024};
}

/* --- options -------------------------------------------------------------------------------- */

/* 1 where it is NULL, or a-z, then up to 63 of a-z 0-9 _ . - */
static int is_name(const char *name)
{
    static const char ALLOWED[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
    return !name || (name[0] >= 'a' && name[0] <= 'z' && strlen(name) <= 64
                     && !name[strspn(name, ALLOWED)]);
}

static int check_name(const char *what, const char *name)
{
    return is_name(name) ? QPI_OK
                         : qpi_fail(QPI_OPTION, "a-z, then up to 63 of a-z 0-9 _ . -",
                                    "%s is '%.80s'", what, name);
}

static int check_observables(const qpi_circuit *circuit, const qpi_options *options)
{
    for (size_t index = 0; index < options->num_observables; index++) {
        const qpi_observable *each = &options->observables[index];
        if (each->terms == 0 || each->terms > MAX_TERMS)
            return qpi_fail(QPI_OPTION, "1 to 200000", "observable %zu has %zu terms", index,
                            each->terms);
        for (size_t term = 0; term < each->terms; term++) {
            const char *label = each->labels[term];
            if (strlen(label) != circuit->qubits || label[strspn(label, "IXYZ")])
                return qpi_fail(QPI_OPTION, "one of I X Y Z for each qubit; qubit 0 is the last",
                                "observable %zu: '%.80s' is no label for %zu qubits", index, label,
                                circuit->qubits);
            if (!isfinite(each->coefficients[term]))
                return qpi_fail(QPI_OPTION, "finite real numbers",
                                "observable %zu: a coefficient is %g", index,
                                each->coefficients[term]);
        }
    }
    return QPI_OK;
}

static int check_timeout(const char *what, double value)
{
    return value >= 0.0 && value <= 1e8
               ? QPI_OK
               : qpi_fail(QPI_OPTION, "seconds; 0: none", "%s is %g", what, value);
}

/* The outputs asked for, or those that follow from the rest. */
static int check_outputs(const qpi_circuit *circuit, qpi_options *options)
{
    unsigned known = QPI_COUNTS | QPI_PROBABILITIES | QPI_STATEVECTOR | QPI_EXPECTATION;
    int sampled = circuit->measures && options->shots > 0;
    if (options->num_observables > 0) {
        if (!options->outputs && sampled)
            options->outputs = QPI_COUNTS;
        options->outputs |= QPI_EXPECTATION;
    }
    if (!options->outputs)
        options->outputs = QPI_COUNTS;
    if (options->outputs & ~known)
        return qpi_fail(QPI_OPTION, "QPI_COUNTS, QPI_PROBABILITIES, QPI_STATEVECTOR, "
                                    "QPI_EXPECTATION",
                        "outputs %#x are not known", options->outputs);
    if ((options->outputs & QPI_EXPECTATION) && options->num_observables == 0)
        return qpi_fail(QPI_OPTION, "set observables and num_observables",
                        "expectation values of nothing were asked for");
    if ((options->outputs & QPI_COUNTS) && options->shots == 0)
        return qpi_fail(QPI_OPTION, "QPI_PROBABILITIES gives the exact distribution",
                        "counts were asked for with 0 shots");
    if ((options->outputs & QPI_COUNTS) && !circuit->measures)
        return qpi_fail(QPI_PROGRAM, "measure, or ask for QPI_STATEVECTOR",
                        "counts were asked of a circuit that measures nothing");
    if ((options->outputs & QPI_STATEVECTOR) && circuit->measures)
        return qpi_fail(QPI_PROGRAM, "remove the measurements",
                        "a statevector was asked of a circuit that measures");
    return QPI_OK;
}

static int check_options(const qpi_circuit *circuit, qpi_options *options)
{
    const char *key = options->idempotency_key;
    if (options->shots < 0 || options->shots > INT32_MAX)
        return qpi_fail(QPI_OPTION, "0 (exact) to 2147483647", "shots is %lld",
                        (long long)options->shots);
    if (options->priority < -MAX_PRIORITY || options->priority > MAX_PRIORITY)
        return qpi_fail(QPI_OPTION, "-1000000 to 1000000", "priority is %lld",
                        (long long)options->priority);
    if (key && (!*key || *key == '~' || strlen(key) > KEY_CHARS))
        return qpi_fail(QPI_OPTION, "1 to 256 characters, not beginning with ~",
                        "idempotency_key '%.80s' is not allowed", key);
    TRY(check_name("device", options->device));
    TRY(check_name("engine", options->engine));
    TRY(check_name("name", options->name));
    TRY(check_timeout("queue_timeout_s", options->queue_timeout_s));
    TRY(check_timeout("run_timeout_s", options->run_timeout_s));
    TRY(check_observables(circuit, options));
    return check_outputs(circuit, options);
}

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

/* TaskOptions, up to its field `app`; the rest has defaults. */
static void put_terms(Buffer *to, const qpi_options *options)
{
    static const char *const OUTPUTS[] = {"counts", "probabilities", "statevector", "expectation"};
    const char *app = getenv("SIMENV_APP");
    qpi_put_array(to, 10);
    qpi_put_array(to, (size_t)__builtin_popcount(options->outputs));
    for (int bit = 0; bit < 4; bit++)
        if (options->outputs & 1u << bit)
            qpi_put_text(to, OUTPUTS[bit]);
    qpi_put_array(to, options->num_observables);
    for (size_t index = 0; index < options->num_observables; index++) {
        const qpi_observable *each = &options->observables[index];
        qpi_put_array(to, 2);
        qpi_put_array(to, each->terms);
        for (size_t term = 0; term < each->terms; term++)
            qpi_put_text(to, each->labels[term]);
        qpi_put_bytes(to, each->coefficients, each->terms * sizeof *each->coefficients);
    }
    qpi_put_text(to, options->engine ? options->engine : "auto");
    qpi_put_text(to, options->single_precision ? "single" : "double");
    qpi_put_text(to, options->device);
    qpi_put_int(to, options->priority);
    qpi_put_double(to, options->queue_timeout_s);
    qpi_put_double(to, options->run_timeout_s);
    qpi_put_text(to, options->name);
    qpi_put_text(to, is_name(app && *app ? app : NULL) ? app : "");
}

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
} Order;

/* One Submit with the parts first .. first + count - 1; with the lock held. */
static int put_message(const Order *order, qpi_job *job, size_t first, size_t count)
{
    qpi_session *session = order->session;
    Buffer body = {0};
    uint64_t number = ++session->next_number;
    qpi_put_array(&body, 6);
    qpi_put_uint(&body, TAG_SUBMIT);
    qpi_put_uint(&body, number);
    qpi_put_text(&body, order->key);
    qpi_put_uint(&body, order->offset + first);
    put_terms(&body, order->options);
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
    *job = NULL;
    qpi_options_init(&checked);
    if (options && options->struct_bytes != sizeof checked)
        return qpi_fail(QPI_OPTION, "begin with qpi_options_init",
                        "qpi_options.struct_bytes is %zu, not %zu", options->struct_bytes,
                        sizeof checked);
    if (options)
        checked = *options;
    TRY(check_options(circuit, &checked));
    if (checked.device)
        TRY(qpi_check_device(session, checked.device, timeout_s));
    TRY(draw_seed(&checked));
    int status = bind(circuit, bindings, rows, &values);
    if (status == QPI_OK) {
        Order order = {session, circuit, &checked, values, NULL, 0};
        status = send(&order, rows, qpi_left_s(timeout_s, start_s), job);
    }
    free(values);
    return status;
}

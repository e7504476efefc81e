/* From a circuit, checked options and bindings to a request. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "internal.h"

enum { MAX_ROWS = 1 << 20, MAX_PAGE = 1000 };
static const double PAGE_BYTES = 8 << 20; /* about, of a page of results and what makes it */
static const double SMALL_QUBITS = 10.0; /* whose statevectors travel as JSON */
static const double FIRST_HOLD_S = 0.01; /* that a submit waits for the result of a small circuit */

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

static int check_bindings(const qpi_circuit *circuit, const double *bindings, size_t rows)
{
    size_t parameters = circuit->num_parameters;
    if (rows < 1 || rows > MAX_ROWS)
        return qpi_fail(QPI_OPTION, "1 to 1048576", "%zu rows", rows);
    if (parameters == 0 && rows > 1)
        return qpi_fail(QPI_OPTION, "1 row; or declare parameters: input float NAME;",
                        "%zu rows of a circuit without parameters", rows);
    if (!bindings && parameters > 0)
        return qpi_fail(QPI_OPTION, "float64 [rows, parameters]",
                        "no values for the circuit's %zu parameters", parameters);
    for (size_t index = 0; index < rows * parameters; index++)
        if (!isfinite(bindings[index]))
            return qpi_fail(QPI_OPTION, "finite numbers", "row %zu: %s is %g", index / parameters,
                            qpi_circuit_parameter(circuit, index % parameters), bindings[index]);
    return QPI_OK;
}

/* For each parameter its value, or in a sweep its values in all rows. */
static void put_bindings(Buffer *to, const qpi_circuit *circuit, const double *bindings,
                         size_t rows)
{
    size_t parameters = circuit->num_parameters;
    qpi_put(to, ",\"parameter_values\":{");
    for (size_t column = 0; column < parameters; column++) {
        qpi_put(to, column ? "," : "");
        qpi_put_string(to, qpi_circuit_parameter(circuit, column));
        qpi_put(to, rows > 1 ? ":[" : ":");
        for (size_t row = 0; row < rows; row++) {
            qpi_put(to, row ? "," : "");
            qpi_put_double(to, bindings[row * parameters + column]);
        }
        qpi_put(to, rows > 1 ? "]" : "");
    }
    qpi_put(to, "}");
}

/* Rows whose results are asked for at once, as JSON; 0: each by itself, as arrays. */
static size_t rows_of_page(const qpi_circuit *circuit, const qpi_options *options)
{
    double bits = (double)(circuit->clbits ? circuit->clbits : circuit->qubits);
    double outcomes = bits > 0.0 ? pow(2.0, fmin(bits, 60.0)) : 1e18, bytes = 4096.0;
    if (options->outputs & QPI_STATEVECTOR) {
        if (circuit->qubits == 0 || (double)circuit->qubits > SMALL_QUBITS)
            return 0;
        bytes += 200.0 * pow(2.0, (double)circuit->qubits);
    }
    if (options->outputs & QPI_COUNTS)
        bytes += fmin((double)options->shots, outcomes) * (160.0 + bits);
    if (options->outputs & QPI_PROBABILITIES)
        bytes += fmin(outcomes, 1e5) * (160.0 + bits);
    double rows = PAGE_BYTES / bytes;
    return rows < 1.0 ? 1 : rows > MAX_PAGE ? MAX_PAGE : (size_t)rows;
}

static qpi_job *make_job(size_t rows)
{
    qpi_job *job = calloc(1, sizeof *job);
    if (!job || !(job->loaded = calloc(rows, sizeof *job->loaded))) {
        free(job);
        return NULL;
    }
    job->rows = rows;
    return job;
}

/* Make the session know the job; 1: no other one is open. */
static int enter(qpi_session *session, qpi_job *job, const char *key)
{
    qpi_lock(session->shared);
    session->shared->users++;
    job->shared = session->shared;
    job->session = session;
    job->next = session->jobs;
    session->jobs = job;
    int is_alone = session->open++ == 0;
    job->is_open = 1;
    if (key)
        snprintf(job->key, sizeof job->key, "%s", key);
    else
        snprintf(job->key, sizeof job->key, "qpi-%s-%llu", session->client,
                 (unsigned long long)++session->next_key);
    qpi_unlock(session->shared);
    return is_alone;
}

/* Send a job, whose request is complete. */
static int send(qpi_session *session, const qpi_options *options, double end_s, double timeout_s,
                qpi_job *made, qpi_job **job)
{
    int is_alone = enter(session, made, options->idempotency_key);
    double hold_s = is_alone && !made->is_sweep && !made->by_row ? FIRST_HOLD_S : 0.0;
    int status = qpi_job_settle(made, hold_s, end_s, timeout_s);
    int is_under_way = made->was_sent && !made->refused.status;
    if (status == QPI_OK || status == QPI_TIMEOUT || status == QPI_SERVICE_LOST || is_under_way)
        *job = made;
    else
        qpi_job_free(made);
    return status;
}

int qpi_submit(qpi_session *session, const qpi_circuit *circuit, const qpi_options *options,
               const double *bindings, size_t rows, double timeout_s, qpi_job **job)
{
    double end_s = qpi_end_s(timeout_s);
    qpi_options checked;
    char pool[POOL_CHARS + 1];
    int is_pool = 1;
    *job = NULL;
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
    TRY(check_bindings(circuit, bindings, rows));
    if (checked.device)
        TRY(qpi_find_pool(session, checked.device, end_s, timeout_s, &is_pool));
    TRY(draw_seed(&checked));
    qpi_job *made = make_job(rows);
    if (!made)
        return qpi_fail_memory();
    made->is_sweep = rows > 1;
    made->page = rows_of_page(circuit, &checked);
    made->by_row = made->page == 0;
    qpi_put(&made->body, "{\"program\":");
    qpi_put_string(&made->body, circuit->text);
    qpi_put_options(&made->body, &checked, is_pool);
    if (circuit->num_parameters > 0)
        put_bindings(&made->body, circuit, bindings, rows);
    qpi_put(&made->body, "}");
    qpi_buffer_add(&made->body, "", 1);
    if (made->body.failed) {
        free(made->loaded);
        qpi_buffer_free(&made->body);
        free(made);
        return qpi_fail_memory();
    }
    return send(session, &checked, end_s, timeout_s, made, job);
}

/* Status codes, their names, and the last error of each thread. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "internal.h"

enum { MESSAGE_BYTES = 1024 };

typedef struct LastError {
    char message[MESSAGE_BYTES], hint[MESSAGE_BYTES];
    int line, column;
    double retry_after_s;
    int maybe_accepted;
} LastError;

static _Thread_local LastError last;

/* `name`: the code of simenv.errors, which travels in refusals. */
static const struct {
    int status;
    const char *name, *meaning;
} STATUSES[] = {
    {QPI_OK, "ok", "no error"},
    {QPI_ERROR, "error", "simenv refused the call"},
    {QPI_OPTION, "option", "an argument or option has an impossible value"},
    {QPI_CONFIG, "config", "a file, variable or token of the configuration cannot be used"},
    {QPI_PROGRAM, "program", "the circuit cannot be read or run"},
    {QPI_LIMIT, "limit", "a fixed bound on sizes or numbers was passed"},
    {QPI_INFEASIBLE, "infeasible", "this environment can never run the task"},
    {QPI_INSUFFICIENT, "insufficient", "what the task needs is in use; try again later"},
    {QPI_QUEUE_FULL, "queue_full", "the queue is full; try again later"},
    {QPI_RESERVATION, "reservation", "the reservation is over, or does not cover this"},
    {QPI_KEY_REFUSED, "key_refused", "the service does not know this token"},
    {QPI_NOT_ALLOWED, "not_allowed", "the role of the token does not allow this"},
    {QPI_KEY_CONFLICT, "key_conflict", "the idempotency key was used with other content"},
    {QPI_NOT_FOUND, "not_found", "no pool, device or task of that name"},
    {QPI_NO_SERVICE, "no_service", "no gateway or service could be reached"},
    {QPI_SERVICE_LOST, "service_lost", "the service answered before and is silent now"},
    {QPI_VERSION_MISMATCH, "version", "library and service are of different builds"},
    {QPI_PROTOCOL, "protocol", "the gateway sent something that is not of its API"},
    {QPI_RESULT_STORE, "result_store", "a stored result cannot be read"},
    {QPI_TASK_FAILED, "task_failed", "an accepted task failed"},
    {QPI_TASK_CANCELLED, "task_cancelled", "the task was cancelled before it had a result"},
    {QPI_TASK_EXPIRED, "task_expired", "the task passed its queue or run timeout"},
    {QPI_TIMEOUT, "timeout", "the deadline of the call passed"},
    {QPI_NO_DATA, "no_data", "the row has ended without this output"},
    {QPI_PENDING, "pending", "the row has not ended"},
    {QPI_MEMORY, "memory", "no memory is left"},
    {QPI_OPTION, "no_device", "an option needs an emulated device"}, /* further names below */
    {QPI_NO_SERVICE, "shutting_down", "the service ends"},
};
enum { NUM_STATUSES = sizeof STATUSES / sizeof *STATUSES };

int qpi_abi_version(void)
{
    return QPI_ABI_VERSION;
}

const char *qpi_version(void)
{
    return QPI_PACKAGE_VERSION;
}

const char *qpi_status_name(int status)
{
    for (int index = 0; index < NUM_STATUSES; index++)
        if (STATUSES[index].status == status)
            return STATUSES[index].name;
    return "error";
}

const char *qpi_error_string(int status)
{
    for (int index = 0; index < NUM_STATUSES; index++)
        if (STATUSES[index].status == status)
            return STATUSES[index].meaning;
    return "no status of this library";
}

int qpi_status_of(const char *code)
{
    for (int index = 1; index < NUM_STATUSES; index++)
        if (!strcmp(STATUSES[index].name, code))
            return STATUSES[index].status;
    return QPI_ERROR;
}

const char *qpi_error_message(void)
{
    return last.message;
}

const char *qpi_error_hint(void)
{
    return last.hint;
}

int qpi_error_line(void)
{
    return last.line;
}

int qpi_error_column(void)
{
    return last.column;
}

double qpi_error_retry_after_s(void)
{
    return last.retry_after_s;
}

int qpi_error_maybe_accepted(void)
{
    return last.maybe_accepted;
}

int qpi_fail(int status, const char *hint, const char *format, ...)
{
    LastError made = {.line = 0};
    va_list values;
    va_start(values, format);
    vsnprintf(made.message, sizeof made.message, format, values);
    va_end(values);
    snprintf(made.hint, sizeof made.hint, "%s", hint ? hint : "");
    last = made;
    return status;
}

void qpi_fail_unanswered(void)
{
    size_t used = strlen(last.message);
    last.maybe_accepted = 1;
    snprintf(last.message + used, sizeof last.message - used, "; its tasks may have been accepted");
    snprintf(last.hint, sizeof last.hint,
             "repeat it with the same idempotency_key, which gives the same tasks; simenv history "
             "shows what ran");
}

int qpi_fail_memory(void)
{
    return qpi_fail(QPI_MEMORY, "free memory, or submit fewer rows", "no memory is left");
}

int qpi_fail_as(const Failure *failure)
{
    const char *message = failure->message ? failure->message : qpi_error_string(failure->status);
    qpi_fail(failure->status, failure->hint, "%s", message);
    last.line = failure->line;
    last.column = failure->column;
    last.retry_after_s = failure->retry_after_s;
    last.maybe_accepted = failure->maybe_accepted;
    return failure->status;
}

void qpi_failure_clear(Failure *failure)
{
    free(failure->message);
    free(failure->hint);
    *failure = (Failure){0};
}

void qpi_failure_take(Failure *failure, int status)
{
    qpi_failure_clear(failure);
    *failure = (Failure){status, last.line, last.column, strdup(last.message), strdup(last.hint),
                         last.retry_after_s, last.maybe_accepted};
}

double qpi_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double qpi_end_s(double timeout_s)
{
    return timeout_s < 0.0 ? INFINITY : qpi_now_s() + timeout_s;
}

const char *qpi_variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

int qpi_random_hex(char *to, size_t bytes)
{
    unsigned char drawn;
    for (size_t index = 0; index < bytes; index++) {
        if (getrandom(&drawn, 1, 0) != 1)
            return qpi_fail(QPI_ERROR, NULL, "the system gives no random numbers");
        snprintf(to + 2 * index, 3, "%02x", drawn);
    }
    return QPI_OK;
}

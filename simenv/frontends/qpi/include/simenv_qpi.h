/* simenv QPI: quantum circuits from compiled programs.
 *
 * The library translates calls to HTTP for a gateway of simenv, at its Unix socket on this machine
 * or at its URL, by libcurl. No Python runs in the process.
 *
 * Rules for all functions
 *
 * Return value: QPI_OK (0) or a `qpi_status`. The text of the last error of the calling thread is
 * given by `qpi_error_message` and `qpi_error_hint`.
 *
 * Deadlines: `timeout_s` is the longest time in seconds that the call takes; 0 asks once, which
 * takes 0.25 s at most, and QPI_FOREVER waits as long as the service answers. A gateway or service
 * that restarts is waited for, up to `qpi_config.patience_s` of silence: then QPI_SERVICE_LOST.
 * Session and jobs stay usable.
 *
 * Reliability: an accepted task is stored on the service's disk. After a restart of the gateway or
 * the service the library sends again what was not answered, under the same idempotency key, and
 * asks for the results of open tasks: no row is lost, and none is run or delivered twice.
 *
 * Threads: all functions may be called from all threads at once, also on one session and one job.
 * Exceptions: nothing may use an object while `qpi_finalize`, `qpi_job_free` or `qpi_circuit_free`
 * is called on it. A session has no thread of its own: requests are sent in calls.
 * A session does not survive fork(): the child must not use it.
 *
 * Memory: objects behind pointers belong to the library until their `_free` or `_finalize`; text
 * and arrays of the caller are copied before the call returns. All functions that "free" accept
 * NULL.
 *
 * Structures begin with `struct_bytes`, set by their `_init` function: fields may be appended in
 * later versions with the same QPI_ABI_VERSION.
 */
#ifndef SIMENV_QPI_H
#define SIMENV_QPI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a program must be compiled anew; it is part of the library's soname. */
#define QPI_ABI_VERSION 1
#define QPI_FOREVER (-1.0)
#define QPI_NAME_BYTES 72

#if defined(__GNUC__)
#define QPI_API __attribute__((visibility("default")))
#else
#define QPI_API
#endif

typedef enum qpi_status {
    QPI_OK = 0,
    QPI_ERROR = 1,           /* anything without a code of its own */
    QPI_OPTION = 2,          /* an argument or option has an impossible value */
    QPI_CONFIG = 3,          /* a file, variable or token of the configuration cannot be used */
    QPI_PROGRAM = 4,         /* the circuit cannot be read or run; see qpi_error_line */
    QPI_LIMIT = 5,           /* a fixed bound on sizes or numbers was passed */
    QPI_INFEASIBLE = 6,      /* this environment can never run the task */
    QPI_INSUFFICIENT = 7,    /* not now: the same call may succeed later */
    QPI_QUEUE_FULL = 8,      /* the queue is full; see qpi_error_retry_after_s */
    QPI_RESERVATION = 9,     /* the reservation is over, or does not cover this */
    QPI_KEY_REFUSED = 10,    /* the service does not know this token */
    QPI_NOT_ALLOWED = 11,    /* the role of the token does not allow this */
    QPI_KEY_CONFLICT = 12,   /* the idempotency key was used before with other content */
    QPI_NOT_FOUND = 13,      /* no pool, device or task of that name */
    QPI_NO_SERVICE = 14,     /* no gateway or service could be reached */
    QPI_SERVICE_LOST = 15,   /* the service answered before and is silent now */
    QPI_VERSION_MISMATCH = 16, /* gateway and service are of different builds */
    QPI_PROTOCOL = 17,       /* the gateway sent something that is not of its API */
    QPI_RESULT_STORE = 18,   /* a stored result cannot be read */
    QPI_TASK_FAILED = 19,    /* an accepted task failed */
    QPI_TASK_CANCELLED = 20, /* the task was cancelled before it had a result */
    QPI_TASK_EXPIRED = 21,   /* the task passed its queue or run timeout */
    QPI_TIMEOUT = 22,        /* the deadline of the call passed; the task goes on */
    QPI_NO_DATA = 23,        /* the row has ended without this output */
    QPI_PENDING = 24,        /* the row has not ended */
    QPI_MEMORY = 25          /* no memory is left */
} qpi_status;

typedef struct qpi_session qpi_session; /* the way to an environment */
typedef struct qpi_circuit qpi_circuit; /* the text of a circuit; immutable */
typedef struct qpi_job qpi_job;         /* the rows of one submit */

/* --- library and errors --------------------------------------------------------------------- */

QPI_API int qpi_abi_version(void);
/* Version of the simenv package it was built from, such as "0.1.0". Static. */
QPI_API const char *qpi_version(void);
/* The code of a status as simenv names it, such as "queue_full". Static. */
QPI_API const char *qpi_status_name(int status);
/* One sentence on what a status means. Static. */
QPI_API const char *qpi_error_string(int status);
/* The last error of the calling thread: what happened, and the way out ("" if none is known).
 * Valid until the thread's next call that fails. */
QPI_API const char *qpi_error_message(void);
QPI_API const char *qpi_error_hint(void);
/* Line and column of a QPI_PROGRAM error, counted from 1; 0: not known. */
QPI_API int qpi_error_line(void);
QPI_API int qpi_error_column(void);
/* Seconds after which a refused submit may be tried again; 0: not known. */
QPI_API double qpi_error_retry_after_s(void);
/* 1: a submit was sent and is without an answer, so that its tasks may run. Repeat it with the
 * same `idempotency_key`: it gives the same tasks. */
QPI_API int qpi_error_maybe_accepted(void);

/* --- session -------------------------------------------------------------------------------- */

typedef struct qpi_config {
    size_t struct_bytes;
    /* Name of an environment below SIMENV_HOME (default ~/.simenv), whose gateway has a Unix socket
     * for programs of its user. NULL: SIMENV_SERVICE, a name or a connection file, else "default".
     */
    const char *environment;
    /* URL of a gateway, such as "https://host:8080"; NULL: SIMENV_URL, where `environment` is NULL
     * as well; without both there is the socket alone. Certificates are checked by CURL_CA_BUNDLE,
     * else SSL_CERT_FILE, else the system's. */
    const char *url;
    const char *token; /* of `simenv gateway tokens add`; NULL: SIMENV_TOKEN */
    double timeout_s;  /* of the first answer; default 10 */
    double patience_s; /* of silence before QPI_SERVICE_LOST; default 30 */
} qpi_config;

QPI_API void qpi_config_init(qpi_config *config);
/* Find the gateway, and wait for its first answer. `config` may be NULL: all defaults. */
QPI_API int qpi_init(const qpi_config *config, qpi_session **session);
/* Close the connections and free the session. Tasks go on. Jobs of the session stay readable, must
 * still be freed, and end with QPI_NO_SERVICE where they had not ended. A child of the process
 * needs a session of its own. */
QPI_API void qpi_finalize(qpi_session *session);

/* --- devices -------------------------------------------------------------------------------- */

typedef struct qpi_device { /* a pool of the environment */
    char name[QPI_NAME_BYTES];
    char kind[QPI_NAME_BYTES];  /* "ideal", "emulated" or "hardware" */
    char model[QPI_NAME_BYTES]; /* preferred engine, or the machine's name */
    int64_t num_qubits;         /* 0: the machine has not described itself yet */
    int64_t max_shots;
} qpi_device;

/* Write the first `capacity` devices, and the number that there are to `count`. */
QPI_API int qpi_devices(qpi_session *session, double timeout_s, qpi_device *devices,
                        size_t capacity, size_t *count);

/* --- circuits ------------------------------------------------------------------------------- */

/* Take OpenQASM text, of version 2 or 3, as the service reads it. Nothing is parsed here but the
 * declarations: errors of the text come with qpi_submit, as QPI_PROGRAM with line and column.
 * `input` parameters are bound by qpi_submit, in the order of their declarations, in radians. */
QPI_API int qpi_circuit_from_qasm(const char *text, qpi_circuit **circuit);
QPI_API void qpi_circuit_free(qpi_circuit *circuit);
/* Numbers of declared bits; 0 also where the text computes the size of a register. */
QPI_API size_t qpi_circuit_qubits(const qpi_circuit *circuit);
QPI_API size_t qpi_circuit_clbits(const qpi_circuit *circuit);
QPI_API size_t qpi_circuit_parameters(const qpi_circuit *circuit);
/* Name of parameter `index`; NULL beyond the last. Valid as long as the circuit. */
QPI_API const char *qpi_circuit_parameter(const qpi_circuit *circuit, size_t index);

/* --- tasks ---------------------------------------------------------------------------------- */

/* Outputs, to be combined with |. */
#define QPI_COUNTS 1u
#define QPI_PROBABILITIES 2u /* over clbits; over qubits where nothing is measured */
#define QPI_STATEVECTOR 4u   /* of circuits that measure nothing */
#define QPI_EXPECTATION 8u   /* of `observables` */

/* sum_k coefficients[k] * labels[k]; a label has one of I X Y Z for each qubit, qubit 0 last. */
typedef struct qpi_observable {
    const char *const *labels;
    const double *coefficients;
    size_t terms;
} qpi_observable;

/* Factor of a component of the noise of an emulated device, such as {"gate.depolarizing", 0.5}; the
 * guide of emulated devices lists them. {"all", 0.0} is the device without noise, {"recipe.aer",
 * 1.0} another recipe. */
typedef struct qpi_noise_factor {
    const char *component;
    double factor;
} qpi_noise_factor;

typedef struct qpi_options {
    size_t struct_bytes;
    int64_t shots;      /* of each row; 0: exact, no sampling; default 1024 */
    int has_seed;       /* 0: the seed is drawn, or derived from the idempotency key */
    uint64_t seed;
    unsigned outputs;   /* 0: counts, or expectation values where there are observables */
    const qpi_observable *observables;
    size_t num_observables;
    /* A pool, from qpi_devices; or the name of an emulated device, such as "fez"; NULL: any. A
     * circuit that does not fit the emulated device is compiled for it; in one that fits, qubit k
     * is the device's qubit k. */
    const char *device;
    const char *engine; /* NULL: "auto" */
    int single_precision;
    int64_t priority;   /* -1000000 .. 1000000 */
    double queue_timeout_s; /* 0: none */
    double run_timeout_s;   /* 0: none */
    const char *name;   /* shown by `simenv queue`; NULL: none */
    /* 1 to 256 visible characters of ASCII, not beginning with "~". A later submit with the same
     * key and content, by this process or another, gets the same tasks and their results. NULL: an
     * automatic key, which covers resubmission within this session. */
    const char *idempotency_key;
    /* Of an emulated device, which `device` names; none: the device as it is calibrated. */
    const qpi_noise_factor *noise;
    size_t num_noise;
    const char *account; /* that pays; NULL: SIMENV_ACCOUNT, else the default one of the user */
    const char *qos;     /* class of service; NULL: SIMENV_QOS, else the first of the account */
    int64_t reservation; /* its number; 0: that of `device` in SIMENV_RESERVATION, else none */
} qpi_options;

/* Set the defaults, before any field is set. `struct_bytes`: size of the structure in the program,
 * which may be compiled with an earlier header. */
QPI_API void qpi_options_init_sized(qpi_options *options, size_t struct_bytes);
/* The same for programs that were compiled before `noise` was appended. */
QPI_API void qpi_options_init(qpi_options *options);
#define qpi_options_init(options) qpi_options_init_sized((options), sizeof *(options))

/* Submit one circuit with `rows` sets of parameter values: float64 [rows, parameters], radians,
 * row by row, 2**20 rows at most. For a circuit without parameters `bindings` is NULL and `rows` is
 * 1. Returns when all tasks are stored by the service. `options` may be NULL: all defaults.
 *
 * On QPI_TIMEOUT and QPI_SERVICE_LOST, and on another error behind a submit without an answer,
 * `*job` is set as well, since the submit is under way: it stays so, and qpi_wait continues it.
 * Where `*job` is NULL after an error, no task exists. */
QPI_API int qpi_submit(qpi_session *session, const qpi_circuit *circuit,
                       const qpi_options *options, const double *bindings, size_t rows,
                       double timeout_s, qpi_job **job);
QPI_API size_t qpi_job_rows(const qpi_job *job);
/* Number of rows that have ended, with a result or without. Asks once, at most each 10 ms. An error
 * of asking that does not pass by itself, such as QPI_KEY_REFUSED, is told by qpi_row_status. */
QPI_API size_t qpi_poll(qpi_job *job);
/* Wait until every row has ended. QPI_OK: all have results; else the error of the first row that
 * has none, or QPI_TIMEOUT. */
QPI_API int qpi_wait(qpi_job *job, double timeout_s);
/* Ask the service to cancel the rows that have not ended. A row that was about to end may still
 * get its result: qpi_wait tells. */
QPI_API int qpi_cancel(qpi_job *job, double timeout_s);
/* Forget the job here; its tasks go on. */
QPI_API void qpi_job_free(qpi_job *job);

/* --- results of a row ----------------------------------------------------------------------- */

/* QPI_OK, QPI_PENDING, or why the row has no result. */
QPI_API int qpi_row_status(qpi_job *job, size_t row);
/* Id of the row's task, such as "t-1f", as the command line takes it. Rows may share a task. */
QPI_API int qpi_task_id(qpi_job *job, size_t row, char *text, size_t capacity);
/* Warnings of the row's result, such as noise that does not act as asked; mostly none. */
QPI_API int qpi_warnings_size(qpi_job *job, size_t row, size_t *warnings);
QPI_API int qpi_warning(qpi_job *job, size_t row, size_t index, char *text, size_t capacity);
/* Number of distinct outcomes, and outcome `index` in ascending order: its bits (clbit 0
 * rightmost, one space between registers, a zero at the end) and how often it was seen. */
QPI_API int qpi_counts_size(qpi_job *job, size_t row, size_t *outcomes);
QPI_API int qpi_counts_entry(qpi_job *job, size_t row, size_t index, char *bits, size_t capacity,
                             uint64_t *count);
QPI_API int qpi_probabilities_size(qpi_job *job, size_t row, size_t *outcomes);
QPI_API int qpi_probabilities_entry(qpi_job *job, size_t row, size_t index, char *bits,
                                    size_t capacity, double *probability);
/* Value and standard error (0 where it is exact) of observable `index`. */
QPI_API int qpi_expectation(qpi_job *job, size_t row, size_t index, double *value,
                            double *standard_error);
/* Write 2**qubits amplitudes, real and imaginary part of each; qubit 0 is the lowest bit of an
 * index. `capacity`: amplitudes that fit; fewer than needed: QPI_LIMIT. */
QPI_API int qpi_statevector(qpi_job *job, size_t row, double *amplitudes, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif

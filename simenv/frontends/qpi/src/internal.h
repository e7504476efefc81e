/* Declarations shared by the modules of the library; none is exported. */
#ifndef SIMENV_QPI_INTERNAL_H
#define SIMENV_QPI_INTERNAL_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "simenv_qpi.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_status = (call);                                                                   \
        if (try_status != QPI_OK)                                                                  \
            return try_status;                                                                     \
    } while (0)

/* --- errors.c ------------------------------------------------------------------------------- */

/* An error with its texts, which are owned. */
typedef struct Failure {
    int status, line, column;
    char *message, *hint;
    double retry_after_s;
    int maybe_accepted;
} Failure;

/* Set the calling thread's last error and return `status`. `hint` may be NULL. */
int qpi_fail(int status, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int qpi_fail_memory(void);
/* Add to the thread's last error, of a submit, that it was sent and has no answer. */
void qpi_fail_unanswered(void);
/* Set the thread's last error to a copy of `failure`. */
int qpi_fail_as(const Failure *failure);
/* Take a copy of the thread's last error, of this status; without memory the texts are NULL. */
void qpi_failure_take(Failure *failure, int status);
/* Frees the texts and leaves QPI_OK. */
void qpi_failure_clear(Failure *failure);
/* The status of a code of simenv.errors; QPI_ERROR for one of a newer service. */
int qpi_status_of(const char *code);
double qpi_now_s(void); /* monotonic */
double qpi_end_s(double timeout_s); /* when it passes, monotonic; INFINITY for QPI_FOREVER */
/* Write random bytes as two hexadecimal digits each, and a zero. */
int qpi_random_hex(char *to, size_t bytes);
/* The value of a variable; NULL where it is not set, or empty. */
const char *qpi_variable(const char *name);

/* --- buffer.c: growing bytes; `failed` is set when no memory is left, and stays -------------- */

typedef struct Buffer {
    char *data;
    size_t used, capacity;
    int failed;
} Buffer;

void qpi_buffer_free(Buffer *buffer);
/* Room for `bytes` more, already counted as used; NULL without memory. */
void *qpi_buffer_reserve(Buffer *buffer, size_t bytes);
void qpi_buffer_add(Buffer *buffer, const void *data, size_t bytes);
/* Text, without its zero; numbers as JSON has them, whatever locale the program has set. */
void qpi_put(Buffer *buffer, const char *text);
void qpi_put_int(Buffer *buffer, int64_t value);
void qpi_put_double(Buffer *buffer, double value);
/* A string of JSON. */
void qpi_put_string(Buffer *buffer, const char *text);
uint32_t qpi_crc32(const void *data, size_t bytes);

/* --- json.c: values inside a text that has passed qpi_json_check ----------------------------- */

/* 1 for one value of JSON, nested at most 32 deep, that ends with the text's zero. */
int qpi_json_check(const char *text);
/* The value of a key of the object at `value`; NULL where it has none, or `value` is no object. */
const char *qpi_json_member(const char *value, const char *key);
/* The first item of a list, or key of an object; NULL where it is empty, or something else. */
const char *qpi_json_first(const char *value);
/* The item of the list, or key of the object, behind this one; NULL: this is the last. */
const char *qpi_json_next(const char *item);
/* The value of a key that the two above have found. */
const char *qpi_json_value(const char *key);
/* Decode the string at `value` to at most `capacity` bytes with the zero, cut off at the end of a
 * character. Returns the bytes that all of it takes; 0: it is no string. `to` may be NULL. */
size_t qpi_json_text(const char *value, char *to, size_t capacity);
/* A number; NAN for null, or where it is none. */
double qpi_json_number(const char *value);

/* --- npz.c: arrays of numpy in a file -------------------------------------------------------- */

typedef struct Array {
    char kind; /* of numpy: f, c, u, U */
    size_t item_bytes, items, rows; /* rows: length of the first axis, 1 without one */
    const uint8_t *data;
} Array;

/* Find an array, whose checksum is compared. QPI_NO_DATA: there is none of that name; QPI_PROTOCOL:
 * the file cannot be read; QPI_RESULT_STORE: it is damaged. */
int qpi_npz_find(const uint8_t *file, size_t size, const char *name, Array *array);

/* --- gateway.c: where requests go ----------------------------------------------------------- */

#define PATH_BYTES 4096
#define TOKEN_BYTES 4096

typedef struct Gateway {
    char environment[QPI_NAME_BYTES + 8]; /* for messages */
    char file[PATH_BYTES];                /* gateway.json; "": there is the URL alone */
    char socket[PATH_BYTES];              /* of the last gateway; "": none is known */
    char url[PATH_BYTES];                 /* without a slash at its end */
    char authority[PATH_BYTES];           /* certificates that are trusted; "": the system's */
    char token[TOKEN_BYTES];
    int is_loopback; /* the URL is of this machine, to which no proxy leads */
} Gateway;

/* Find the gateway that a configuration names. */
int qpi_gateway_find(const qpi_config *config, Gateway *gateway);
/* Read the file again: the gateway may have started again elsewhere. QPI_NO_SERVICE where it has
 * surely ended. */
int qpi_gateway_refresh(Gateway *gateway);
/* The path of the socket without links, in a folder that nobody else can write. Its failure writes
 * "" where there is no such folder. */
int qpi_gateway_socket(const Gateway *gateway, char socket[PATH_BYTES]);

/* --- http.c: requests, repeated while the gateway or the service is silent ------------------- */

#define API "/api/v1"

typedef struct Request {
    const char *path;
    const char *body; /* of JSON; NULL: it is a GET */
    const char *key;  /* Idempotency-Key; NULL: none */
    int is_binary;    /* the answer is to be .npz */
    double hold_s;    /* longest time that the gateway may hold the answer; 0: none */
    double end_s;     /* monotonic: the deadline of the call */
    int is_first;     /* nothing was heard yet: QPI_NO_SERVICE, and at once where none runs */
    const char *what; /* for QPI_TIMEOUT, such as "no acceptance" */
    double timeout_s; /* for its message */
} Request;

typedef struct Answer {
    long code; /* of HTTP: 200, 201 or 202 */
    Buffer body; /* with a zero behind it; of JSON: checked */
    int was_sent; /* a request has gone out without an answer; of errors too */
} Answer;

/* QPI_OK: an answer with a code below 300, to be freed. Else the error: of the problem document
 * that came, of the deadline, or of the silence. */
int qpi_request(qpi_session *session, const Request *request, Answer *answer);
/* Set the last error to that of a problem document, RFC 9457; of a refused batch, to that of its
 * first item. */
int qpi_fail_problem(const Answer *answer);
int qpi_http_start(void);
void qpi_http_close(qpi_session *session);

/* --- session.c ------------------------------------------------------------------------------ */

enum { MAX_IDLE = 16 }; /* connections that a session keeps */

typedef struct SharedLock { /* of a session; its jobs keep it after the session's end */
    pthread_mutex_t lock;
    size_t users;
} SharedLock;

struct qpi_session {
    SharedLock *shared;
    pid_t pid; /* a child of it has the connections as well, and must not use them */
    Gateway gateway;
    double timeout_s, patience_s;
    char client[20]; /* of automatic keys */
    uint64_t next_key;
    void *idle[MAX_IDLE]; /* connections that no request uses */
    size_t num_idle;
    qpi_job *jobs;
    size_t open; /* jobs with rows that have not ended */
    qpi_device *devices;
    size_t num_devices;
    double devices_s; /* monotonic: when they were asked for */
};

void qpi_lock(SharedLock *shared);
void qpi_unlock(SharedLock *shared);
/* With the lock held, which is released; the last user frees it. */
void qpi_shared_release(SharedLock *shared);

/* --- circuit.c and options.c ---------------------------------------------------------------- */

struct qpi_circuit {
    char *text;
    size_t qubits, clbits; /* 0: their number is not written as a number */
    int measures;
    Buffer names; /* of parameters, zero-terminated, one after the other */
    size_t num_parameters;
};

#define QPI_FIRST_OPTIONS_BYTES offsetof(qpi_options, noise) /* before `noise` was appended */
#define QPI_NOISE_OPTIONS_BYTES offsetof(qpi_options, account) /* before `account` was */
#define QPI_ACCOUNT_OPTIONS_BYTES offsetof(qpi_options, reservation) /* before `reservation` was */
enum { POOL_CHARS = 64 };
/* `pool`: room for the name of a pool, which `device` is set to where a reservation names it. */
int qpi_check_options(const qpi_circuit *circuit, qpi_options *options, char pool[POOL_CHARS + 1]);
/* Members of the request, each with a comma before it. `is_pool`: options->device is a pool. */
void qpi_put_options(Buffer *to, const qpi_options *options, int is_pool);
/* devices.c: whether there is a pool of that name. */
int qpi_find_pool(qpi_session *session, const char *name, double end_s, double timeout_s,
                  int *is_pool);

/* --- jobs: job.c, row.c --------------------------------------------------------------------- */

typedef struct Outcome {
    const char *bits; /* in the row's texts */
    double value;     /* number of times, or probability */
} Outcome;

typedef struct Row { /* the result of one row */
    int has_counts, has_probabilities, has_expectations, has_statevector;
    Outcome *counts, *probabilities;
    size_t num_counts, num_probabilities, num_expectations, num_amplitudes, num_warnings;
    double *expectations; /* value and standard error of each */
    double *statevector;  /* real and imaginary part of each */
    Buffer texts[2];      /* bits of counts and of probabilities */
    Buffer warnings;      /* zero-terminated */
} Row;

/* Read a result, `json` of ResultRecord or a file of numpy. */
int qpi_row_of_json(const char *json, Row **row);
int qpi_row_of_npz(const Buffer *file, Row **row);
void qpi_row_free(Row *row);

enum { ID_BYTES = 48 };

typedef struct Part { /* consecutive rows that travel as one task */
    char id[ID_BYTES];
    size_t first_row, rows;
    int has_ended, by_row; /* by_row: each row is fetched by itself, as .npz */
    Failure failure;
} Part;

struct qpi_job {
    qpi_session *session; /* NULL once the session is finalized */
    SharedLock *shared;
    qpi_job *next;
    size_t rows, ended_rows, num_parts, page; /* page: rows that are asked for at once */
    Part *parts; /* NULL: it is not accepted yet */
    Row **loaded; /* [rows]; NULL: not here */
    int is_sweep, by_row, is_open;
    int was_sent; /* a submit has gone out without an answer: the tasks may exist */
    char key[300];
    Buffer body; /* of the submit */
    Failure refused; /* the submit as a whole */
    Failure look;    /* of the last question of qpi_poll or qpi_row_status, unless it may pass */
    double polled_s;
};

/* Send the submit, if it has no answer yet. `hold_s`: that the gateway may wait for the result. */
int qpi_job_settle(qpi_job *job, double hold_s, double end_s, double timeout_s);
/* Take in the acceptance, with the result where it is there already. */
int qpi_job_accept(qpi_job *job, const Answer *answer);
/* Take in results of a part, from row `*here` of it on, which is moved behind them. */
int qpi_job_take(qpi_job *job, const Part *part, const Answer *answer, size_t *here);
/* Take in the result of a row, which must have ended. */
int qpi_job_load(qpi_job *job, size_t row);
/* With the lock held: the session forgets the job; or ends as well, with what has not ended. */
void qpi_job_detach(qpi_job *job);
void qpi_job_lose(qpi_job *job);
/* Ask once whether some rows have ended, unless that was just asked. */
void qpi_job_look(qpi_job *job);
Part *qpi_part_of(qpi_job *job, size_t row);

#endif

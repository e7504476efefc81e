/* Declarations shared by the modules of the library; none is exported. */
#ifndef SIMENV_QPI_INTERNAL_H
#define SIMENV_QPI_INTERNAL_H

#include <locale.h>
#include <pthread.h>
#include <stdint.h>

#include "simenv_qpi.h"

/* --- errors.c ------------------------------------------------------------------------------- */

/* An error with its text; `hint` and `message` are owned. */
typedef struct Failure {
    int status;
    char *message, *hint;
    double retry_after_s;
} Failure;

/* Set the calling thread's last error and return `status`. `hint` may be NULL. */
int qpi_fail(int status, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int qpi_fail_at(int line, int column, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int qpi_fail_memory(void);
/* Add to the thread's last error, of a submit, that it was sent and has no answer. */
void qpi_fail_unanswered(void);
/* Set the thread's last error to a copy of `failure`. */
int qpi_fail_as(const Failure *failure);
int qpi_status_of(const char *name, size_t length);
/* Frees the texts and leaves QPI_OK. */
void qpi_failure_clear(Failure *failure);
/* Takes copies of the texts; without memory the texts are NULL. */
void qpi_failure_set(Failure *failure, int status, const char *message, const char *hint);
double qpi_now_s(void); /* monotonic */
/* Write random bytes as two hexadecimal digits each, and a zero. */
int qpi_random_hex(char *to, size_t bytes);

/* --- buffer.c: growing bytes; `failed` is set when no memory is left, and stays -------------- */

typedef struct Buffer {
    uint8_t *data;
    size_t used, capacity;
    int failed;
} Buffer;

void qpi_buffer_free(Buffer *buffer);
void *qpi_buffer_reserve(Buffer *buffer, size_t bytes);
void qpi_buffer_add(Buffer *buffer, const void *data, size_t bytes);
uint32_t qpi_crc32(const uint8_t *data, size_t bytes);

/* --- msgpack.c ------------------------------------------------------------------------------ */

void qpi_put_array(Buffer *to, size_t count);
/* The begin of a message. */
void qpi_put_head(Buffer *to, size_t fields, int tag, uint64_t number);
void qpi_put_uint(Buffer *to, uint64_t value);
void qpi_put_int(Buffer *to, int64_t value);
void qpi_put_double(Buffer *to, double value);
void qpi_put_nil(Buffer *to);
void qpi_put_text(Buffer *to, const char *text);
void qpi_put_text_n(Buffer *to, const char *text, size_t length);
void qpi_put_bytes(Buffer *to, const void *data, size_t length);

/* A cursor over received bytes. `bad` is set by the first value that is cut off or of another type;
 * from then on all values read as zero. Nothing is allocated. */
typedef struct Reader {
    const uint8_t *at, *end;
    int bad;
} Reader;

typedef struct Slice { /* bytes or text inside a message */
    const uint8_t *data;
    size_t size;
} Slice;

Reader qpi_reader(const uint8_t *data, size_t size);
size_t qpi_get_array(Reader *from); /* elements; never more than bytes are left */
size_t qpi_get_map(Reader *from);   /* pairs */
uint64_t qpi_get_uint(Reader *from);
int64_t qpi_get_int(Reader *from);
double qpi_get_double(Reader *from);
int qpi_get_bool(Reader *from);
Slice qpi_get_text(Reader *from);
Slice qpi_get_bytes(Reader *from);
int qpi_skip_nil(Reader *from); /* 1 where the next value is nil, which is then passed */
void qpi_skip(Reader *from, size_t values);
int qpi_slice_is(Slice slice, const char *text);
/* A copy with a zero behind it, control characters replaced; NULL without memory. */
char *qpi_slice_copy(Slice slice);

/* --- json.c, address.c and broker.c ------------------------------------------------------- */

/* Copy the text or number of `key` in a JSON object, or of a key of the object `inside` in it.
 * 1: found; 0: not there, null, or too long. The text must have passed qpi_json_check. */
int qpi_json_get(const char *json, const char *inside, const char *key, char *to, size_t capacity);
int qpi_json_check(const char *json);

#define PATH_BYTES 4096
#define KEY_BYTES 48

typedef struct Address { /* what a connection file, a key file or a certificate says */
    char file[PATH_BYTES]; /* or the address of a broker */
    char name[QPI_NAME_BYTES];
    char node[256];
    char endpoint[PATH_BYTES]; /* ipc://... or tcp://... */
    char server_key[KEY_BYTES]; /* which the service must prove */
    char public_key[KEY_BYTES], secret_key[KEY_BYTES]; /* "": a new pair for each connection */
    long pid;            /* of the service; 0: not known here */
    char start_ticks[32];
    double renew_s; /* monotonic: when the certificate must be renewed; 0: there is none */
} Address;

/* 1 where a name is a-z, then up to 63 of a-z 0-9 _ . - */
int qpi_is_name(const char *name);
/* 1 for local:OWNER/NAME and munge:OWNER@HOST:PORT/NAME. */
int qpi_is_broker(const char *text);
/* Get a certificate from the broker at `address->file`, for new keys or again for the present ones.
 * Waits up to 3 s for an answer, and with new keys for a broker that starts. */
int qpi_broker_ask(Address *address, int is_new);

int qpi_address_find(const qpi_config *config, char *path);
int qpi_address_read(const char *path, Address *address);
/* 0 where the service's process has surely ended. */
int qpi_address_alive(const Address *address);

/* --- transport.c ---------------------------------------------------------------------------- */

typedef struct Transport Transport;

int qpi_transport_load(const char *libzmq);
/* Store the address of a function of a library at `to`; 0: it has none of that name. */
int qpi_load_symbol(void *library, const char *name, void *to);
/* A pair of keys of KEY_BYTES each; 0 where libzmq has no CURVE. */
int qpi_transport_new_keys(char *public_key, char *secret_key);
int qpi_transport_open(const Address *address, const char *identity, Transport **transport);
void qpi_transport_close(Transport *transport);
/* 1: sent; 0: the queue is full. */
int qpi_transport_send(Transport *transport, const uint8_t *data, size_t size);
/* 1: one message, which is appended to `to`; 0: none within `timeout_s`, or something can be read
 * from `wakeup`; -1: a message of several frames, which is dropped. */
int qpi_transport_receive(Transport *transport, int wakeup, double timeout_s, Buffer *to);
/* 1 where the service has refused the key. */
int qpi_transport_refused(Transport *transport);

/* --- circuits: lexer.c, expression.c, gates.c, parser.c, qasm.c, program.c ------------------- */

typedef struct Token {
    int kind; /* one of the enum below, or the character itself */
    const char *text;
    size_t length;
    int line, column;
} Token;

enum { TOKEN_END = 256, TOKEN_NAME, TOKEN_INTEGER, TOKEN_REAL, TOKEN_STRING, TOKEN_ARROW,
       TOKEN_POWER, TOKEN_BAD };

typedef struct Lexer {
    const char *at;
    int line, column; /* from 1 */
} Lexer;

Token qpi_next_token(Lexer *lexer);
int qpi_token_is(const Token *token, const char *text);

/* Postfix code: one byte for each operation; a number and a parameter's index follow theirs. */
enum { CODE_NUMBER = 1, CODE_PARAMETER, CODE_ADD, CODE_SUB, CODE_MUL, CODE_DIV, CODE_POW,
       CODE_NEG, CODE_SIN, CODE_COS, CODE_TAN, CODE_EXP, CODE_LN, CODE_SQRT, CODE_ASIN, CODE_ACOS,
       CODE_ATAN };

typedef struct Expression {
    Buffer code;        /* of an expression with parameters */
    int has_parameters; /* 0: `value` is all there is */
    double value;
    size_t depth;       /* of the stack that it is evaluated on */
} Expression;

void qpi_expression_free(Expression *expression);
void qpi_expression_number(Expression *expression, double value);
void qpi_expression_parameter(Expression *expression, uint32_t index);
void qpi_expression_copy(Expression *to, const Expression *from);
/* `left` becomes (left operation right), `right` is freed; 0 where that is too large. */
int qpi_expression_join(Expression *left, Expression *right, uint8_t operation);
void qpi_expression_apply(Expression *expression, uint8_t operation);
double qpi_evaluate(const uint8_t *code, size_t size, const double *parameters);

struct qpi_circuit {
    size_t qubits, clbits;
    int measures;
    Buffer registers; /* msgpack: [name, size] of each */
    size_t num_registers;
    Buffer names;     /* kinds of operations; see program.c */
    Buffer ops, qubit_list, clbit_list, params, slot_list;
    Buffer slot_code, slots;
    Buffer parameter_names; /* zero-terminated, one after the other */
    size_t num_parameters;
    Buffer packed; /* the Program as it is sent */
};

int qpi_add_operation(qpi_circuit *circuit, const char *name, size_t qubits, size_t clbits,
                      size_t params);
int qpi_add_qubit(qpi_circuit *circuit, size_t qubit);
int qpi_add_clbit(qpi_circuit *circuit, size_t clbit);
int qpi_add_angle(qpi_circuit *circuit, const Expression *angle);
int qpi_pack_program(qpi_circuit *circuit);
size_t qpi_circuit_slots(const qpi_circuit *circuit);
/* float64 [slots] of one row of parameter values. */
int qpi_circuit_bind(const qpi_circuit *circuit, const double *parameters, size_t row, double *to);

/* Name, qubits and parameters of a gate that is known without a definition. */
typedef struct GateShape {
    const char *name, *carried; /* as it is written, and as it is sent */
    int qubits, params;
    int versions; /* bits; see gates.c */
} GateShape;

/* `included`: was the standard file of gates included? */
const GateShape *qpi_gate_shape(const Token *name, int version, int included);

typedef struct Definition { /* of a gate in the text; its body is read at each use */
    Token name;
    size_t first_formal, params, qubits; /* formals: Tokens, parameters before qubits */
    Lexer body;
} Definition;

typedef struct Scope { /* the actual values of a definition's formals */
    const Definition *definition;
    const Expression *values;
    const size_t *qubits;
} Scope;

typedef struct Register {
    Token name;
    size_t start, size;
    int is_qubits, is_scalar;
} Register;

typedef struct Parser {
    Lexer lexer;
    Token token; /* the next one */
    int version, included, depth;
    int checking; /* a definition's body: nothing is added to the circuit */
    size_t calls; /* of definitions, however little they hold */
    locale_t plain; /* numbers have a point in it, whatever the program has set */
    qpi_circuit *circuit;
    Buffer registers, formals, definitions, scalars; /* Register, Token, Definition, uint8_t */
} Parser;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_status = (call);                                                                   \
        if (try_status != QPI_OK)                                                                  \
            return try_status;                                                                     \
    } while (0)

void qpi_advance(Parser *parser);
int qpi_accept(Parser *parser, int kind);
int qpi_expect(Parser *parser, int kind, const char *what);
int qpi_expect_name(Parser *parser, Token *name);
int qpi_refuse(const Token *token, const char *hint, const char *what);
const Register *qpi_find_register(const Parser *parser, const Token *name);
const Definition *qpi_find_definition(const Parser *parser, const Token *name);
int qpi_parse_angle(Parser *parser, const Scope *scope, Expression *to);
int qpi_parse_index(Parser *parser, size_t *value);
/* A gate's call, up to its semicolon. `scope`: of the body it is in, or NULL. */
int qpi_parse_call(Parser *parser, const Scope *scope);
int qpi_parse_barrier(Parser *parser, const Scope *scope);
/* One operand outside of gate bodies: its first bit and how many; `is_whole`: a register. */
int qpi_parse_operand(Parser *parser, int is_qubits, size_t *first, size_t *count, int *is_whole);

/* --- sessions: session.c, requests.c, loop.c, exchange.c, tasks.c ---------------------------- */

/* First element of messages, in both directions. */
enum { TAG_HELLO = 0, TAG_SUBMIT = 1, TAG_WATCH = 2, TAG_CANCEL = 3, TAG_PING = 12,
       TAG_FETCH = 17, TAG_VERIFY = 18, TAG_GET_DEVICES = 43 };
enum { TAG_WELCOME = 0, TAG_ACCEPTED = 1, TAG_REFUSED = 2, TAG_COMPLETED = 3, TAG_CANCELLED = 8,
       TAG_PONG = 11, TAG_UNKNOWN = 12, TAG_CHUNK = 17, TAG_DEVICES = 43 };

enum {
    KIND_SUBMIT,
    KIND_QUESTION,
    KIND_VERIFY, /* of a damaged result, which is then asked for again */
    KIND_FORGET  /* its answer is of no use */
};

typedef struct Request {
    struct Request *next;
    uint64_t number;
    int kind, sent, answered;
    double sent_s; /* 0: never */
    uint8_t *body;
    size_t size;
    qpi_job *job;        /* of a submit: its parts first .. first + count - 1 */
    size_t first, count;
    uint64_t task;       /* of a verification */
    uint8_t *answer;     /* of a question: the whole message */
    size_t answer_size;
} Request;

enum { PART_NEW, PART_ACCEPTED, PART_ENDED };
enum { FIELD_OUTCOMES, FIELD_COUNTS, FIELD_PROBABILITY_OUTCOMES, FIELD_PROBABILITIES,
       FIELD_STATEVECTOR, FIELD_EXPECTATIONS, FIELDS };

typedef struct Part { /* consecutive rows that travel as one task */
    struct Part *chained; /* in the table of tasks */
    qpi_job *job;
    uint64_t task;
    size_t first_row, rows;
    int state, watch, damaged;
    int is_new; /* the submit brought it about: it was not a repeat of another */
    Failure failure;
    uint8_t *payload; /* a packed ResultData, or NULL */
    size_t payload_size;
    Buffer fetched[FIELDS]; /* arrays from the result's file */
} Part;

/* The lock of a session; its jobs keep it after the session's end. */
typedef struct SharedLock {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t users;
} SharedLock;

struct qpi_job {
    qpi_session *session; /* NULL once the session is finalized */
    SharedLock *shared;
    qpi_job *next;
    size_t rows, ended_rows, num_parts, unanswered; /* requests */
    Part *parts;
    Failure refused; /* the submit as a whole */
};

enum { MAX_STANDBYS = 8, ENDPOINT_BYTES = 300 };

struct qpi_session {
    SharedLock *shared;
    qpi_config config;
    Address address, filed; /* of the present connection; as its file says */
    char standbys[MAX_STANDBYS][ENDPOINT_BYTES]; /* addresses that the service has named */
    size_t num_standbys, turn; /* turn 0: `filed`, else the standby before it */
    double turned_s; /* monotonic */
    char client[32];
    int wakeup; /* eventfd; -1: none */
    pthread_t thread;
    int has_thread, closing;
    Failure broken; /* for good: key refused, versions, protocol */
    Transport *transport;
    uint64_t epoch; /* 0: not greeted yet */
    int greeted, renewing;
    size_t message_bytes;
    uint64_t next_number, next_offset;
    Request *requests, **last_request;
    size_t unanswered; /* submits */
    qpi_job *jobs;
    Part **table; /* accepted parts that have not ended, by task; chained */
    size_t table_size, table_used;
    Buffer early; /* results that came before the acceptance of their task */
    int watch_unanswered;
    double watch_sent_s, heard_s, pinged_s, looked_s, renewed_s; /* monotonic */
    size_t waiting; /* threads */
    qpi_device *devices;
    size_t num_devices;
    double devices_s; /* monotonic: when they were asked for */
};

void qpi_lock(SharedLock *shared);
void qpi_unlock(SharedLock *shared);
void qpi_shared_release(SharedLock *shared);
void qpi_session_wake(qpi_session *session);
void *qpi_loop_run(void *session);
void qpi_loop_greet(qpi_session *session);

/* requests.c. With the lock held, but for `qpi_ask` and `qpi_next_number`. */
int qpi_fail_silent(qpi_session *session, double silent_s);
/* Until `done(argument)`. QPI_OK, QPI_TIMEOUT, QPI_SERVICE_LOST, or why the session is broken. */
int qpi_session_wait(qpi_session *session, int (*done)(void *), void *argument, double timeout_s,
                     const char *what);
/* Takes over `body`. NULL without memory. */
Request *qpi_request_add(qpi_session *session, int kind, uint64_t number, Buffer *body);
void qpi_request_remove(qpi_session *session, Request *request);
uint64_t qpi_next_number(qpi_session *session);
/* Ask one question, whose `body` is taken over; its answer, of kind `tag`, goes to `answer`. */
int qpi_ask(qpi_session *session, int tag, uint64_t number, Buffer *body, double timeout_s,
            Buffer *answer);

/* exchange.c and tasks.c: what messages do to a session. No I/O; with the lock held. */
/* 1 where the service must be greeted again. */
int qpi_exchange_take(qpi_session *session, const uint8_t *data, size_t size);
void qpi_exchange_read_refusal(Reader *from, Failure *failure);
/* Let all open tasks be asked for; write the next message that asks, 0 where none is due. */
void qpi_exchange_watch_all(qpi_session *session);
int qpi_exchange_watch_message(qpi_session *session, Buffer *body);
void qpi_tasks_accept(qpi_session *session, Request *request, uint64_t first, int repeated);
void qpi_tasks_refuse(qpi_session *session, Request *request, const Failure *failure);
/* The number of parts that these are the end of. */
int qpi_tasks_complete(qpi_session *session, Reader *completion);
void qpi_tasks_unknown(qpi_session *session, uint64_t task, int gone);
void qpi_task_name(uint64_t task, char *text);
/* Forget a part's task: it ends, or nobody waits for it. */
void qpi_tasks_drop(qpi_session *session, Part *part);
void qpi_part_end(qpi_session *session, Part *part, const Failure *failure);
void qpi_job_detach(qpi_job *job, const Failure *failure);
Part *qpi_part_of(qpi_job *job, size_t row);
/* What is left of a call's time since `start_s`; QPI_FOREVER stays. */
double qpi_left_s(double timeout_s, double start_s);

/* options.c */
#define QPI_FIRST_OPTIONS_BYTES offsetof(qpi_options, noise) /* before `noise` was appended */
#define QPI_NOISE_OPTIONS_BYTES offsetof(qpi_options, account) /* before `account` was */
#define QPI_ACCOUNT_OPTIONS_BYTES offsetof(qpi_options, reservation) /* before `reservation` was */
enum { POOL_CHARS = 64 };
/* `pool`: room for the name of a pool, which `device` is set to where a reservation names it. */
int qpi_check_options(const qpi_circuit *circuit, qpi_options *options, char pool[POOL_CHARS + 1]);
/* `is_pool`: options->device is a pool or NULL, else an emulated device. */
void qpi_put_terms(Buffer *to, const qpi_options *options, int is_pool);

/* devices.c: whether there is a pool of that name. */
int qpi_find_pool(qpi_session *session, const char *name, double timeout_s, int *is_pool);

#endif

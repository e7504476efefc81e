/* Requests to the gateway's native API by libcurl, and their repetition.
 *
 * Invariants: a request may be repeated, because those that change something carry an idempotency
 * key or are cancellations; no token goes to a socket that another user can have put there. */
#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { MAX_JSON = 64 << 20, URL_BYTES = 2 * PATH_BYTES, HEADER_BYTES = TOKEN_BYTES + 64 };
static const size_t MAX_BINARY = (size_t)1 << 37;
static const double LEAST_S = 0.25;   /* that an attempt may take, however little time is left */
static const double FIRST_PAUSE_S = 0.02, LAST_PAUSE_S = 1.0;
static const double SHORT_RETRY_S = 0.5; /* a refusal that asks for less is waited for */
static const double STOPPED_S = 2.0; /* an attempt so much too long: this process was stopped */
static const double MAX_HOLD_S = 20.0;
static const char LOST[] = "see `simenv logs gateway` and `simenv logs`; start again: simenv up; "
                           "then wait again";

/* --- connections ------------------------------------------------------------------------------ */

static pthread_once_t curl_made = PTHREAD_ONCE_INIT;
static CURLcode curl_status;

static void make_curl(void)
{
    curl_status = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int qpi_http_start(void)
{
    pthread_once(&curl_made, make_curl);
    return curl_status == CURLE_OK ? QPI_OK
                                   : qpi_fail(QPI_ERROR, NULL, "libcurl cannot be used: %s",
                                              curl_easy_strerror(curl_status));
}

void qpi_http_close(qpi_session *session)
{
    while (session->num_idle > 0)
        curl_easy_cleanup(session->idle[--session->num_idle]);
}

static CURL *take_connection(qpi_session *session)
{
    qpi_lock(session->shared);
    CURL *curl = session->num_idle > 0 ? session->idle[--session->num_idle] : NULL;
    qpi_unlock(session->shared);
    return curl ? curl : curl_easy_init();
}

static void give_connection(qpi_session *session, CURL *curl)
{
    qpi_lock(session->shared);
    if (session->num_idle < MAX_IDLE) {
        session->idle[session->num_idle++] = curl;
        curl = NULL;
    }
    qpi_unlock(session->shared);
    if (curl)
        curl_easy_cleanup(curl);
}

typedef struct Attempt {
    const Gateway *gateway;
    Answer *answer;
    size_t most;      /* bytes of the answer */
    double timeout_s;
    char socket[PATH_BYTES]; /* "": by the URL */
    int sendings; /* of the request: libcurl repeats it where a kept connection has ended */
} Attempt;

static size_t receive(char *data, size_t one, size_t bytes, void *argument)
{
    Attempt *attempt = argument;
    Buffer *body = &attempt->answer->body;
    if (bytes > attempt->most - body->used)
        return 0;
    qpi_buffer_add(body, data, one * bytes);
    return body->failed ? 0 : bytes;
}

static int count_sendings(CURL *curl, curl_infotype type, char *data, size_t bytes, void *argument)
{
    (void)curl;
    if (type == CURLINFO_HEADER_OUT && bytes > 4 && !memcmp(data, "POST", 4))
        ((Attempt *)argument)->sendings++;
    return 0;
}

/* A program that is started meanwhile, and a child that starts one, do not keep the connection. */
static curl_socket_t open_socket(void *unused, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)unused;
    (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* OpenSSL writes to connections that the other end has closed. */
static CURLcode perform_quietly(CURL *curl)
{
    sigset_t pipe, before, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    CURLcode code = curl_easy_perform(curl);
    if (!sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe, NULL, &(struct timespec){0, 0}) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static struct curl_slist *put_header(struct curl_slist *headers, const char *name,
                                     const char *value, int *failed)
{
    char text[HEADER_BYTES];
    snprintf(text, sizeof text, "%s: %s", name, value);
    struct curl_slist *more = curl_slist_append(headers, text);
    *failed |= !more;
    explicit_bzero(text, sizeof text);
    return more ? more : headers;
}

/* Nothing is sent unless every option was taken: without its socket the token would go by TCP. */
#define SET(option, value)                                                                         \
    code = code == CURLE_OK ? curl_easy_setopt(curl, option, value) : code

/* One attempt. */
static CURLcode perform(CURL *curl, const Request *request, Attempt *attempt, double hold_s)
{
    const Gateway *gateway = attempt->gateway;
    char url[URL_BYTES], bearer[TOKEN_BYTES + 8];
    int failed = 0, is_local = *attempt->socket != 0;
    long hold_ms = (long)(1e3 * hold_s), limit_ms = (long)(1e3 * attempt->timeout_s) + 1;
    char wait[32] = "";
    if (hold_ms > 0)
        snprintf(wait, sizeof wait, "%swait=%ld.%03ld", strchr(request->path, '?') ? "&" : "?",
                 hold_ms / 1000, hold_ms % 1000);
    snprintf(url, sizeof url, "%s%s%s", is_local ? "http://simenv.invalid" : gateway->url,
             request->path, wait);
    snprintf(bearer, sizeof bearer, "Bearer %s", gateway->token);
    struct curl_slist *headers = put_header(NULL, "Authorization", bearer, &failed);
    explicit_bzero(bearer, sizeof bearer);
    headers = put_header(headers, "Accept",
                         request->is_binary ? "application/x-npz" : "application/json", &failed);
    headers = put_header(headers, "Expect", "", &failed);
    if (request->key)
        headers = put_header(headers, "Idempotency-Key", request->key, &failed);
    if (request->body)
        headers = put_header(headers, "Content-Type", "application/json", &failed);
    curl_easy_reset(curl); /* connections stay */
    CURLcode code = failed ? CURLE_OUT_OF_MEMORY : CURLE_OK;
    SET(CURLOPT_URL, url);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_WRITEFUNCTION, receive);
    SET(CURLOPT_WRITEDATA, attempt);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_DEBUGFUNCTION, count_sendings);
    SET(CURLOPT_DEBUGDATA, attempt);
    SET(CURLOPT_VERBOSE, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, limit_ms);
    if (request->is_binary) { /* as long as bytes come */
        SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
        SET(CURLOPT_LOW_SPEED_TIME, (long)ceil(attempt->timeout_s));
    } else
        SET(CURLOPT_TIMEOUT_MS, limit_ms);
    if (is_local) {
        SET(CURLOPT_UNIX_SOCKET_PATH, attempt->socket);
    } else if (*gateway->authority)
        SET(CURLOPT_CAINFO, gateway->authority);
    if (is_local || gateway->is_loopback)
        SET(CURLOPT_PROXY, "");
    if (request->body) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(request->body));
        SET(CURLOPT_POSTFIELDS, request->body);
    }
    if (code == CURLE_OK)
        code = perform_quietly(curl);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return code;
}

/* --- answers ---------------------------------------------------------------------------------- */

/* Is it the gateway or a proxy that says that nobody answers there? */
static int is_silence(const Answer *answer)
{
    char code[32];
    const char *problem = qpi_json_member(answer->body.data, "code");
    if (answer->code != 502 && answer->code != 503 && answer->code != 504)
        return 0;
    return qpi_json_text(problem, code, sizeof code) < 2 || !strcmp(code, "timeout")
           || !strcmp(code, "service_lost") || qpi_status_of(code) == QPI_NO_SERVICE;
}

static double retry_after_s(const Answer *answer)
{
    double after_s = qpi_json_number(qpi_json_member(answer->body.data, "retry_after_s"));
    return after_s > 0.0 ? after_s : 0.0;
}

static int is_true(const Answer *answer, const char *key)
{
    const char *value = qpi_json_member(answer->body.data, key);
    return value && *value == 't';
}

static int whole(const char *problem, const char *key)
{
    double value = qpi_json_number(qpi_json_member(problem, key));
    return value > 0.0 && value < 1e9 ? (int)value : 0;
}

int qpi_fail_problem(const Answer *answer)
{
    char code[64], message[1024], hint[1024];
    const char *problem = answer->body.data, *first = NULL;
    if (qpi_json_text(qpi_json_member(problem, "code"), code, sizeof code) < 2)
        return qpi_fail(QPI_PROTOCOL, "is the URL that of a gateway of simenv?",
                        "the answer is %ld, and no problem document", answer->code);
    if (!strcmp(code, "batch"))
        first = qpi_json_first(qpi_json_member(problem, "errors"));
    problem = first ? first : problem;
    qpi_json_text(qpi_json_member(problem, "code"), code, sizeof code);
    qpi_json_text(qpi_json_member(problem, "detail"), message, sizeof message);
    qpi_json_text(qpi_json_member(problem, "hint"), hint, sizeof hint);
    Failure failure = {qpi_status_of(code), whole(problem, "line"), whole(problem, "column"),
                       message, hint, retry_after_s(answer), is_true(answer, "maybe_accepted")};
    return qpi_fail_as(&failure);
}

/* What is no failure of the transport for a while only. */
static int fail_for_good(CURLcode code, const Attempt *attempt)
{
    if (code == CURLE_WRITE_ERROR)
        return attempt->answer->body.failed
                   ? qpi_fail_memory()
                   : qpi_fail(QPI_LIMIT, "fewer rows or outputs",
                              "an answer is larger than %zu bytes", attempt->most);
    if (code == CURLE_OUT_OF_MEMORY)
        return qpi_fail_memory();
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
        return qpi_fail(QPI_CONFIG, "eval \"$(simenv gateway env)\" sets CURL_CA_BUNDLE",
                        "the certificate of %s cannot be checked: %s", attempt->gateway->url,
                        curl_easy_strerror(code));
    if (code == CURLE_UNKNOWN_OPTION || code == CURLE_NOT_BUILT_IN
        || code == CURLE_BAD_FUNCTION_ARGUMENT)
        return qpi_fail(QPI_CONFIG, "install another libcurl", "libcurl has no support for it: %s",
                        curl_easy_strerror(code));
    if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
        return qpi_fail(QPI_CONFIG, NULL, "%s: %s", attempt->gateway->url,
                        curl_easy_strerror(code));
    return QPI_OK;
}

static int fail_silent(const Request *request, const Gateway *gateway, double silent_s,
                       const char *why)
{
    const char *name = *gateway->environment ? gateway->environment : gateway->url;
    return request->is_first
               ? qpi_fail(QPI_NO_SERVICE, LOST, "no service answers for %.200s: %.200s", name, why)
               : qpi_fail(QPI_SERVICE_LOST, LOST,
                          "the service of %.200s has said nothing for %.1f s: %.200s", name,
                          silent_s, why);
}

static void pause_for(double seconds)
{
    struct timespec left = {(time_t)seconds, (long)(1e9 * fmod(seconds, 1.0))};
    while (seconds > 0.0 && clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
        ;
}

/* One attempt and what came of it: the error, QPI_OK with an answer, or -1 for silence. */
static int try_once(qpi_session *session, const Gateway *gateway, const Request *request,
                    double timeout_s, double hold_s, Answer *answer, const char **why)
{
    Attempt attempt = {.gateway = gateway, .answer = answer, .timeout_s = timeout_s,
                       .most = request->is_binary ? MAX_BINARY : MAX_JSON};
    answer->body.used = 0;
    answer->code = 0;
    if (*gateway->socket && qpi_gateway_socket(gateway, attempt.socket) != QPI_OK) {
        *why = "there is no socket";
        return *attempt.socket ? QPI_CONFIG : -1;
    }
    CURL *curl = take_connection(session);
    if (!curl)
        return qpi_fail_memory();
    CURLcode code = perform(curl, request, &attempt, hold_s);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->code);
    give_connection(session, curl);
    answer->was_sent |= attempt.sendings > (code == CURLE_OK);
    if (code != CURLE_OK) {
        TRY(fail_for_good(code, &attempt));
        answer->code = 0;
        answer->body.used = 0; /* the rest of it never came */
        *why = curl_easy_strerror(code);
        return -1;
    }
    qpi_buffer_add(&answer->body, "", 1);
    if (answer->body.failed)
        return qpi_fail_memory();
    answer->body.used--;
    int is_json = !(request->is_binary && answer->code == 200);
    if (is_json && !qpi_json_check(answer->body.data))
        answer->body.data[0] = 0; /* of a proxy, perhaps */
    if (is_json && is_silence(answer)) {
        answer->was_sent = 1;
        *why = "the gateway says that the service does not answer";
        return -1;
    }
    if (answer->code >= 300)
        return qpi_fail_problem(answer);
    return !is_json || answer->body.data[0]
               ? QPI_OK
               : qpi_fail(QPI_PROTOCOL, "is the URL that of a gateway of simenv?",
                          "the answer is no JSON");
}

/* The gateway as it was found last; it may have started again elsewhere. */
static int refresh(qpi_session *session, Gateway *gateway)
{
    int status = qpi_gateway_refresh(gateway);
    qpi_lock(session->shared);
    session->gateway = *gateway;
    qpi_unlock(session->shared);
    return status;
}

int qpi_request(qpi_session *session, const Request *request, Answer *answer)
{
    double silent_s = 0.0, pause_s = FIRST_PAUSE_S, patience_s = session->patience_s;
    const char *why = "";
    Gateway gateway;
    int status = -1;
    *answer = (Answer){0};
    if (session->pid != getpid())
        return qpi_fail(QPI_ERROR, "qpi_init in the child process",
                        "the session is of process %ld, which has forked", (long)session->pid);
    qpi_lock(session->shared);
    gateway = session->gateway;
    qpi_unlock(session->shared);
    while (status < 0) {
        double begun_s = qpi_now_s(), left_s = request->end_s - begun_s;
        double timeout_s = fmax(LEAST_S, fmin(left_s, patience_s));
        double hold_s = fmin(fmin(request->hold_s, MAX_HOLD_S),
                             fmin(left_s - 0.01, patience_s / 2.0));
        status = try_once(session, &gateway, request, timeout_s, hold_s, answer, &why);
        double after_s = status == QPI_QUEUE_FULL ? retry_after_s(answer) : 0.0;
        double now_s = qpi_now_s(), took_s = now_s - begun_s;
        int is_busy = status == QPI_QUEUE_FULL
                      && (!request->body || (after_s > 0.0 && after_s < SHORT_RETRY_S));
        if (status >= 0 && !is_busy)
            break;
        silent_s = is_busy || took_s - timeout_s > STOPPED_S ? 0.0 : silent_s + took_s;
        if (status < 0 && refresh(session, &gateway) != QPI_OK && request->is_first)
            status = QPI_NO_SERVICE; /* with the error of the file */
        else if (now_s >= request->end_s - 0.001)
            status = request->is_first ? fail_silent(request, &gateway, silent_s, why)
                                       : qpi_fail(QPI_TIMEOUT, NULL, "%s within %g s",
                                                  request->what, request->timeout_s);
        else if (silent_s >= patience_s)
            status = fail_silent(request, &gateway, silent_s, why);
        else {
            double rest_s = fmin(pause_s, request->end_s - now_s);
            pause_for(rest_s);
            silent_s += is_busy ? 0.0 : rest_s;
            pause_s = fmin(2.0 * pause_s, LAST_PAUSE_S);
            status = -1;
        }
    }
    explicit_bzero(&gateway, sizeof gateway);
    if (status != QPI_OK)
        qpi_buffer_free(&answer->body);
    return status;
}

/* Requests of a session, and the calls that wait for their answers.
 *
 * Invariant: every request may be repeated, so a lost answer and a restarted service are both met
 * by sending it again. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

static const double STOPPED_S = 2.0; /* a longer gap between two looks: this process did not run */
static const double LOOK_S = 1.0;
static const double TAKEOVER_S = 30.0; /* in which a standby answers */

/* --- requests ------------------------------------------------------------------------------- */

Request *qpi_request_add(qpi_session *session, int kind, uint64_t number, Buffer *body)
{
    Request *request = body->failed ? NULL : calloc(1, sizeof *request);
    if (!request) {
        qpi_buffer_free(body);
        return NULL;
    }
    request->kind = kind;
    request->number = number;
    request->body = body->data;
    request->size = body->used;
    *body = (Buffer){0};
    *session->last_request = request;
    session->last_request = &request->next;
    session->unanswered += kind == KIND_SUBMIT;
    qpi_session_wake(session);
    return request;
}

void qpi_request_remove(qpi_session *session, Request *request)
{
    Request **link = &session->requests;
    while (*link && *link != request)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = request->next;
    if (session->last_request == &request->next)
        session->last_request = link;
    session->unanswered -= request->kind == KIND_SUBMIT;
    free(request->body);
    free(request->answer);
    free(request);
}

static int is_answered(void *argument)
{
    return ((Request *)argument)->answered;
}

/* The answer as an error, where it is a refusal or not of the kind expected. */
static int check_answer(const Request *request, int tag)
{
    Reader reader = qpi_reader(request->answer, request->answer_size);
    Failure failure = {0};
    qpi_get_array(&reader);
    uint64_t kind = qpi_get_uint(&reader);
    if (!reader.bad && kind == (uint64_t)tag)
        return QPI_OK;
    if (reader.bad || kind != TAG_REFUSED)
        return qpi_fail(QPI_PROTOCOL, NULL, "the service gave another answer than was asked for");
    qpi_get_uint(&reader);
    qpi_exchange_read_refusal(&reader, &failure);
    int status = qpi_fail_as(&failure);
    qpi_failure_clear(&failure);
    return status;
}

int qpi_ask(qpi_session *session, int tag, uint64_t number, Buffer *body, double timeout_s,
            Buffer *answer)
{
    qpi_lock(session->shared);
    Request *request = qpi_request_add(session, KIND_QUESTION, number, body);
    int status = request ? qpi_session_wait(session, is_answered, request, timeout_s, "no answer")
                         : qpi_fail_memory();
    if (status == QPI_OK)
        status = check_answer(request, tag);
    if (status == QPI_OK) {
        qpi_buffer_add(answer, request->answer, request->answer_size);
        status = answer->failed ? qpi_fail_memory() : QPI_OK;
    }
    if (request)
        qpi_request_remove(session, request);
    qpi_unlock(session->shared);
    return status;
}

uint64_t qpi_next_number(qpi_session *session)
{
    qpi_lock(session->shared);
    uint64_t number = ++session->next_number;
    qpi_unlock(session->shared);
    return number;
}

/* --- waiting -------------------------------------------------------------------------------- */

int qpi_fail_silent(qpi_session *session, double silent_s)
{
    const Address *address = &session->address;
    const char *hint = "see service.log beside the connection file; start again: simenv up "
                       "--restore; then wait again";
    const char *fate = qpi_address_alive(address) ? "does not answer" : "has ended";
    if (session->epoch)
        return qpi_fail(QPI_SERVICE_LOST, hint, "service %s has said nothing for %.1f s: it %s",
                        address->name, silent_s, fate);
    return qpi_fail(QPI_NO_SERVICE, hint, "no service answers for %s: it %s", address->name, fate);
}

double qpi_left_s(double timeout_s, double start_s)
{
    return timeout_s < 0.0 ? timeout_s : fmax(0.0, timeout_s - (qpi_now_s() - start_s));
}

static void wait_changed(SharedLock *shared, double until_s)
{
    struct timespec until = {(time_t)until_s, (long)(1e9 * (until_s - floor(until_s)))};
    pthread_cond_timedwait(&shared->changed, &shared->lock, &until);
}

int qpi_session_wait(qpi_session *session, int (*done)(void *), void *argument, double timeout_s,
                     const char *what)
{
    double start = qpi_now_s(), before = start;
    double end = timeout_s < 0.0 ? INFINITY : start + timeout_s;
    int status = -1;
    session->waiting++;
    qpi_session_wake(session);
    while (status < 0) {
        double now = qpi_now_s();
        if (now - before > STOPPED_S)
            start = now;
        before = now;
        double silent_s = now - fmax(session->heard_s, start);
        if (done(argument))
            status = QPI_OK;
        else if (session->broken.status)
            status = qpi_fail_as(&session->broken);
        else if (now >= end)
            status = qpi_fail(QPI_TIMEOUT, NULL, "%s within %g s", what, timeout_s);
        else if (silent_s >= fmax(session->config.patience_s,
                                  session->num_standbys ? TAKEOVER_S : 0.0))
            status = qpi_fail_silent(session, silent_s);
        else
            wait_changed(session->shared, fmin(end, now + LOOK_S));
    }
    session->waiting--;
    return status;
}

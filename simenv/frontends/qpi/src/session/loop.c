/* The thread of a session: it alone uses the socket. It sends what is due, takes in what arrives,
 * and looks after a service that is silent. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { PROTOCOL = 1, MAX_UNANSWERED = 8 };
static const double QUIET_S = 1.0;   /* after so long without a message: ask */
static const double LOOK_S = 0.25;   /* between two looks at a silent service's connection file */
static const double NEXT_S = 3.0;    /* for each address of a silent service that has standbys */
static const double REPEAT_S = 5.0;  /* what is not answered for so long is sent again */
static const double STOPPED_S = 2.0; /* a longer gap between two looks: this process did not run */
static const double IDLE_S = 3600.0;
static const double RENEW_AGAIN_S = 5.0; /* after a certificate could not be renewed */

static void send_small(qpi_session *session, int tag)
{
    Buffer body = {0};
    qpi_put_array(&body, tag == TAG_HELLO ? 4 : 2);
    qpi_put_uint(&body, (uint64_t)tag);
    qpi_put_uint(&body, tag == TAG_HELLO ? PROTOCOL : 0);
    if (tag == TAG_HELLO) {
        qpi_put_text(&body, QPI_PACKAGE_VERSION);
        qpi_put_text(&body, session->client);
    }
    if (!body.failed && session->transport)
        qpi_transport_send(session->transport, body.data, body.used);
    qpi_buffer_free(&body);
}

/* Send what is due. Everything waits for the greeting. */
static void send_due(qpi_session *session, double now)
{
    size_t on_their_way = 0;
    Buffer body = {0};
    if (!session->greeted)
        return;
    for (Request *request = session->requests; request; request = request->next)
        on_their_way += request->kind == KIND_SUBMIT && request->sent;
    for (Request *request = session->requests; request; request = request->next) {
        int first = !request->sent, due = first || now - request->sent_s >= REPEAT_S;
        int held = first && request->kind == KIND_SUBMIT && on_their_way >= MAX_UNANSWERED;
        if (request->answered || !due || held)
            continue;
        if (!qpi_transport_send(session->transport, request->body, request->size))
            return; /* the queue is full: later */
        on_their_way += first && request->kind == KIND_SUBMIT;
        request->sent = 1;
        request->sent_s = now;
    }
    if (now - session->renewed_s >= REPEAT_S) {
        session->renewed_s = now;
        qpi_exchange_watch_all(session);
    }
    if (session->watch_unanswered && now - session->watch_sent_s < REPEAT_S)
        return;
    if (qpi_exchange_watch_message(session, &body)) {
        session->watch_sent_s = now;
        session->watch_unanswered = 1;
        qpi_transport_send(session->transport, body.data, body.used);
    }
    qpi_buffer_free(&body);
}

static void connect_to(qpi_session *session, const Address *found)
{
    Transport *transport;
    if (qpi_transport_open(found, session->client, &transport) != QPI_OK)
        return;
    qpi_transport_close(session->transport);
    session->transport = transport;
    session->address = *found;
    session->greeted = 0;
    session->renewing = session->epoch != 0;
    send_small(session, TAG_HELLO);
}

/* Does the service listen elsewhere by now? Then connect there. */
static void follow_address(qpi_session *session)
{
    Address found;
    if (qpi_address_read(session->address.file, &found) != QPI_OK || !qpi_address_alive(&found))
        return;
    session->address.pid = found.pid;
    memcpy(session->address.start_ticks, found.start_ticks, sizeof found.start_ticks);
    int changed = strcmp(found.endpoint, session->filed.endpoint)
                  || strcmp(found.server_key, session->filed.server_key)
                  || strcmp(found.secret_key, session->filed.secret_key);
    session->filed = found;
    if (changed) {
        session->turn = 0;
        connect_to(session, &found);
    }
}

/* Try the next address: one of the standbys may lead by now, or the service has come back. */
static void take_turn(qpi_session *session, double now)
{
    Address next = session->filed;
    if (!session->num_standbys || now - fmax(session->turned_s, session->heard_s) < NEXT_S)
        return;
    session->turned_s = now;
    session->turn = (session->turn + 1) % (session->num_standbys + 1);
    if (session->turn)
        memcpy(next.endpoint, session->standbys[session->turn - 1], ENDPOINT_BYTES);
    connect_to(session, &next);
}

/* Renew the certificate, or get one for new keys where the service has refused the present one: it
 * has started again, or this process was stopped for long. Nobody else changes the address, so the
 * lock is not held meanwhile. */
static void renew_certificate(qpi_session *session, double now)
{
    Address found = session->address;
    int refused = qpi_transport_refused(session->transport);
    if (session->broken.status || (!refused && now < found.renew_s))
        return;
    session->address.renew_s = now + RENEW_AGAIN_S;
    qpi_unlock(session->shared);
    int status = refused ? qpi_address_read(session->address.file, &found)
                         : qpi_broker_ask(&found, 0);
    qpi_lock(session->shared);
    if (status == QPI_KEY_REFUSED) {
        qpi_failure_set(&session->broken, status, qpi_error_message(), qpi_error_hint());
        pthread_cond_broadcast(&session->shared->changed);
    } else if (status == QPI_OK
               && (refused || strcmp(found.endpoint, session->address.endpoint)
                   || strcmp(found.server_key, session->address.server_key)))
        connect_to(session, &found);
    else if (status == QPI_OK)
        session->address.renew_s = found.renew_s;
}

/* A quiet service is asked whether it lives, and looked for. */
static void check_liveness(qpi_session *session, double now)
{
    if (now - session->heard_s < QUIET_S)
        return;
    if (!session->address.renew_s && now - session->looked_s >= LOOK_S) {
        session->looked_s = now;
        follow_address(session);
        take_turn(session, now);
    }
    if (now - session->pinged_s >= QUIET_S) {
        session->pinged_s = now;
        send_small(session, session->greeted ? TAG_PING : TAG_HELLO);
    }
    if (!session->address.renew_s && qpi_transport_refused(session->transport)
        && !session->broken.status) {
        qpi_failure_set(&session->broken, QPI_KEY_REFUSED,
                        "the service does not know the key of this file: it was revoked, or is "
                        "for another environment",
                        "ask an administrator for a new key file: simenv keys add");
        pthread_cond_broadcast(&session->shared->changed);
    }
}

static int is_active(const qpi_session *session)
{
    return session->waiting || session->requests || session->table_used || !session->greeted;
}

static void hear(qpi_session *session, int frames, const Buffer *message)
{
    session->heard_s = qpi_now_s();
    if (frames < 0 || message->failed)
        qpi_failure_set(&session->broken, frames < 0 ? QPI_PROTOCOL : QPI_MEMORY,
                        frames < 0 ? "the service sent several frames where one is due"
                                   : "no memory is left for a message",
                        "");
    else if (qpi_exchange_take(session, message->data, message->used))
        send_small(session, TAG_HELLO);
    pthread_cond_broadcast(&session->shared->changed);
}

void *qpi_loop_run(void *argument)
{
    qpi_session *session = argument;
    Buffer message = {0};
    double before = qpi_now_s();
    qpi_lock(session->shared);
    while (!session->closing) {
        double now = qpi_now_s(), limit_s = is_active(session) ? LOOK_S : IDLE_S;
        if (now - before > STOPPED_S)
            session->heard_s = now; /* it may have been this process that was silent */
        before = now;
        if (limit_s < IDLE_S)
            check_liveness(session, now);
        if (session->address.renew_s) {
            renew_certificate(session, now);
            double left_s = session->address.renew_s - now;
            limit_s = left_s < limit_s ? (left_s > LOOK_S ? left_s : LOOK_S) : limit_s;
        }
        send_due(session, now);
        qpi_unlock(session->shared);
        message.used = 0;
        int frames = qpi_transport_receive(session->transport, session->wakeup, limit_s, &message);
        uint64_t count;
        if (read(session->wakeup, &count, sizeof count) > 0 && limit_s > LOOK_S)
            before = qpi_now_s();
        qpi_lock(session->shared);
        if (frames)
            hear(session, frames, &message);
        if (message.capacity > 1 << 20 || message.failed)
            qpi_buffer_free(&message);
    }
    qpi_unlock(session->shared);
    qpi_buffer_free(&message);
    return NULL;
}

void qpi_loop_greet(qpi_session *session)
{
    send_small(session, TAG_HELLO);
}

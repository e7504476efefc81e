/* What the messages of the service do to a session: no I/O, and no trust in what they hold. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { WATCH_TASKS = 1000, EARLY_BYTES = 64 << 20 };

/* A Refusal: code, message, hint, index, seconds. */
void qpi_exchange_read_refusal(Reader *from, Failure *failure)
{
    size_t count = qpi_get_array(from);
    qpi_failure_set(failure, QPI_ERROR, "refused without a reason", "");
    if (count == 0 || from->bad)
        return;
    size_t fields = qpi_get_array(from);
    Slice code = qpi_get_text(from), message = qpi_get_text(from), hint = {NULL, 0};
    if (fields > 2)
        hint = qpi_get_text(from);
    if (fields > 3)
        qpi_get_int(from);
    double retry_after_s = fields > 4 ? qpi_get_double(from) : 0.0;
    if (fields > 5)
        qpi_skip(from, fields - 5);
    qpi_skip(from, count - 1);
    if (from->bad)
        return;
    qpi_failure_clear(failure);
    failure->status = qpi_status_of((const char *)code.data, code.size);
    failure->message = qpi_slice_copy(message);
    failure->hint = hint.data ? qpi_slice_copy(hint) : NULL;
    failure->retry_after_s = retry_after_s;
}

static Request *find_request(qpi_session *session, uint64_t number)
{
    Request *request = session->requests;
    while (request && request->number != number)
        request = request->next;
    return request;
}

/* --- greeting and restarts ------------------------------------------------------------------ */

/* Another service answers now, or this one has moved: everything open is asked for again. */
static void renew(qpi_session *session)
{
    for (Request *request = session->requests; request; request = request->next)
        request->sent = 0;
    session->watch_unanswered = 0;
    qpi_exchange_watch_all(session);
}

/* Keep the addresses of standbys, which are tried when the service is silent. Those before stay
 * where none is named: the service may have moved to the last one. */
static void take_standbys(qpi_session *session, Reader *from)
{
    char named[MAX_STANDBYS][ENDPOINT_BYTES] = {{0}};
    size_t count = qpi_get_array(from), kept = 0;
    for (; count > 0 && !from->bad; count--) {
        Slice text = qpi_get_text(from);
        if (from->bad || kept == MAX_STANDBYS || text.size >= ENDPOINT_BYTES || text.size < 7
            || memcmp(text.data, "tcp://", 6) || memchr(text.data, 0, text.size))
            continue;
        memcpy(named[kept++], text.data, text.size);
    }
    if (!kept || from->bad || strncmp(session->filed.endpoint, "tcp://", 6))
        return; /* a socket of this machine: the connection file says where to go */
    memcpy(session->standbys, named, sizeof named);
    session->num_standbys = kept;
}

/* Welcome: epoch, version, name, node, results, newest completion, bytes of a message, standbys. */
static void take_welcome(qpi_session *session, Reader *from, size_t fields)
{
    uint64_t epoch = qpi_get_uint(from), bytes = 64 << 20;
    if (fields > 7) {
        qpi_skip(from, 5);
        bytes = qpi_get_uint(from);
    }
    Reader standbys = *from;
    if (from->bad || epoch == 0)
        return;
    int restarted = session->renewing || (session->epoch && session->epoch != epoch);
    session->epoch = epoch;
    session->message_bytes = (size_t)bytes;
    session->greeted = 1;
    session->renewing = 0;
    if (fields > 8)
        take_standbys(session, &standbys);
    if (restarted)
        renew(session);
}

/* 1 where another service answers than the one that was greeted. */
static int take_pong(qpi_session *session, Reader *from, size_t fields)
{
    qpi_get_uint(from);
    uint64_t epoch = qpi_get_uint(from);
    if (from->bad || !session->epoch)
        return 0;
    if (fields > 3)
        take_standbys(session, from);
    if (epoch == session->epoch)
        return 0;
    session->greeted = 0;
    return 1;
}

/* --- answers -------------------------------------------------------------------------------- */

static void take_early(qpi_session *session);

static void take_accepted(qpi_session *session, Reader *from, size_t fields)
{
    uint64_t number = qpi_get_uint(from), first = qpi_get_uint(from), count = qpi_get_uint(from);
    int repeated = fields > 4 ? qpi_get_bool(from) : 0;
    Request *request = from->bad ? NULL : find_request(session, number);
    if (!request || request->kind != KIND_SUBMIT)
        return;
    if (count != request->count || first > INT64_MAX) {
        Failure failure = {0};
        qpi_failure_set(&failure, QPI_PROTOCOL, "the service accepted another number of tasks", "");
        qpi_tasks_refuse(session, request, &failure);
        qpi_failure_clear(&failure);
        return;
    }
    qpi_tasks_accept(session, request, first, repeated);
    take_early(session);
}

static void keep_answer(Request *request, const uint8_t *data, size_t size)
{
    if (request->answered)
        return;
    request->answer = malloc(size ? size : 1);
    if (!request->answer)
        return; /* it is asked again */
    memcpy(request->answer, data, size);
    request->answer_size = size;
    request->answered = 1;
}

static void take_refused(qpi_session *session, Reader *from, const uint8_t *data, size_t size)
{
    Failure failure = {0};
    uint64_t number = qpi_get_uint(from);
    Request *request = from->bad || !number ? NULL : find_request(session, number);
    if (request && request->kind == KIND_QUESTION) {
        keep_answer(request, data, size);
        return;
    }
    qpi_exchange_read_refusal(from, &failure);
    if (request && request->kind == KIND_SUBMIT) {
        if (failure.status != QPI_NO_SERVICE) /* it ends: `renew` asks the next one */
            qpi_tasks_refuse(session, request, &failure);
    } else if (request)
        qpi_request_remove(session, request);
    else if (!session->broken.status
             && (failure.status == QPI_VERSION_MISMATCH || failure.status == QPI_KEY_REFUSED)) {
        session->broken = failure;
        return;
    }
    qpi_failure_clear(&failure);
}

static void take_answer(qpi_session *session, Reader *from, const uint8_t *data, size_t size)
{
    uint64_t number = qpi_get_uint(from);
    Request *request = from->bad ? NULL : find_request(session, number);
    if (!request || request->kind == KIND_SUBMIT)
        return;
    if (request->kind == KIND_QUESTION) {
        keep_answer(request, data, size);
        return;
    }
    if (request->kind == KIND_VERIFY)
        for (size_t place = 0; place < session->table_size; place++)
            for (Part *part = session->table[place]; part; part = part->chained)
                part->watch |= part->task == request->task;
    qpi_request_remove(session, request);
}

/* --- results -------------------------------------------------------------------------------- */

/* Keep a message for the acceptance of its tasks; beyond the bound they are asked for again. */
static void keep_early(qpi_session *session, const uint8_t *data, size_t size)
{
    Buffer *early = &session->early;
    if (early->used + size > EARLY_BYTES)
        return;
    qpi_buffer_add(early, &size, sizeof size);
    qpi_buffer_add(early, data, size);
    if (early->failed)
        qpi_buffer_free(early);
}

/* Completed: origin, engine, route, completions, first number. */
static void take_completed(qpi_session *session, Reader *from, const uint8_t *data, size_t size)
{
    qpi_skip(from, 3);
    size_t count = qpi_get_array(from), strange = 0;
    while (count-- > 0 && !from->bad)
        strange += !qpi_tasks_complete(session, from);
    if (strange > 0 && session->unanswered > 0)
        keep_early(session, data, size);
}

static void take_early(qpi_session *session)
{
    Buffer early = session->early;
    session->early = (Buffer){0};
    for (size_t at = 0; at + sizeof(size_t) <= early.used;) {
        size_t size;
        memcpy(&size, early.data + at, sizeof size);
        at += sizeof size;
        qpi_exchange_take(session, early.data + at, size);
        at += size;
    }
    qpi_buffer_free(&early);
}

/* UnknownTasks: the answer to WatchResults, after the results that it brought. */
static void take_unknown(qpi_session *session, Reader *from, size_t fields)
{
    qpi_get_uint(from);
    size_t count = qpi_get_array(from);
    Reader tasks = *from;
    qpi_skip(from, count);
    size_t gone_count = fields > 3 ? qpi_get_array(from) : 0;
    while (count-- > 0 && !tasks.bad) {
        uint64_t task = qpi_get_uint(&tasks);
        Reader gone = *from;
        int is_gone = 0;
        for (size_t index = 0; index < gone_count && !gone.bad; index++)
            is_gone |= qpi_get_uint(&gone) == task;
        if (!tasks.bad)
            qpi_tasks_unknown(session, task, is_gone);
    }
    session->watch_unanswered = 0;
}

void qpi_exchange_watch_all(qpi_session *session)
{
    for (size_t place = 0; place < session->table_size; place++)
        for (Part *part = session->table[place]; part; part = part->chained)
            part->watch = 1;
}

int qpi_exchange_watch_message(qpi_session *session, Buffer *body)
{
    Buffer tasks = {0};
    size_t count = 0;
    for (size_t place = 0; place < session->table_size && count < WATCH_TASKS; place++)
        for (Part *part = session->table[place]; part && count < WATCH_TASKS; part = part->chained)
            if (part->watch) {
                part->watch = 0;
                count++;
                qpi_put_uint(&tasks, part->task);
            }
    if (count > 0) {
        qpi_put_head(body, 3, TAG_WATCH, 0);
        qpi_put_array(body, count);
        qpi_buffer_add(body, tasks.data, tasks.used);
        body->failed |= tasks.failed;
    }
    qpi_buffer_free(&tasks);
    return count > 0 && !body->failed;
}

int qpi_exchange_take(qpi_session *session, const uint8_t *data, size_t size)
{
    Reader from = qpi_reader(data, size);
    size_t fields = qpi_get_array(&from);
    uint64_t tag = qpi_get_uint(&from);
    if (from.bad || fields < 2)
        return 0;
    switch (tag) {
    case TAG_WELCOME: take_welcome(session, &from, fields); break;
    case TAG_ACCEPTED: take_accepted(session, &from, fields); break;
    case TAG_REFUSED: take_refused(session, &from, data, size); break;
    case TAG_COMPLETED: take_completed(session, &from, data, size); break;
    case TAG_PONG: return take_pong(session, &from, fields);
    case TAG_UNKNOWN: take_unknown(session, &from, fields); break;
    default: take_answer(session, &from, data, size);
    }
    return 0;
}

/* The open tasks of a session, by number, and the ends of their rows.
 *
 * Invariant: a part ends once, and is in the table from its acceptance to its end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { STATE_DONE = 2, STATE_FAILED, STATE_CANCELLED, STATE_EXPIRED, MAX_DAMAGED = 2 };

/* A task's id as people type it: base 32 without i, l, o and u. */
void qpi_task_name(uint64_t task, char *text)
{
    char digits[16];
    int count = 0;
    do
        digits[count++] = "0123456789abcdefghjkmnpqrstvwxyz"[task % 32];
    while (task /= 32);
    *text++ = 't';
    *text++ = '-';
    while (count > 0)
        *text++ = digits[--count];
    *text = 0;
}

/* --- table ---------------------------------------------------------------------------------- */

static Part **place_of(Part **table, size_t size, uint64_t task)
{
    return &table[(task * 0x9e3779b97f4a7c15u >> 32) & (size - 1)];
}

static int grow(qpi_session *session)
{
    size_t size = session->table_size ? 2 * session->table_size : 64;
    Part **table = calloc(size, sizeof *table);
    if (!table)
        return 0;
    for (size_t index = 0; index < session->table_size; index++)
        for (Part *part = session->table[index], *next; part; part = next) {
            Part **place = place_of(table, size, part->task);
            next = part->chained;
            part->chained = *place;
            *place = part;
        }
    free(session->table);
    session->table = table;
    session->table_size = size;
    return 1;
}

static int add(qpi_session *session, Part *part)
{
    if (session->table_used >= session->table_size && !grow(session) && !session->table_size)
        return 0;
    Part **place = place_of(session->table, session->table_size, part->task);
    part->chained = *place;
    *place = part;
    session->table_used++;
    return 1;
}

void qpi_tasks_drop(qpi_session *session, Part *part)
{
    if (part->state != PART_ACCEPTED || !session->table_size)
        return;
    Part **link = place_of(session->table, session->table_size, part->task);
    while (*link && *link != part)
        link = &(*link)->chained;
    if (*link) {
        *link = part->chained;
        session->table_used--;
    }
}

/* --- ends ----------------------------------------------------------------------------------- */

void qpi_part_end(qpi_session *session, Part *part, const Failure *failure)
{
    if (part->state == PART_ENDED)
        return;
    qpi_tasks_drop(session, part);
    part->state = PART_ENDED;
    part->job->ended_rows += part->rows;
    if (failure) {
        qpi_failure_set(&part->failure, failure->status, failure->message, failure->hint);
        part->failure.retry_after_s = failure->retry_after_s;
    }
}

static void end_with(qpi_session *session, Part *part, int status, const char *what,
                     const char *hint)
{
    char name[16], message[96];
    Failure failure = {0};
    qpi_task_name(part->task, name);
    snprintf(message, sizeof message, "task %s %s", name, what);
    qpi_failure_set(&failure, status, message, hint);
    qpi_part_end(session, part, &failure);
    qpi_failure_clear(&failure);
}

/* Failure: reason, message, hint, host, log. */
static void end_failed(qpi_session *session, Part *part, uint64_t state, Slice payload)
{
    static const int STATUS[] = {QPI_TASK_FAILED, QPI_TASK_CANCELLED, QPI_TASK_EXPIRED};
    static const char *const WORDS[] = {"failed", "was cancelled", "expired"};
    Reader from = qpi_reader(payload.data, payload.size);
    size_t fields = qpi_get_array(&from);
    Failure failure = {.status = STATUS[state - STATE_FAILED]};
    char name[16];
    qpi_get_text(&from);
    char *message = fields > 1 ? qpi_slice_copy(qpi_get_text(&from)) : NULL;
    failure.hint = fields > 2 ? qpi_slice_copy(qpi_get_text(&from)) : NULL;
    qpi_task_name(part->task, name);
    size_t size = (message ? strlen(message) : 0) + 64;
    failure.message = malloc(size);
    if (failure.message)
        snprintf(failure.message, size, "task %s %s%s%s", name, WORDS[state - STATE_FAILED],
                 message && *message ? ": " : "", message ? message : "");
    qpi_part_end(session, part, &failure);
    free(message);
    qpi_failure_clear(&failure);
}

/* Have the service check the stored result, and run the task again if that is damaged too. */
static void verify(qpi_session *session, Part *part)
{
    Buffer body = {0};
    uint64_t number = ++session->next_number;
    if (++part->damaged > MAX_DAMAGED) {
        end_with(session, part, QPI_RESULT_STORE, "has a result with a wrong checksum",
                 "submit it again with its seed");
        return;
    }
    qpi_put_head(&body, 3, TAG_VERIFY, number);
    qpi_put_uint(&body, part->task);
    Request *request = qpi_request_add(session, KIND_VERIFY, number, &body);
    if (request)
        request->task = part->task;
}

static void complete_part(qpi_session *session, Part *part, uint64_t state, Slice payload,
                          uint64_t checksum)
{
    if (qpi_crc32(payload.data, payload.size) != checksum) {
        verify(session, part);
        return;
    }
    if (state != STATE_DONE) {
        end_failed(session, part, state, payload);
        return;
    }
    part->payload = malloc(payload.size ? payload.size : 1);
    if (!part->payload) {
        end_with(session, part, QPI_MEMORY, "has a result that does not fit into memory", "");
        return;
    }
    memcpy(part->payload, payload.data, payload.size);
    part->payload_size = payload.size;
    qpi_part_end(session, part, NULL);
}

/* Completion: task, state, attempts, slots, payload, checksum, timing. */
int qpi_tasks_complete(qpi_session *session, Reader *from)
{
    int found = 0;
    size_t fields = qpi_get_array(from);
    uint64_t task = qpi_get_uint(from), state = qpi_get_uint(from);
    qpi_skip(from, 2);
    Slice payload = qpi_get_bytes(from);
    uint64_t checksum = qpi_get_uint(from);
    if (fields < 6)
        from->bad = 1;
    else
        qpi_skip(from, fields - 6);
    if (from->bad || state < STATE_DONE || state > STATE_EXPIRED || !session->table_size)
        return 0;
    /* Two jobs with one idempotency key have the same tasks. */
    for (Part *part = *place_of(session->table, session->table_size, task), *next; part;
         part = next) {
        next = part->chained;
        if (part->task == task) {
            complete_part(session, part, state, payload, checksum);
            found++;
        }
    }
    return found;
}

void qpi_tasks_unknown(qpi_session *session, uint64_t task, int gone)
{
    if (!session->table_size)
        return;
    for (Part *part = *place_of(session->table, session->table_size, task), *next; part;
         part = next) {
        next = part->chained;
        if (part->task == task)
            end_with(session, part, QPI_NOT_FOUND,
                     gone ? "has a result that is no longer kept" : "is not known to the service",
                     gone ? "submit it again; results.keep_gib says what is kept" : "");
    }
}

/* --- acceptance ----------------------------------------------------------------------------- */

/* Tasks of a submit of which another part was refused are not wanted. */
static void cancel(qpi_session *session, uint64_t first, size_t count)
{
    Buffer body = {0};
    uint64_t number = ++session->next_number;
    qpi_put_head(&body, 3, TAG_CANCEL, number);
    qpi_put_array(&body, count);
    while (count-- > 0)
        qpi_put_uint(&body, first++);
    qpi_request_add(session, KIND_FORGET, number, &body);
}

void qpi_tasks_accept(qpi_session *session, Request *request, uint64_t first, int repeated)
{
    qpi_job *job = request->job;
    for (size_t index = 0; index < request->count; index++) {
        Part *part = &job->parts[request->first + index];
        part->task = first + index;
        part->watch = repeated;
        part->is_new = !repeated;
        if (job->refused.status)
            qpi_part_end(session, part, &job->refused);
        else if (add(session, part))
            part->state = PART_ACCEPTED;
        else
            end_with(session, part, QPI_MEMORY, "is accepted, and no memory is left", "");
    }
    if (job->refused.status && !repeated)
        cancel(session, first, request->count);
    job->unanswered--;
    qpi_request_remove(session, request);
}

/* A submit is accepted or refused as a whole. */
void qpi_tasks_refuse(qpi_session *session, Request *request, const Failure *failure)
{
    qpi_job *job = request->job;
    if (!job->refused.status) {
        qpi_failure_set(&job->refused, failure->status, failure->message, failure->hint);
        job->refused.retry_after_s = failure->retry_after_s;
    }
    for (Request *each = session->requests, *next; each; each = next) {
        next = each->next;
        if (each->kind == KIND_SUBMIT && each->job == job && (each == request || !each->sent)) {
            for (size_t index = 0; index < each->count; index++)
                qpi_part_end(session, &job->parts[each->first + index], failure);
            job->unanswered--;
            qpi_request_remove(session, each);
        }
    }
    for (size_t index = 0; index < job->num_parts; index++) {
        Part *part = &job->parts[index];
        if (part->state == PART_ACCEPTED) {
            if (part->is_new)
                cancel(session, part->task, 1);
            qpi_part_end(session, part, failure);
        }
    }
}

/* Jobs: their acceptance, their rows' ends and results, and their cancellation.
 *
 * Invariants: a job is accepted once and a part ends once, whichever thread comes first; a row that
 * is here does not change until qpi_job_free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const double HOLD_S = 60.0;  /* of one request; the gateway holds no longer */
static const double LOOK_S = 0.01;  /* between two questions of qpi_poll */
static const double LOOKS_S = 0.25; /* for as many parts as have ended meanwhile */
enum { LOOKS = 4 };                 /* parts that it asks for at once */

size_t qpi_job_rows(const qpi_job *job)
{
    return job->rows;
}

/* The part of a row; their first rows ascend. */
Part *qpi_part_of(qpi_job *job, size_t row)
{
    size_t low = 0, high = job->num_parts;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (job->parts[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return &job->parts[low];
}

/* --- ends: with the lock held ---------------------------------------------------------------- */

static void close_job(qpi_job *job)
{
    if (job->is_open && job->session)
        job->session->open--;
    job->is_open = 0;
}

/* `status`: of the thread's last error, which is why the part has no result; QPI_OK: it has one. */
static void end_part(qpi_job *job, Part *part, int status)
{
    if (part->has_ended)
        return;
    part->has_ended = 1;
    job->ended_rows += part->rows;
    if (status != QPI_OK)
        qpi_failure_take(&part->failure, status);
    if (job->ended_rows == job->rows)
        close_job(job);
}

static void refuse(qpi_job *job, int status)
{
    if (job->refused.status)
        return;
    qpi_failure_take(&job->refused, status);
    job->ended_rows = job->rows;
    close_job(job);
}

static int is_settled(const qpi_job *job)
{
    return job->parts || job->refused.status;
}

/* Keep a row, unless another thread was faster. */
static void keep_row(qpi_job *job, size_t row, Row *found)
{
    if (row >= job->rows || job->loaded[row])
        qpi_row_free(found);
    else
        job->loaded[row] = found;
}

/* --- acceptance ------------------------------------------------------------------------------- */

static int fail_answer(const char *what)
{
    return qpi_fail(QPI_PROTOCOL, "use one version of simenv on both sides",
                    "the gateway's answer has %s", what);
}

static int is_id(const char *id)
{
    return *id && !id[strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-")];
}

/* The parts of an accepted sweep, or the one of a task. */
static int read_parts(const qpi_job *job, const char *json, Part **parts, size_t *count)
{
    const char *tasks = qpi_json_first(qpi_json_member(json, "tasks"));
    size_t size = job->is_sweep ? 0 : 1, row = 0, index = 0;
    for (const char *at = job->is_sweep ? tasks : NULL; at; at = qpi_json_next(at))
        size++;
    Part *made = calloc(size + 1, sizeof *made);
    if (!made)
        return qpi_fail_memory();
    for (const char *at = job->is_sweep ? tasks : json; at && index < size; index++) {
        Part *part = &made[index];
        const char *id = qpi_json_member(at, "id");
        double first = qpi_json_number(qpi_json_member(at, "first"));
        double rows = qpi_json_number(qpi_json_member(at, "bindings"));
        qpi_json_text(id ? id : qpi_json_member(at, "task"), part->id, sizeof part->id);
        part->first_row = row;
        part->rows = !job->is_sweep ? 1
                     : rows >= 1.0 && rows <= (double)(job->rows - row) && first == (double)row
                         ? (size_t)rows
                         : 0;
        part->by_row = job->by_row;
        row += part->rows;
        if (!is_id(part->id) || part->rows == 0)
            break;
        at = job->is_sweep ? qpi_json_next(at) : NULL;
    }
    if (index < size || row != job->rows) {
        free(made);
        return fail_answer("no tasks, or not those of the sweep");
    }
    *parts = made;
    *count = size;
    return QPI_OK;
}

int qpi_job_accept(qpi_job *job, const Answer *answer)
{
    Part *parts = NULL;
    size_t count = 0;
    Row *row = NULL;
    TRY(read_parts(job, answer->body.data, &parts, &count));
    int status = answer->code == 200 && !job->is_sweep ? qpi_row_of_json(answer->body.data, &row)
                                                       : QPI_OK;
    if (status != QPI_OK) {
        free(parts);
        return status;
    }
    qpi_lock(job->shared);
    if (job->parts || (job->refused.status && !job->session))
        free(parts);
    else {
        if (job->refused.status) { /* to another thread: the tasks are there all the same */
            qpi_failure_clear(&job->refused);
            job->ended_rows = 0;
            job->is_open = 1;
            job->session->open++;
        }
        job->parts = parts;
        job->num_parts = count;
        qpi_buffer_free(&job->body);
    }
    if (row && job->parts) {
        keep_row(job, 0, row);
        end_part(job, &job->parts[0], QPI_OK);
    } else
        qpi_row_free(row);
    qpi_unlock(job->shared);
    return QPI_OK;
}

static int is_end_of_task(int status)
{
    return status == QPI_TASK_FAILED || status == QPI_TASK_CANCELLED || status == QPI_TASK_EXPIRED;
}

/* Does this error of a submit tell that it has no tasks? Behind one without an answer only what
 * depends on its content alone does: the service finds an accepted key before anything else. */
static int refuses(const qpi_job *job, int status)
{
    if (status == QPI_TIMEOUT || status == QPI_SERVICE_LOST || status == QPI_MEMORY)
        return 0;
    return !job->was_sent || status == QPI_PROGRAM || status == QPI_OPTION
           || status == QPI_KEY_CONFLICT || status == QPI_INFEASIBLE;
}

int qpi_job_settle(qpi_job *job, double hold_s, double end_s, double timeout_s)
{
    Answer answer;
    Buffer body = {0};
    qpi_lock(job->shared);
    qpi_session *session = job->session;
    int settled = is_settled(job);
    int status = job->refused.status ? qpi_fail_as(&job->refused) : QPI_OK;
    if (!settled)
        qpi_buffer_add(&body, job->body.data, job->body.used); /* another thread may free it */
    qpi_unlock(job->shared);
    if (settled || !session)
        return status;
    if (body.failed)
        return qpi_fail_memory();
    Request request = {.path = job->is_sweep ? API "/sweeps" : API "/tasks", .body = body.data,
                       .key = job->key, .hold_s = hold_s, .end_s = end_s,
                       .what = "no acceptance", .timeout_s = timeout_s};
    status = qpi_request(session, &request, &answer);
    int was_sent = answer.was_sent || (status != QPI_OK && qpi_error_maybe_accepted());
    if (hold_s > 0.0 && status != QPI_OK && status != QPI_TIMEOUT && status != QPI_SERVICE_LOST) {
        request.hold_s = 0.0; /* it may have been accepted, and only its result be refused */
        was_sent |= is_end_of_task(status) || status == QPI_RESULT_STORE;
        status = qpi_request(session, &request, &answer);
        was_sent |= answer.was_sent || (status != QPI_OK && qpi_error_maybe_accepted());
    }
    if (status == QPI_OK)
        status = qpi_job_accept(job, &answer);
    qpi_buffer_free(&answer.body);
    qpi_buffer_free(&body);
    qpi_lock(job->shared);
    job->was_sent |= was_sent;
    if (job->parts)
        status = QPI_OK; /* whatever this thread was told */
    else if (status != QPI_OK && refuses(job, status))
        refuse(job, status);
    else if (status != QPI_OK && job->was_sent)
        qpi_fail_unanswered();
    qpi_unlock(job->shared);
    return status;
}

/* --- results ---------------------------------------------------------------------------------- */

/* Take in a page of results, or the one of a task. Returns the rows that are here. */
static int read_page(qpi_job *job, const Part *part, const char *json, size_t *here)
{
    const char *results = qpi_json_member(json, "results"), *at = json;
    if (results) {
        at = qpi_json_first(results);
        if (qpi_json_number(qpi_json_member(json, "first")) != (double)*here)
            return fail_answer("another page of results than was asked for");
    }
    for (size_t count = 0; at && *here < part->rows; ++*here, count++) {
        Row *row;
        TRY(qpi_row_of_json(at, &row));
        qpi_lock(job->shared);
        keep_row(job, part->first_row + *here, row);
        qpi_unlock(job->shared);
        at = results ? qpi_json_next(at) : NULL;
    }
    return QPI_OK;
}

static void make_path(char *path, size_t bytes, const Part *part, size_t first, size_t page)
{
    if (part->rows == 1)
        snprintf(path, bytes, API "/tasks/%s/result", part->id);
    else if (part->by_row)
        snprintf(path, bytes, API "/tasks/%s.%zu/result", part->id, first);
    else
        snprintf(path, bytes, API "/tasks/%s/result?first=%zu&limit=%zu", part->id, first, page);
}

/* JSON cannot have so much: ask for fewer rows at once, or for arrays. */
static void ask_for_less(qpi_job *job, Part *part)
{
    qpi_lock(job->shared);
    if (part->rows > 1 && job->page > 1)
        job->page /= 2;
    else
        part->by_row = 1;
    qpi_unlock(job->shared);
}

int qpi_job_take(qpi_job *job, const Part *part, const Answer *answer, size_t *here)
{
    Row *row;
    size_t before = *here;
    if (part->by_row) {
        TRY(qpi_row_of_npz(&answer->body, &row));
        qpi_lock(job->shared);
        keep_row(job, part->first_row + *here, row);
        qpi_unlock(job->shared);
        *here = part->rows; /* the others when they are read */
        return QPI_OK;
    }
    TRY(read_page(job, part, answer->body.data, here));
    return *here > before ? QPI_OK : fail_answer("a page without results");
}

/* Ask for the results of a part, from row `*here` of it on. QPI_PENDING: it has not ended. */
static int ask(qpi_job *job, qpi_session *session, Part *part, Request request, size_t *here)
{
    char path[ID_BYTES + 96];
    Answer answer;
    qpi_lock(job->shared);
    Part now = *part;
    make_path(path, sizeof path, &now, *here, job->page);
    qpi_unlock(job->shared);
    request.path = path;
    request.is_binary = now.by_row;
    request.what = "not all rows ended";
    int status = qpi_request(session, &request, &answer);
    if (status == QPI_LIMIT && !now.by_row) {
        ask_for_less(job, part);
        return QPI_OK;
    }
    if (status == QPI_OK)
        status = answer.code == 202
                     ? qpi_fail(QPI_PENDING, "qpi_wait", "task %s has not ended", now.id)
                     : qpi_job_take(job, &now, &answer, here);
    qpi_buffer_free(&answer.body);
    return status;
}

/* Is this how a task ends that has no result here, and not how a request fails? A stored result
 * that cannot be read now may be read later; and a task is gone only if its own page is as well. */
static int ends_part(qpi_session *session, const Part *part, Request request, int status)
{
    char path[ID_BYTES + 32];
    Answer answer;
    if (status != QPI_NOT_FOUND)
        return is_end_of_task(status);
    snprintf(path, sizeof path, API "/tasks/%s", part->id);
    request.path = path;
    request.hold_s = 0.0;
    request.what = "no answer";
    int confirmed = qpi_request(session, &request, &answer);
    qpi_buffer_free(&answer.body);
    if (confirmed == QPI_OK)
        qpi_fail(QPI_NOT_FOUND, "qpi_wait asks again", "task %s has no result yet", part->id);
    return confirmed == QPI_NOT_FOUND;
}

/* Wait for the end of a part and its results. QPI_PENDING: it has not ended in the gateway's time.
 * The error of a call is returned; that of a part is kept in it. */
static int fetch(qpi_job *job, Part *part, double hold_s, double end_s, double timeout_s)
{
    size_t here = 0;
    qpi_lock(job->shared);
    qpi_session *session = job->session;
    int status = QPI_OK, has_ended = part->has_ended;
    while (!part->by_row && here < part->rows && job->loaded[part->first_row + here])
        here++; /* pages of an earlier call */
    qpi_unlock(job->shared);
    if (has_ended)
        return QPI_OK;
    Request request = {.hold_s = hold_s, .end_s = end_s, .timeout_s = timeout_s, .path = ""};
    for (int turn = 0; status == QPI_OK && here < part->rows; turn++)
        status = turn && qpi_now_s() >= end_s
                     ? qpi_fail(QPI_TIMEOUT, NULL, "not all rows ended within %g s", timeout_s)
                     : ask(job, session, part, request, &here);
    if (status != QPI_OK && !ends_part(session, part, request, status))
        return status;
    qpi_lock(job->shared);
    end_part(job, part, status);
    qpi_unlock(job->shared);
    return QPI_OK;
}

int qpi_job_load(qpi_job *job, size_t row)
{
    Part *part = qpi_part_of(job, row), alone;
    qpi_lock(job->shared);
    qpi_session *session = job->session;
    int is_here = job->loaded[row] != NULL;
    qpi_unlock(job->shared);
    if (is_here)
        return QPI_OK;
    if (!session)
        return qpi_fail(QPI_NO_SERVICE, "read results before qpi_finalize",
                        "the session was finalized");
    alone = *part;
    alone.by_row = 1;
    size_t here = row - part->first_row;
    Request request = {.end_s = qpi_end_s(QPI_FOREVER)};
    return ask(job, session, &alone, request, &here);
}

/* --- calls ------------------------------------------------------------------------------------ */

/* The parts of an accepted job do not move. */
static int first_failure(qpi_job *job)
{
    int status = QPI_OK;
    qpi_lock(job->shared);
    for (size_t index = 0; status == QPI_OK && index < job->num_parts; index++)
        if (job->parts[index].failure.status)
            status = qpi_fail_as(&job->parts[index].failure);
    qpi_unlock(job->shared);
    return status;
}

int qpi_wait(qpi_job *job, double timeout_s)
{
    double end_s = qpi_end_s(timeout_s);
    int unread = QPI_OK; /* a part whose result the store does not give, which ends no other */
    Failure failure = {0};
    TRY(qpi_job_settle(job, 0.0, end_s, timeout_s));
    for (size_t index = 0; index < job->num_parts; index++) {
        int status = QPI_PENDING;
        for (int turn = 0; status == QPI_PENDING; turn++) {
            status = turn && qpi_now_s() >= end_s - 0.02
                         ? qpi_fail(QPI_TIMEOUT, NULL, "not all rows ended within %g s", timeout_s)
                         : fetch(job, &job->parts[index], HOLD_S, end_s, timeout_s);
        }
        if (status == QPI_RESULT_STORE) {
            qpi_failure_take(&failure, status);
            unread = status;
        } else if (status != QPI_OK) {
            qpi_failure_clear(&failure);
            return status;
        }
    }
    if (unread == QPI_OK)
        return first_failure(job);
    qpi_fail_as(&failure);
    qpi_failure_clear(&failure);
    return unread;
}

/* Is this an error of a question that the caller must hear of? */
static int may_not_pass(int status)
{
    return status != QPI_OK && status != QPI_PENDING && status != QPI_TIMEOUT
           && status != QPI_QUEUE_FULL;
}

void qpi_job_look(qpi_job *job)
{
    double now_s = qpi_now_s();
    int pending = 0, failed = QPI_OK;
    qpi_lock(job->shared);
    int is_due = job->session && job->ended_rows < job->rows && now_s - job->polled_s >= LOOK_S;
    if (is_due)
        job->polled_s = now_s;
    qpi_unlock(job->shared);
    if (!is_due)
        return;
    Failure failure = {0};
    int status = qpi_job_settle(job, 0.0, now_s, 0.0);
    if (may_not_pass(status))
        qpi_failure_take(&failure, failed = status);
    for (size_t index = 0; status == QPI_OK && index < job->num_parts && pending < LOOKS
                           && qpi_now_s() < now_s + LOOKS_S; index++) {
        int found = fetch(job, &job->parts[index], 0.0, now_s, 0.0);
        pending += found != QPI_OK;
        if (failed == QPI_OK && may_not_pass(found))
            qpi_failure_take(&failure, failed = found);
    }
    qpi_lock(job->shared);
    qpi_failure_clear(&job->look);
    job->look = failure;
    qpi_unlock(job->shared);
}

size_t qpi_poll(qpi_job *job)
{
    qpi_job_look(job);
    qpi_lock(job->shared);
    size_t ended = job->ended_rows;
    qpi_unlock(job->shared);
    return ended;
}

int qpi_cancel(qpi_job *job, double timeout_s)
{
    double end_s = qpi_end_s(timeout_s);
    Failure failure = {0};
    int failed = QPI_OK, is_silent = 0;
    TRY(qpi_job_settle(job, 0.0, end_s, timeout_s));
    for (size_t index = 0; index < job->num_parts && !is_silent; index++) {
        char path[ID_BYTES + 32];
        Answer answer;
        qpi_lock(job->shared);
        qpi_session *session = job->session;
        int has_ended = job->parts[index].has_ended;
        qpi_unlock(job->shared);
        if (has_ended || !session)
            continue;
        snprintf(path, sizeof path, API "/tasks/%s/cancel", job->parts[index].id);
        Request request = {.path = path, .body = "", .end_s = end_s, .what = "no answer",
                           .timeout_s = timeout_s};
        int status = qpi_request(session, &request, &answer);
        qpi_buffer_free(&answer.body);
        is_silent = status == QPI_TIMEOUT || status == QPI_SERVICE_LOST;
        if (failed == QPI_OK && status != QPI_OK)
            qpi_failure_take(&failure, failed = status);
    }
    if (failed != QPI_OK)
        qpi_fail_as(&failure);
    qpi_failure_clear(&failure);
    return failed;
}

void qpi_job_detach(qpi_job *job)
{
    close_job(job);
    qpi_job **link = &job->session->jobs;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    job->session = NULL;
}

static Failure finalized(void)
{
    static const char HINT[] = "submit again with the same idempotency key to get its results";
    return (Failure){.status = QPI_NO_SERVICE, .message = strdup("the session was finalized"),
                     .hint = strdup(HINT)};
}

void qpi_job_lose(qpi_job *job)
{
    if (!is_settled(job))
        job->refused = finalized();
    for (size_t index = 0; index < job->num_parts; index++)
        if (!job->parts[index].has_ended) {
            job->parts[index].has_ended = 1;
            job->parts[index].failure = finalized();
        }
    job->ended_rows = job->rows;
    qpi_job_detach(job);
}

void qpi_job_free(qpi_job *job)
{
    if (!job)
        return;
    qpi_lock(job->shared);
    if (job->session)
        qpi_job_detach(job);
    for (size_t index = 0; index < job->num_parts; index++)
        qpi_failure_clear(&job->parts[index].failure);
    for (size_t row = 0; row < job->rows; row++)
        qpi_row_free(job->loaded[row]);
    qpi_failure_clear(&job->refused);
    qpi_failure_clear(&job->look);
    qpi_buffer_free(&job->body);
    free(job->parts);
    free(job->loaded);
    qpi_shared_release(job->shared);
    free(job);
}

int qpi_task_id(qpi_job *job, size_t row, char *text, size_t capacity)
{
    if (row >= job->rows)
        return qpi_fail(QPI_OPTION, NULL, "row %zu of %zu", row, job->rows);
    qpi_lock(job->shared);
    const char *id = job->parts ? qpi_part_of(job, row)->id : NULL;
    qpi_unlock(job->shared);
    if (!id)
        return qpi_fail(QPI_PENDING, "qpi_wait", "row %zu is not accepted yet", row);
    if (strlen(id) >= capacity)
        return qpi_fail(QPI_LIMIT, NULL, "the task's id needs %zu bytes", strlen(id) + 1);
    strcpy(text, id);
    return QPI_OK;
}

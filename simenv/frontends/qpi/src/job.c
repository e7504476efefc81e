/* Jobs: waiting for their rows, cancelling them, and their end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { QUESTION_TASKS = 1000 };

size_t qpi_job_rows(const qpi_job *job)
{
    return job->rows;
}

/* The part of a row; all but the last have the same number of rows. */
Part *qpi_part_of(qpi_job *job, size_t row)
{
    return &job->parts[row / job->parts[0].rows];
}

size_t qpi_poll(qpi_job *job)
{
    qpi_lock(job->shared);
    size_t ended = job->ended_rows;
    qpi_unlock(job->shared);
    return ended;
}

static int has_ended(void *argument)
{
    const qpi_job *job = argument;
    return job->ended_rows == job->rows;
}

int qpi_wait(qpi_job *job, double timeout_s)
{
    int status = QPI_OK;
    qpi_lock(job->shared);
    if (job->session)
        status = qpi_session_wait(job->session, has_ended, job, timeout_s, "not all rows ended");
    for (size_t index = 0; status == QPI_OK && index < job->num_parts; index++)
        if (job->parts[index].failure.status)
            status = qpi_fail_as(&job->parts[index].failure);
    qpi_unlock(job->shared);
    return status;
}

/* Cancel the next tasks from part `*next` on that have not ended; 0: none is left. */
static size_t put_cancel(qpi_job *job, size_t *next, uint64_t number, Buffer *body)
{
    Buffer tasks = {0};
    size_t count = 0;
    qpi_lock(job->shared);
    for (; *next < job->num_parts && count < QUESTION_TASKS; ++*next)
        if (job->parts[*next].state == PART_ACCEPTED) {
            qpi_put_uint(&tasks, job->parts[*next].task);
            count++;
        }
    qpi_unlock(job->shared);
    qpi_put_array(body, 3);
    qpi_put_uint(body, TAG_CANCEL);
    qpi_put_uint(body, number);
    qpi_put_array(body, count);
    qpi_buffer_add(body, tasks.data, tasks.used);
    body->failed |= tasks.failed;
    qpi_buffer_free(&tasks);
    return count;
}

static int is_settled(void *argument)
{
    return ((qpi_job *)argument)->unanswered == 0;
}

int qpi_cancel(qpi_job *job, double timeout_s)
{
    double start_s = qpi_now_s();
    size_t next = 0;
    int status = QPI_OK;
    qpi_lock(job->shared);
    qpi_session *session = job->session;
    if (session) /* what is not accepted yet has no number to be cancelled by */
        status = qpi_session_wait(session, is_settled, job, timeout_s, "no acceptance");
    qpi_unlock(job->shared);
    while (session && status == QPI_OK && next < job->num_parts) {
        Buffer body = {0}, answer = {0};
        uint64_t number = qpi_next_number(session);
        if (put_cancel(job, &next, number, &body) > 0)
            status = qpi_ask(session, TAG_CANCELLED, number, &body,
                             qpi_left_s(timeout_s, start_s), &answer);
        qpi_buffer_free(&body);
        qpi_buffer_free(&answer);
    }
    return status;
}

/* No message finds the job any more; what has not ended ends with `failure`. */
void qpi_job_detach(qpi_job *job, const Failure *failure)
{
    qpi_session *session = job->session;
    for (size_t index = 0; index < job->num_parts; index++)
        qpi_part_end(session, &job->parts[index], failure);
    for (Request *each = session->requests, *next; each; each = next) {
        next = each->next;
        if (each->kind == KIND_SUBMIT && each->job == job)
            qpi_request_remove(session, each);
    }
    qpi_job **link = &session->jobs;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    job->session = NULL;
}

void qpi_job_free(qpi_job *job)
{
    if (!job)
        return;
    qpi_lock(job->shared);
    if (job->session)
        qpi_job_detach(job, NULL);
    for (size_t index = 0; index < job->num_parts; index++) {
        Part *part = &job->parts[index];
        qpi_failure_clear(&part->failure);
        free(part->payload);
        for (int field = 0; field < FIELDS; field++)
            qpi_buffer_free(&part->fetched[field]);
    }
    qpi_failure_clear(&job->refused);
    free(job->parts);
    qpi_shared_release(job->shared);
    free(job);
}

int qpi_task_id(qpi_job *job, size_t row, char *text, size_t capacity)
{
    char name[24];
    if (row >= job->rows)
        return qpi_fail(QPI_OPTION, NULL, "row %zu of %zu", row, job->rows);
    const Part *part = qpi_part_of(job, row);
    qpi_lock(job->shared);
    int is_new = part->state == PART_NEW;
    qpi_task_name(part->task, name);
    qpi_unlock(job->shared);
    if (is_new)
        return qpi_fail(QPI_PENDING, "qpi_wait", "row %zu is not accepted yet", row);
    if (strlen(name) >= capacity)
        return qpi_fail(QPI_LIMIT, NULL, "the task's id needs %zu bytes", strlen(name) + 1);
    snprintf(text, capacity, "%s", name);
    return QPI_OK;
}

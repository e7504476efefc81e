/* Feed mutated messages of a service to a session without a socket, and read what came of them.
 *
 * fuzz MESSAGES TURNS: the file holds messages, each behind its length in 4 bytes, little-endian.
 * Prints how many rows ended with a result, so that a run in which none does is seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_MESSAGES = 64, PARTS = 4 };

static uint64_t state = 88172645463325252u;
static long results, ended;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

/* A copy of its own size, so that a read beyond it is seen; some bytes changed, or cut off. */
static uint8_t *mutated(const uint8_t *data, size_t *size)
{
    uint8_t *copy = malloc(*size ? *size : 1);
    memcpy(copy, data, *size);
    if (draw(8) == 0)
        *size = draw(*size + 1);
    for (uint64_t edits = draw(4); edits > 0 && *size > 0; edits--) {
        size_t at = draw(*size);
        copy[at] = draw(2) ? (uint8_t)draw(256) : copy[at] ^ (uint8_t)(1u << draw(8));
    }
    return copy;
}

static void read_rows(qpi_job *job)
{
    for (size_t row = 0; row < job->rows + 1; row++) {
        char bits[256];
        uint64_t count;
        double value, error, amplitudes[64];
        size_t size = 0;
        results += qpi_row_status(job, row) == QPI_OK;
        for (size_t index = 0; qpi_counts_size(job, row, &size) == QPI_OK && index <= size
                               && index < 8; index++)
            qpi_counts_entry(job, row, index, bits, draw(sizeof bits), &count);
        for (size_t index = 0; qpi_probabilities_size(job, row, &size) == QPI_OK && index <= size
                               && index < 8; index++)
            qpi_probabilities_entry(job, row, index, bits, sizeof bits, &value);
        qpi_expectation(job, row, draw(3), &value, &error);
        qpi_statevector(job, row, amplitudes, 32);
        for (size_t index = 0; qpi_warnings_size(job, row, &size) == QPI_OK && index <= size
                               && index < 8; index++)
            qpi_warning(job, row, index, bits, draw(sizeof bits));
    }
}

/* A job whose submit is under way, and the requests of a client that is in the middle of things. */
static qpi_job *submitted(qpi_session *session)
{
    static const int KINDS[] = {KIND_SUBMIT, KIND_QUESTION, KIND_VERIFY, KIND_FORGET};
    qpi_job *job = calloc(1, sizeof *job);
    job->parts = calloc(PARTS, sizeof *job->parts);
    job->num_parts = PARTS;
    job->shared = session->shared;
    job->session = session;
    session->shared->users++;
    session->jobs = job;
    for (size_t index = 0; index < PARTS; index++) {
        job->parts[index] = (Part){.job = job, .first_row = 2 * index, .rows = 2};
        job->rows += 2;
    }
    for (size_t index = 0; index < 4; index++) {
        Buffer body = {0};
        qpi_put_uint(&body, index);
        Request *request = qpi_request_add(session, KINDS[index], index + 1, &body);
        request->job = index == 0 ? job : NULL;
        request->count = index == 0 ? PARTS : 0;
        request->task = 7;
    }
    job->unanswered = 1;
    session->next_number = 4;
    return job;
}

static qpi_session *make_session(void)
{
    qpi_session *session = calloc(1, sizeof *session);
    session->shared = calloc(1, sizeof *session->shared);
    pthread_mutex_init(&session->shared->lock, NULL);
    pthread_cond_init(&session->shared->changed, NULL);
    session->shared->users = 1;
    session->wakeup = -1;
    session->last_request = &session->requests;
    return session;
}

int main(int argc, char **argv)
{
    static uint8_t input[1 << 22];
    const uint8_t *messages[MAX_MESSAGES];
    size_t sizes[MAX_MESSAGES], count = 0;
    FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    size_t size = fread(input, 1, sizeof input, file);
    fclose(file);
    for (size_t at = 0; at + 4 <= size && count < MAX_MESSAGES; at += 4 + sizes[count++]) {
        uint32_t length;
        memcpy(&length, input + at, 4);
        sizes[count] = length;
        messages[count] = input + at + 4;
    }
    for (long turn = atol(argv[2]); turn > 0; turn--) {
        qpi_session *session = make_session();
        qpi_job *job = submitted(session);
        for (size_t index = 0; index < count; index++) {
            size_t length = sizes[index];
            uint8_t *copy = mutated(messages[index], &length);
            Buffer body = {0};
            qpi_lock(session->shared);
            qpi_exchange_take(session, copy, length);
            if (draw(4) == 0)
                qpi_exchange_watch_message(session, &body);
            qpi_unlock(session->shared);
            qpi_buffer_free(&body);
            free(copy);
        }
        read_rows(job);
        ended += (long)qpi_poll(job);
        if (draw(2)) {
            qpi_job_free(job);
            qpi_finalize(session);
        } else {
            qpi_finalize(session);
            read_rows(job);
            qpi_job_free(job);
        }
    }
    printf("%ld %ld\n", ended, results);
    return 0;
}

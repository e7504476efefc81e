/* A session: its lock, its beginning and its end.
 *
 * Invariant: a session has no thread; whoever calls sends requests, and one lock, which is not held
 * meanwhile, guards everything in a session and its jobs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { CLIENT_BYTES = 8 }; /* random ones, of automatic keys */

void qpi_config_init(qpi_config *config)
{
    *config = (qpi_config){.struct_bytes = sizeof *config, .timeout_s = 10.0, .patience_s = 30.0};
}

void qpi_lock(SharedLock *shared)
{
    pthread_mutex_lock(&shared->lock);
}

void qpi_unlock(SharedLock *shared)
{
    pthread_mutex_unlock(&shared->lock);
}

void qpi_shared_release(SharedLock *shared)
{
    size_t users = --shared->users;
    pthread_mutex_unlock(&shared->lock);
    if (users > 0)
        return;
    pthread_mutex_destroy(&shared->lock);
    free(shared);
}

static int check_config(const qpi_config *given, qpi_config *config)
{
    qpi_config_init(config);
    if (given && given->struct_bytes != sizeof *given)
        return qpi_fail(QPI_OPTION, "begin with qpi_config_init",
                        "qpi_config.struct_bytes is %zu, not %zu", given->struct_bytes,
                        sizeof *given);
    if (given)
        *config = *given;
    if (!(config->timeout_s > 0.0 && config->timeout_s <= 1e8)
        || !(config->patience_s > 0.0 && config->patience_s <= 1e8))
        return qpi_fail(QPI_OPTION, "seconds, above 0, up to 1e8",
                        "timeout_s is %g, patience_s is %g", config->timeout_s,
                        config->patience_s);
    return QPI_OK;
}

/* Ask who this is: the first request, which the token must pass. */
static int greet(qpi_session *session)
{
    Request request = {.path = API "/status", .is_first = 1,
                       .end_s = qpi_end_s(session->timeout_s)};
    Answer answer;
    int status = qpi_request(session, &request, &answer);
    qpi_buffer_free(&answer.body);
    return status;
}

static int open_session(qpi_session *session, const qpi_config *given)
{
    qpi_config config;
    TRY(check_config(given, &config));
    session->timeout_s = config.timeout_s;
    session->patience_s = config.patience_s;
    TRY(qpi_gateway_find(&config, &session->gateway));
    TRY(qpi_random_hex(session->client, CLIENT_BYTES));
    TRY(qpi_http_start());
    return greet(session);
}

int qpi_init(const qpi_config *config, qpi_session **session)
{
    qpi_session *made = calloc(1, sizeof *made);
    *session = NULL;
    if (!made || !(made->shared = calloc(1, sizeof *made->shared))) {
        free(made);
        return qpi_fail_memory();
    }
    pthread_mutex_init(&made->shared->lock, NULL);
    made->shared->users = 1;
    made->pid = getpid();
    int status = open_session(made, config);
    if (status == QPI_OK)
        *session = made;
    else
        qpi_finalize(made);
    return status;
}

void qpi_finalize(qpi_session *session)
{
    if (!session)
        return;
    if (session->pid == getpid())
        qpi_http_close(session);
    qpi_lock(session->shared);
    while (session->jobs)
        qpi_job_lose(session->jobs);
    free(session->devices);
    qpi_shared_release(session->shared);
    explicit_bzero(&session->gateway, sizeof session->gateway);
    free(session);
}

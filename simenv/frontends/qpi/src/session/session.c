/* A session: its lock, its beginning and its end.
 *
 * Invariants: the socket is used by the session's thread alone (loop.c); everything else in a
 * session and its jobs is guarded by one lock. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "internal.h"

enum { CLIENT_BYTES = 8 }; /* random ones, of a session's name */

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

/* With the lock held, which is released; the last user frees it. */
void qpi_shared_release(SharedLock *shared)
{
    size_t users = --shared->users;
    pthread_mutex_unlock(&shared->lock);
    if (users > 0)
        return;
    pthread_mutex_destroy(&shared->lock);
    pthread_cond_destroy(&shared->changed);
    free(shared);
}

static SharedLock *make_lock(void)
{
    SharedLock *shared = calloc(1, sizeof *shared);
    pthread_condattr_t clock;
    if (!shared)
        return NULL;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&shared->lock, NULL);
    pthread_cond_init(&shared->changed, &clock);
    pthread_condattr_destroy(&clock);
    shared->users = 1;
    return shared;
}

void qpi_session_wake(qpi_session *session)
{
    uint64_t one = 1;
    if (session->wakeup >= 0 && write(session->wakeup, &one, sizeof one) < 0)
        return; /* it is as awake as can be */
}

/* --- beginning and end ---------------------------------------------------------------------- */

static int is_greeted(void *argument)
{
    return ((qpi_session *)argument)->epoch != 0;
}

static int start_thread(qpi_session *session)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    session->has_thread = !pthread_create(&session->thread, NULL, qpi_loop_run, session);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return session->has_thread ? QPI_OK
                               : qpi_fail(QPI_ERROR, NULL, "cannot start the session's thread");
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

static int open_session(qpi_session *session, const qpi_config *config)
{
    char path[PATH_BYTES];
    int status = check_config(config, &session->config);
    if (status == QPI_OK)
        status = qpi_transport_load(session->config.libzmq);
    if (status == QPI_OK)
        status = qpi_address_find(&session->config, path);
    if (status == QPI_OK)
        status = qpi_address_read(path, &session->address);
    if (status != QPI_OK)
        return status;
    session->filed = session->address;
    if (!qpi_address_alive(&session->address))
        return qpi_fail_silent(session, 0.0);
    session->client[0] = '~'; /* no user's key begins so */
    TRY(qpi_random_hex(session->client + 1, CLIENT_BYTES));
    session->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (session->wakeup < 0)
        return qpi_fail(QPI_ERROR, NULL, "no file descriptor is left");
    return qpi_transport_open(&session->address, session->client, &session->transport);
}

int qpi_init(const qpi_config *config, qpi_session **session)
{
    qpi_session *made = calloc(1, sizeof *made);
    *session = NULL;
    if (!made || !(made->shared = make_lock())) {
        free(made);
        return qpi_fail_memory();
    }
    made->wakeup = -1;
    made->last_request = &made->requests;
    int status = open_session(made, config);
    made->heard_s = made->pinged_s = made->looked_s = made->renewed_s = qpi_now_s();
    if (status == QPI_OK) {
        qpi_loop_greet(made);
        status = start_thread(made);
    }
    if (status == QPI_OK) {
        qpi_lock(made->shared);
        status = qpi_session_wait(made, is_greeted, made, made->config.timeout_s,
                                  "the service gave no greeting");
        qpi_unlock(made->shared);
    }
    made->config.environment = made->config.file = made->config.libzmq = NULL; /* the caller's */
    if (status == QPI_OK)
        *session = made;
    else
        qpi_finalize(made);
    return status;
}

void qpi_finalize(qpi_session *session)
{
    static const char HINT[] = "submit again with the same idempotency key to get its results";
    Failure failure = {0};
    if (!session)
        return;
    qpi_lock(session->shared);
    session->closing = 1;
    qpi_session_wake(session);
    qpi_unlock(session->shared);
    if (session->has_thread)
        pthread_join(session->thread, NULL);
    qpi_transport_close(session->transport);
    qpi_lock(session->shared);
    qpi_failure_set(&failure, QPI_NO_SERVICE, "the session was finalized", HINT);
    while (session->jobs)
        qpi_job_detach(session->jobs, &failure);
    qpi_failure_clear(&failure);
    while (session->requests)
        qpi_request_remove(session, session->requests);
    qpi_failure_clear(&session->broken);
    qpi_buffer_free(&session->early);
    free(session->table);
    free(session->devices);
    if (session->wakeup >= 0)
        close(session->wakeup);
    qpi_shared_release(session->shared);
    explicit_bzero(&session->address, sizeof session->address);
    explicit_bzero(&session->filed, sizeof session->filed);
    free(session);
}

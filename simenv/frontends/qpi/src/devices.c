/* The pools of an environment, as devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const double KEPT_S = 10.0;

static int64_t whole(const char *json, const char *key)
{
    double value = qpi_json_number(qpi_json_member(json, key));
    return value > 0.0 && value < 9e18 ? (int64_t)value : 0;
}

static int ask(qpi_session *session, const char *path, double end_s, double timeout_s,
               Answer *answer)
{
    Request request = {.path = path, .end_s = end_s, .what = "no answer", .timeout_s = timeout_s};
    return qpi_request(session, &request, answer);
}

/* One pool, whose name is known. */
static int read_device(qpi_session *session, double end_s, double timeout_s, qpi_device *device)
{
    Answer answer;
    char path[QPI_NAME_BYTES + 32];
    if (!device->name[0] || device->name[strspn(device->name, "abcdefghijklmnopqrstuvwxyz"
                                                              "0123456789_.-")])
        return QPI_OK;
    snprintf(path, sizeof path, API "/devices/%s", device->name);
    int status = ask(session, path, end_s, timeout_s, &answer);
    if (status == QPI_NOT_FOUND || status == QPI_OPTION)
        return QPI_NOT_FOUND; /* of functions, or ended meanwhile */
    TRY(status);
    const char *json = answer.body.data;
    qpi_json_text(qpi_json_member(json, "kind"), device->kind, sizeof device->kind);
    qpi_json_text(qpi_json_member(json, "model"), device->model, sizeof device->model);
    device->num_qubits = whole(json, "num_qubits");
    device->max_shots = whole(json, "max_shots");
    qpi_buffer_free(&answer.body);
    return QPI_OK;
}

/* The names of all pools. */
static int read_names(qpi_session *session, double end_s, double timeout_s, qpi_device **devices,
                      size_t *count)
{
    Answer answer;
    size_t size = 0, used = 0;
    *count = 0;
    *devices = NULL;
    TRY(ask(session, API "/pools", end_s, timeout_s, &answer));
    const char *first = qpi_json_first(answer.body.data);
    for (const char *at = first; at; at = qpi_json_next(at))
        size++;
    *devices = calloc(size + 1, sizeof **devices);
    for (const char *at = first; *devices && at; at = qpi_json_next(at)) {
        char *name = (*devices)[used].name;
        if (qpi_json_text(qpi_json_member(at, "name"), name, QPI_NAME_BYTES) > 1)
            used++;
    }
    qpi_buffer_free(&answer.body);
    *count = used;
    return *devices ? QPI_OK : qpi_fail_memory();
}

int qpi_devices(qpi_session *session, double timeout_s, qpi_device *devices, size_t capacity,
                size_t *count)
{
    double end_s = qpi_end_s(timeout_s);
    qpi_device *found;
    size_t size, used = 0;
    int status = read_names(session, end_s, timeout_s, &found, &size);
    for (size_t index = 0; status == QPI_OK && index < size; index++) {
        status = read_device(session, end_s, timeout_s, &found[index]);
        if (status == QPI_OK && used < capacity)
            devices[used] = found[index];
        used += status == QPI_OK;
        if (status == QPI_NOT_FOUND)
            status = QPI_OK;
    }
    free(found);
    if (status == QPI_OK)
        *count = used;
    return status;
}

static int is_known(qpi_session *session, const char *name, double *age_s)
{
    int found = 0;
    qpi_lock(session->shared);
    *age_s = qpi_now_s() - session->devices_s;
    for (size_t index = 0; index < session->num_devices && !found; index++)
        found = !strcmp(session->devices[index].name, name);
    qpi_unlock(session->shared);
    return found;
}

int qpi_find_pool(qpi_session *session, const char *name, double end_s, double timeout_s,
                  int *is_pool)
{
    double age_s;
    qpi_device *found;
    size_t count;
    *is_pool = is_known(session, name, &age_s);
    if (age_s <= KEPT_S && session->devices)
        return QPI_OK;
    TRY(read_names(session, end_s, timeout_s, &found, &count));
    qpi_lock(session->shared);
    free(session->devices);
    session->devices = found;
    session->num_devices = count;
    session->devices_s = qpi_now_s();
    qpi_unlock(session->shared);
    *is_pool = is_known(session, name, &age_s);
    return QPI_OK;
}

/* The pools of an environment, as devices. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const double KEPT_S = 10.0;

static void copy_name(char *to, Slice from)
{
    size_t size = from.size < QPI_NAME_BYTES - 1 ? from.size : QPI_NAME_BYTES - 1;
    if (size)
        memcpy(to, from.data, size);
    to[size] = 0;
}

/* DeviceInfo: a map of field names to values. */
static void read_device(Reader *from, qpi_device *device)
{
    size_t pairs = qpi_get_map(from);
    *device = (qpi_device){.num_qubits = 0};
    while (pairs-- > 0 && !from->bad) {
        Slice key = qpi_get_text(from);
        if (qpi_slice_is(key, "name"))
            copy_name(device->name, qpi_get_text(from));
        else if (qpi_slice_is(key, "kind"))
            copy_name(device->kind, qpi_get_text(from));
        else if (qpi_slice_is(key, "model"))
            copy_name(device->model, qpi_get_text(from));
        else if (qpi_slice_is(key, "num_qubits"))
            device->num_qubits = qpi_get_int(from);
        else if (qpi_slice_is(key, "max_shots"))
            device->max_shots = qpi_get_int(from);
        else
            qpi_skip(from, 1);
    }
}

/* Devices: request, devices, names. */
static int read_devices(const Buffer *answer, qpi_device **devices, size_t *count)
{
    Reader from = qpi_reader(answer->data, answer->used);
    qpi_get_array(&from);
    qpi_get_uint(&from);
    qpi_get_uint(&from);
    *count = qpi_get_array(&from);
    *devices = from.bad ? NULL : calloc(*count + 1, sizeof **devices);
    for (size_t index = 0; *devices && index < *count && !from.bad; index++)
        read_device(&from, &(*devices)[index]);
    if (*devices && !from.bad)
        return QPI_OK;
    int lacks_memory = !from.bad;
    free(*devices);
    *devices = NULL;
    return lacks_memory ? qpi_fail_memory()
                        : qpi_fail(QPI_PROTOCOL, NULL, "the service's devices cannot be read");
}

static int refresh(qpi_session *session, double timeout_s)
{
    Buffer body = {0}, answer = {0};
    qpi_device *devices = NULL;
    size_t count = 0;
    uint64_t number = qpi_next_number(session);
    qpi_put_head(&body, 2, TAG_GET_DEVICES, number);
    int status = qpi_ask(session, TAG_DEVICES, number, &body, timeout_s, &answer);
    if (status == QPI_OK)
        status = read_devices(&answer, &devices, &count);
    qpi_buffer_free(&answer);
    if (status != QPI_OK)
        return status;
    qpi_lock(session->shared);
    free(session->devices);
    session->devices = devices;
    session->num_devices = count;
    session->devices_s = qpi_now_s();
    qpi_unlock(session->shared);
    return QPI_OK;
}

int qpi_devices(qpi_session *session, double timeout_s, qpi_device *devices, size_t capacity,
                size_t *count)
{
    TRY(refresh(session, timeout_s));
    qpi_lock(session->shared);
    *count = session->num_devices;
    for (size_t index = 0; index < *count && index < capacity; index++)
        devices[index] = session->devices[index];
    qpi_unlock(session->shared);
    return QPI_OK;
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

int qpi_find_pool(qpi_session *session, const char *name, double timeout_s, int *is_pool)
{
    double age_s;
    *is_pool = is_known(session, name, &age_s);
    if (!*is_pool || age_s > KEPT_S) {
        TRY(refresh(session, timeout_s));
        *is_pool = is_known(session, name, &age_s);
    }
    return QPI_OK;
}

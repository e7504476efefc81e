/* A DEALER socket of libzmq, loaded at run time: its binary interface has been stable since 4.0,
 * and simenv's own Python package brings it along, without headers.
 * Source of the constants: zmq.h of libzmq 4.3. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum {
    ZMQ_PAIR = 0, ZMQ_DEALER = 5,
    ZMQ_ROUTING_ID = 5, ZMQ_LINGER = 17, ZMQ_RECONNECT_IVL = 18, ZMQ_RECONNECT_IVL_MAX = 21,
    ZMQ_MAXMSGSIZE = 22, ZMQ_SNDHWM = 23, ZMQ_RCVHWM = 24, ZMQ_RCVMORE = 13,
    ZMQ_IPV6 = 42, ZMQ_CURVE_PUBLICKEY = 48, ZMQ_CURVE_SECRETKEY = 49, ZMQ_CURVE_SERVERKEY = 50,
    ZMQ_HANDSHAKE_IVL = 66,
    ZMQ_DONTWAIT = 1, ZMQ_POLLIN = 1,
    ZMQ_EVENT_HANDSHAKE_SUCCEEDED = 0x1000, ZMQ_EVENT_HANDSHAKE_FAILED_AUTH = 0x4000,
    SEND_QUEUE_MESSAGES = 10000, MAX_MESSAGE_BYTES = 64 << 20,
    SEALED_BYTES = 64, /* most bytes that encryption adds to a message */
};

typedef struct PollItem { /* zmq_pollitem_t */
    void *socket;
    int fd;
    short events, revents;
} PollItem;

typedef union Message { /* zmq_msg_t */
    unsigned char bytes[64];
    void *aligned;
} Message;

static struct {
    void *library;
    void *(*ctx_new)(void);
    int (*ctx_term)(void *);
    void *(*socket)(void *, int);
    int (*close)(void *);
    int (*setsockopt)(void *, int, const void *, size_t);
    int (*getsockopt)(void *, int, void *, size_t *);
    int (*connect)(void *, const char *);
    int (*send)(void *, const void *, size_t, int);
    int (*msg_init)(Message *);
    int (*msg_recv)(Message *, void *, int);
    void *(*msg_data)(Message *);
    size_t (*msg_size)(Message *);
    int (*msg_close)(Message *);
    int (*poll)(PollItem *, int, long);
    int (*socket_monitor)(void *, const char *, int);
    void (*version)(int *, int *, int *);
    int (*curve_keypair)(char *, char *);
} zmq;

struct Transport {
    void *context, *socket, *monitor;
    int refused;
};

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

/* dlsym gives a data pointer; POSIX lets it be stored as a pointer to a function. */
int qpi_load_symbol(void *library, const char *name, void *to)
{
    void *found = dlsym(library, name);
    memcpy(to, &found, sizeof found);
    return found != NULL;
}

static int load_all(void *library)
{
    return qpi_load_symbol(library, "zmq_ctx_new", &zmq.ctx_new)
           && qpi_load_symbol(library, "zmq_ctx_term", &zmq.ctx_term)
           && qpi_load_symbol(library, "zmq_socket", &zmq.socket)
           && qpi_load_symbol(library, "zmq_close", &zmq.close)
           && qpi_load_symbol(library, "zmq_setsockopt", &zmq.setsockopt)
           && qpi_load_symbol(library, "zmq_getsockopt", &zmq.getsockopt)
           && qpi_load_symbol(library, "zmq_connect", &zmq.connect)
           && qpi_load_symbol(library, "zmq_send", &zmq.send)
           && qpi_load_symbol(library, "zmq_msg_init", &zmq.msg_init)
           && qpi_load_symbol(library, "zmq_msg_recv", &zmq.msg_recv)
           && qpi_load_symbol(library, "zmq_msg_data", &zmq.msg_data)
           && qpi_load_symbol(library, "zmq_msg_size", &zmq.msg_size)
           && qpi_load_symbol(library, "zmq_msg_close", &zmq.msg_close)
           && qpi_load_symbol(library, "zmq_poll", &zmq.poll)
           && qpi_load_symbol(library, "zmq_socket_monitor", &zmq.socket_monitor)
           && qpi_load_symbol(library, "zmq_version", &zmq.version)
           && qpi_load_symbol(library, "zmq_curve_keypair", &zmq.curve_keypair);
}

static int load(const char *named)
{
    static const char HINT[] =
        "name it: qpi_config.libzmq or SIMENV_LIBZMQ=/path/libzmq.so.5 (Debian: libzmq5)";
    const char *variable = getenv("SIMENV_LIBZMQ");
    const char *only = named ? named : variable && *variable ? variable : NULL;
    const char *places[] = {QPI_LIBZMQ, "libzmq.so.5"};
    void *library = NULL;
    int major = 0, minor = 0, patch = 0;
    if (only)
        library = dlopen(only, RTLD_NOW | RTLD_LOCAL);
    for (int index = 0; !only && !library && index < 2; index++)
        if (*places[index])
            library = dlopen(places[index], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return qpi_fail(QPI_NO_LIBZMQ, HINT, "cannot load ZeroMQ: %s", dlerror());
    if (!load_all(library)) {
        dlclose(library);
        return qpi_fail(QPI_NO_LIBZMQ, HINT, "%s is not ZeroMQ", only ? only : "the library found");
    }
    zmq.version(&major, &minor, &patch);
    if (major != 4 || minor < 3) {
        dlclose(library);
        return qpi_fail(QPI_NO_LIBZMQ, HINT, "ZeroMQ %d.%d.%d is not 4.3 or newer", major, minor,
                        patch);
    }
    zmq.library = library;
    return QPI_OK;
}

int qpi_transport_load(const char *libzmq)
{
    int status = QPI_OK;
    pthread_mutex_lock(&loading);
    if (!zmq.library)
        status = load(libzmq);
    pthread_mutex_unlock(&loading);
    return status;
}

int qpi_transport_new_keys(char *public_key, char *secret_key)
{
    return !zmq.curve_keypair(public_key, secret_key);
}

static int set_number(void *socket, int option, int value)
{
    return zmq.setsockopt(socket, option, &value, sizeof value);
}

static int set_text(void *socket, int option, const char *text)
{
    return zmq.setsockopt(socket, option, text, strlen(text));
}

/* The options of the Python client's connections. Nothing is sent or read before the peer has
 * proved the service's key, also after libzmq has connected again by itself. */
static int prepare(Transport *transport, const Address *address, const char *identity)
{
    void *socket = transport->socket;
    int64_t most = MAX_MESSAGE_BYTES + SEALED_BYTES;
    char public_key[KEY_BYTES], secret_key[KEY_BYTES];
    memcpy(public_key, address->public_key, KEY_BYTES);
    memcpy(secret_key, address->secret_key, KEY_BYTES);
    if (!*secret_key && !qpi_transport_new_keys(public_key, secret_key))
        return -1;
    int failed = zmq.setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most)
                 | set_text(socket, ZMQ_ROUTING_ID, identity)
                 | set_number(socket, ZMQ_SNDHWM, SEND_QUEUE_MESSAGES)
                 | set_number(socket, ZMQ_RCVHWM, 0) | set_number(socket, ZMQ_LINGER, 200)
                 | set_number(socket, ZMQ_RECONNECT_IVL, 100)
                 | set_number(socket, ZMQ_RECONNECT_IVL_MAX, 1000);
    failed = failed || set_text(socket, ZMQ_CURVE_SERVERKEY, address->server_key)
             || set_text(socket, ZMQ_CURVE_PUBLICKEY, public_key)
             || set_text(socket, ZMQ_CURVE_SECRETKEY, secret_key);
    explicit_bzero(secret_key, sizeof secret_key);
    if (!failed) {
        failed = set_number(socket, ZMQ_HANDSHAKE_IVL, 5000) | set_number(socket, ZMQ_IPV6, 1)
                 | zmq.socket_monitor(socket, "inproc://handshake",
                                      ZMQ_EVENT_HANDSHAKE_SUCCEEDED
                                          | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
        transport->monitor = failed ? NULL : zmq.socket(transport->context, ZMQ_PAIR);
        failed = failed || !transport->monitor || set_number(transport->monitor, ZMQ_RCVHWM, 0)
                 || zmq.connect(transport->monitor, "inproc://handshake");
    }
    return failed ? -1 : 0;
}

int qpi_transport_open(const Address *address, const char *identity, Transport **transport)
{
    Transport *made = calloc(1, sizeof *made);
    *transport = NULL;
    if (!made)
        return qpi_fail_memory();
    made->context = zmq.ctx_new();
    made->socket = made->context ? zmq.socket(made->context, ZMQ_DEALER) : NULL;
    if (!made->socket || prepare(made, address, identity)
        || zmq.connect(made->socket, address->endpoint)) {
        qpi_transport_close(made);
        return qpi_fail(QPI_NO_SERVICE, "libzmq must be built with CURVE; keys have 40 characters",
                        "cannot connect to %s", address->endpoint);
    }
    *transport = made;
    return QPI_OK;
}

void qpi_transport_close(Transport *transport)
{
    if (!transport)
        return;
    if (transport->monitor)
        zmq.close(transport->monitor);
    if (transport->socket)
        zmq.close(transport->socket);
    if (transport->context)
        while (zmq.ctx_term(transport->context) && errno == EINTR)
            ;
    free(transport);
}

int qpi_transport_send(Transport *transport, const uint8_t *data, size_t size)
{
    return zmq.send(transport->socket, data, size, ZMQ_DONTWAIT) >= 0;
}

/* Append one frame; 1 where more of the same message follow. */
static int receive_frame(Transport *transport, Buffer *to)
{
    Message message;
    int more = 0;
    size_t size = sizeof more;
    zmq.msg_init(&message);
    if (zmq.msg_recv(&message, transport->socket, ZMQ_DONTWAIT) < 0) {
        zmq.msg_close(&message);
        return -1;
    }
    qpi_buffer_add(to, zmq.msg_data(&message), zmq.msg_size(&message));
    zmq.msg_close(&message);
    zmq.getsockopt(transport->socket, ZMQ_RCVMORE, &more, &size);
    return more;
}

int qpi_transport_receive(Transport *transport, int wakeup, double timeout_s, Buffer *to)
{
    PollItem items[2] = {{transport->socket, 0, ZMQ_POLLIN, 0}, {NULL, wakeup, ZMQ_POLLIN, 0}};
    if (zmq.poll(items, 2, (long)(1e3 * timeout_s + 0.999)) <= 0
        || !(items[0].revents & ZMQ_POLLIN))
        return 0;
    int more = receive_frame(transport, to);
    if (more < 0)
        return 0;
    if (!more)
        return 1;
    while (receive_frame(transport, to) > 0)
        to->used = 0;
    to->used = 0;
    return -1;
}

int qpi_transport_refused(Transport *transport)
{
    Message message;
    if (!transport->monitor)
        return 0;
    zmq.msg_init(&message);
    while (zmq.msg_recv(&message, transport->monitor, ZMQ_DONTWAIT) >= 0) {
        const uint8_t *data = zmq.msg_data(&message);
        if (zmq.msg_size(&message) == 6) { /* number and value; the address is a frame of its own */
            int event = data[0] | data[1] << 8;
            transport->refused = event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
        }
    }
    zmq.msg_close(&message);
    return transport->refused;
}

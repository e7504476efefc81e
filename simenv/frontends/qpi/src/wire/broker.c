/* Another user's environment, whose credential broker gives certificates: local:OWNER/NAME on this
 * host, munge:OWNER@HOST:PORT/NAME on another node of the site. A certificate is believed only if
 * the kernel (SO_PEERCRED, unix(7)) or MUNGE (munge.h of libmunge 0.5) names OWNER as its sender.
 * The secret key is made here. The same rules as in the Python client. */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { REPLY_BYTES = 8192, NONCE_BYTES = 16, MUNGE_TTL_S = 60, TRIES = 5, LIMIT_S = 3 };
static const char FORM[] = "local:OWNER/NAME, or munge:OWNER@HOST:PORT/NAME";
static const char WAIT_HINT[] = "it has too much to do, or is starting: try again";

typedef struct Broker {
    const char *text;
    char owner[65], host[256], port[6], name[65];
    uid_t uid; /* of the owner */
    int is_munge;
} Broker;

int qpi_is_broker(const char *text)
{
    return !strncmp(text, "local:", 6) || !strncmp(text, "munge:", 6);
}

static int find_owner(Broker *broker)
{
    char text[4096], *end;
    struct passwd entry, *found = NULL;
    if (isdigit((unsigned char)broker->owner[0])) {
        unsigned long number = strtoul(broker->owner, &end, 10);
        broker->uid = (uid_t)number;
        if (!*end && number < UINT32_MAX)
            return QPI_OK;
    } else if (!getpwnam_r(broker->owner, &entry, text, sizeof text, &found) && found) {
        broker->uid = entry.pw_uid;
        return QPI_OK;
    }
    return qpi_fail(QPI_OPTION, "the name or the user id of the owner of the environment",
                    "there is no user '%s' on this host", broker->owner);
}

/* Copy what is before the first of `stops`; NULL where that is nothing, or too much. */
static const char *copy_part(const char *from, const char *stops, char *to, size_t capacity)
{
    size_t length = strcspn(from, stops);
    if (!length || length >= capacity)
        return NULL;
    memcpy(to, from, length);
    to[length] = 0;
    return from + length;
}

static int parse(const char *text, Broker *broker)
{
    *broker = (Broker){.text = text, .name = "default", .is_munge = text[0] == 'm'};
    const char *at = copy_part(text + 6, "/@:", broker->owner, sizeof broker->owner);
    if (at && broker->is_munge) {
        char *port = NULL;
        at = *at == '@' ? copy_part(at + 1, "/@", broker->host, sizeof broker->host) : NULL;
        if (at && (port = strrchr(broker->host, ':')) && port > broker->host)
            *port++ = 0; /* an address of IPv6 has colons too */
        if (!port || !*port || strlen(port) >= sizeof broker->port
            || strspn(port, "0123456789") != strlen(port))
            at = NULL;
        else
            memcpy(broker->port, port, strlen(port) + 1);
    }
    if (at && *at == '/')
        at = copy_part(at + 1, "/", broker->name, sizeof broker->name);
    if (!at || *at || !qpi_is_name(broker->name))
        return qpi_fail(QPI_OPTION, FORM, "service '%.80s' is no address of a broker", text);
    return find_owner(broker);
}

/* The broker's socket in a folder that nobody but the owner can write; 0: there is none. */
static int find_socket(const Broker *broker, struct sockaddr_un *to)
{
    const char *base = getenv("SIMENV_BROKERS");
    char prefix[40], path[PATH_BYTES];
    struct dirent *entry;
    struct stat info;
    int found = 0;
    base = base && *base ? base : "/tmp";
    size_t length = (size_t)snprintf(prefix, sizeof prefix, "simenv-broker-%u", broker->uid);
    DIR *folder = opendir(base);
    while (folder && !found && (entry = readdir(folder))) {
        if (strncmp(entry->d_name, prefix, length)
            || (entry->d_name[length] && entry->d_name[length] != '.')
            || snprintf(path, sizeof path, "%s/%s", base, entry->d_name) >= (int)sizeof path
            || lstat(path, &info) || !S_ISDIR(info.st_mode) || info.st_uid != broker->uid
            || (info.st_mode & (S_IWGRP | S_IWOTH)))
            continue;
        int size = snprintf(to->sun_path, sizeof to->sun_path, "%s/%s/%s.sock", base,
                            entry->d_name, broker->name);
        found = size < (int)sizeof to->sun_path && !access(to->sun_path, F_OK);
    }
    if (folder)
        closedir(folder);
    return found;
}

/* --- MUNGE ---------------------------------------------------------------------------------- */

enum { MUNGE_TTL = 4, MUNGE_ENCODED = 6, MUNGE_DECODED = 7, MUNGE_SOCKET = 8, MUNGE_READER = 9 };

typedef struct Munge {
    void *library, *context;
    void *(*create)(void);
    void (*destroy)(void *);
    int (*set)(void *, int, ...);
    int (*get)(void *, int, ...);
    int (*encode)(char **, void *, const void *, int);
    int (*decode)(const char *, void *, void **, int *, uid_t *, gid_t *);
    const char *(*reason)(int);
} Munge;

static void munge_close(Munge *munge)
{
    if (munge->context)
        munge->destroy(munge->context);
    if (munge->library)
        dlclose(munge->library);
}

static int munge_open(Munge *munge)
{
    const char *named = getenv("SIMENV_MUNGE_SOCKET");
    const char *path = named && *named ? named : "/run/munge/munge.socket.2";
    *munge = (Munge){0};
    if (access(path, F_OK)) /* the library would wait for it for seconds */
        return qpi_fail(QPI_NO_SERVICE, "is munged running? SIMENV_MUNGE_SOCKET names another",
                        "there is no socket of munged at %s", path);
    void *library = munge->library = dlopen("libmunge.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library || !qpi_load_symbol(library, "munge_ctx_create", &munge->create)
        || !qpi_load_symbol(library, "munge_ctx_destroy", &munge->destroy)
        || !qpi_load_symbol(library, "munge_ctx_set", &munge->set)
        || !qpi_load_symbol(library, "munge_ctx_get", &munge->get)
        || !qpi_load_symbol(library, "munge_encode", &munge->encode)
        || !qpi_load_symbol(library, "munge_decode", &munge->decode)
        || !qpi_load_symbol(library, "munge_strerror", &munge->reason))
        return qpi_fail(QPI_CONFIG, "on Debian: apt-get install munge",
                        "MUNGE is not installed here: libmunge.so.2 cannot be loaded");
    munge->context = munge->create();
    return munge->context && !munge->set(munge->context, MUNGE_SOCKET, path) ? QPI_OK
                                                                             : qpi_fail_memory();
}

/* A credential of `body` that only the owner can decode; freed by the caller. */
static int munge_seal(const Broker *broker, const char *body, char **credential)
{
    Munge munge;
    *credential = NULL;
    int status = munge_open(&munge);
    if (status == QPI_OK) {
        int code = munge.set(munge.context, MUNGE_TTL, (int)MUNGE_TTL_S);
        code = code ? code : munge.set(munge.context, MUNGE_READER, broker->uid);
        code = code ? code : munge.encode(credential, munge.context, body, (int)strlen(body));
        if (code)
            status = qpi_fail(QPI_NO_SERVICE, "is munged running?", "munged does not answer: %s",
                              munge.reason(code));
    }
    munge_close(&munge);
    return status;
}

/* The text in the credential `line`, which takes its place, if the owner made it. */
static int munge_unseal(const Broker *broker, char *line)
{
    Munge munge;
    void *body = NULL;
    int size = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    time_t sent = 0, now = 0;
    int status = munge_open(&munge);
    if (status == QPI_OK) {
        int code = munge.decode(line, munge.context, &body, &size, &uid, &gid);
        code = code ? code : munge.get(munge.context, MUNGE_ENCODED, &sent);
        code = code ? code : munge.get(munge.context, MUNGE_DECODED, &now);
        if (code)
            status = qpi_fail(QPI_KEY_REFUSED, "has the site one key, and one time?",
                              "MUNGE refuses the credential: %s", munge.reason(code));
        else if (uid != broker->uid || now - sent > MUNGE_TTL_S || size >= REPLY_BYTES)
            status = qpi_fail(QPI_NO_SERVICE, "ask the owner for the address",
                              "user %u answers at %s in the place of '%s', or late: not believed",
                              uid, broker->text, broker->owner);
        else {
            memcpy(line, body, (size_t)size);
            line[size] = 0;
        }
        free(body);
    }
    munge_close(&munge);
    return status;
}

/* --- one request ---------------------------------------------------------------------------- */

/* A socket whose connect, send and recv take LIMIT_S at most each; -1: there is none. */
static int limited_socket(int family)
{
    struct timeval limit = {.tv_sec = LIMIT_S};
    int made = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made >= 0) {
        setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    }
    return made;
}

/* A connected socket; -1: nothing answers, and errno says why; -2: an error is set. */
static int connect_local(const Broker *broker)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    if (!find_socket(broker, &name)) {
        qpi_fail(QPI_NO_SERVICE, "the owner sets use = 'local' in [identity] and starts it",
                 "'%s' has no environment '%s' for other users on this host", broker->owner,
                 broker->name);
        return -2;
    }
    int peer_socket = limited_socket(AF_UNIX);
    if (peer_socket < 0)
        return -1;
    if (connect(peer_socket, (struct sockaddr *)&name, sizeof name)) {
        close(peer_socket);
        return -1;
    }
    if (getsockopt(peer_socket, SOL_SOCKET, SO_PEERCRED, &peer, &size)
        || peer.uid != broker->uid) {
        close(peer_socket);
        qpi_fail(QPI_NO_SERVICE, "ask the owner for the address",
                 "user %u answers at %s in the place of '%s': not believed", peer.uid,
                 broker->text, broker->owner);
        return -2;
    }
    return peer_socket;
}

static int connect_remote(const Broker *broker)
{
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int peer_socket = -1, code = getaddrinfo(broker->host, broker->port, &wanted, &found);
    if (code) {
        qpi_fail(QPI_NO_SERVICE, NULL, "the host of %s is not known here: %s", broker->text,
                 gai_strerror(code));
        return -2;
    }
    for (struct addrinfo *each = found; each && peer_socket < 0; each = each->ai_next) {
        peer_socket = limited_socket(each->ai_family);
        if (peer_socket >= 0 && connect(peer_socket, each->ai_addr, each->ai_addrlen)) {
            int reason = errno;
            close(peer_socket);
            peer_socket = -1;
            errno = reason;
        }
    }
    int reason = errno;
    freeaddrinfo(found);
    errno = reason;
    return peer_socket;
}

/* Send one line and read one; 0 where the broker does not answer, and errno says why. */
static int exchange(int peer, const char *body, char *line)
{
    size_t size = strlen(body), used = 0;
    for (size_t at = 0; at <= size;) { /* the end of the line is sent last */
        ssize_t sent = at < size ? send(peer, body + at, size - at, MSG_NOSIGNAL)
                                 : send(peer, "\n", 1, MSG_NOSIGNAL);
        if (sent <= 0)
            return 0;
        at += (size_t)sent;
    }
    while (used < REPLY_BYTES - 1) {
        ssize_t got = recv(peer, line + used, REPLY_BYTES - 1 - used, 0);
        if (got <= 0) {
            errno = got ? errno : ECONNRESET;
            return 0;
        }
        used += (size_t)got;
        if (line[used - 1] == '\n') {
            line[used - 1] = 0;
            return strlen(line) == used - 1;
        }
    }
    errno = EMSGSIZE;
    return 0;
}

static int take_reply(const Broker *broker, const char *line, int is_sealed, const char *nonce,
                      Address *address)
{
    char text[1024], hint[512], life[32], code[64];
    if (!qpi_json_check(line) || !qpi_json_get(line, NULL, "kind", text, sizeof text))
        return qpi_fail(QPI_NO_SERVICE, "use one version of simenv on both sides",
                        "%s is not the address of a broker", broker->text);
    if (!strcmp(text, "denial")) {
        qpi_json_get(line, NULL, "code", code, sizeof code);
        qpi_json_get(line, NULL, "hint", hint, sizeof hint);
        if (!qpi_json_get(line, NULL, "message", text, sizeof text))
            snprintf(text, sizeof text, "the broker refuses the request");
        return qpi_fail(qpi_status_of(code, strlen(code)), hint, "%s", text);
    }
    if (!is_sealed || !qpi_json_get(line, NULL, "nonce", text, sizeof text) || strcmp(text, nonce)
        || !qpi_json_get(line, NULL, "environment", text, sizeof text)
        || strcmp(text, broker->name))
        return qpi_fail(QPI_NO_SERVICE, NULL,
                        "the answer of %s is for another request: not believed", broker->text);
    if (!qpi_json_get(line, NULL, "address", address->endpoint, sizeof address->endpoint)
        || strncmp(address->endpoint, "tcp://", 6)
        || !qpi_json_get(line, NULL, "server_key", address->server_key, KEY_BYTES)
        || !qpi_json_get(line, NULL, "lifetime_s", life, sizeof life))
        return qpi_fail(QPI_NO_SERVICE, "use one version of simenv on both sides",
                        "the certificate of %s cannot be read", broker->text);
    double half_s = 0.5 * strtod(life, NULL);
    address->renew_s = qpi_now_s() + (half_s > 1.0 ? half_s : 1.0);
    return QPI_OK;
}

/* QPI_OK, or an error; -1 where nothing answers, and errno says why. */
static int ask(const Broker *broker, Address *address)
{
    char nonce[2 * NONCE_BYTES + 1], body[512], line[REPLY_BYTES], *credential = NULL;
    TRY(qpi_random_hex(nonce, NONCE_BYTES));
    /* Neither a name nor a key in base 85 of ZeroMQ has a character that JSON escapes. */
    snprintf(body, sizeof body,
             "{\"format\":1,\"environment\":\"%s\",\"public_key\":\"%s\",\"nonce\":\"%s\"}",
             broker->name, address->public_key, nonce);
    if (broker->is_munge)
        TRY(munge_seal(broker, body, &credential));
    int peer = broker->is_munge ? connect_remote(broker) : connect_local(broker);
    int heard = peer >= 0 && exchange(peer, credential ? credential : body, line);
    int reason = errno;
    if (peer >= 0)
        close(peer);
    free(credential);
    errno = reason;
    if (!heard)
        return peer == -2 ? QPI_NO_SERVICE : -1;
    int is_sealed = !broker->is_munge;
    if (broker->is_munge && !strncmp(line, "MUNGE:", 6)) {
        TRY(munge_unseal(broker, line));
        is_sealed = 1;
    }
    return take_reply(broker, line, is_sealed, nonce, address);
}

int qpi_broker_ask(Address *address, int is_new)
{
    Broker broker;
    TRY(parse(address->file, &broker));
    snprintf(address->name, sizeof address->name, "%s", broker.name);
    if (is_new && !qpi_transport_new_keys(address->public_key, address->secret_key))
        return qpi_fail(QPI_NO_LIBZMQ, NULL, "libzmq must be built with CURVE");
    for (int turn = 0;; turn++) {
        int status = ask(&broker, address);
        if (status != -1)
            return status;
        if (turn + 1 >= (is_new ? TRIES : 1) || errno == EAGAIN || errno == EWOULDBLOCK)
            return qpi_fail(QPI_NO_SERVICE, WAIT_HINT, "the broker of %s does not answer: %s",
                            broker.text, strerror(errno));
        struct timespec pause = {.tv_nsec = 100000000L << turn};
        pause.tv_sec = pause.tv_nsec / 1000000000L;
        pause.tv_nsec %= 1000000000L;
        nanosleep(&pause, NULL);
    }
}

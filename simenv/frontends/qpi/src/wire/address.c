/* Where a service is: the connection file of an environment, a key file for another machine, or a
 * credential broker (broker.c).
 * A file that others can write is not believed, and one with a secret that others can read is not
 * used: the same rules as in the Python client. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "internal.h"

enum { FILE_BYTES = 65536 };
static const char UP[] = "start one: simenv up";

/* 1 where a name is a-z, then up to 63 of a-z 0-9 _ . - */
int qpi_is_name(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-");
    return name[0] >= 'a' && name[0] <= 'z' && !name[length] && length <= 64;
}

static int copy_path(char *to, const char *from)
{
    int length = snprintf(to, PATH_BYTES, "%s", from);
    if (length < 0 || length >= PATH_BYTES)
        return qpi_fail(QPI_CONFIG, NULL, "the path %.100s... is too long", from);
    return QPI_OK;
}

int qpi_address_find(const qpi_config *config, char *path)
{
    const char *name = config->environment, *service = getenv("SIMENV_SERVICE");
    const char *home = getenv("SIMENV_HOME"), *user = getenv("HOME");
    if (config->file)
        return copy_path(path, config->file);
    if (!name && service && *service) {
        if (!qpi_is_name(service) || strchr(service, '.') || access(service, F_OK) == 0)
            return copy_path(path, service);
        name = service;
    }
    name = name ? name : "default";
    if (!qpi_is_name(name))
        return qpi_fail(QPI_CONFIG, "a name is a-z, then up to 63 of a-z 0-9 _ . -",
                        "environment name '%.80s' is not allowed", name);
    int length = home && *home ? snprintf(path, PATH_BYTES, "%s/%s/connection.json", home, name)
                               : snprintf(path, PATH_BYTES, "%s/.simenv/%s/connection.json",
                                          user ? user : "", name);
    if (length < 0 || length >= PATH_BYTES)
        return qpi_fail(QPI_CONFIG, NULL, "the path of environment %s is too long", name);
    return QPI_OK;
}

/* Read all of a file that only its owner, this user, can write. */
static int read_file(const char *path, char *text, struct stat *info)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return qpi_fail(QPI_NO_SERVICE, UP, "no environment is up: cannot open %s: %s", path,
                        strerror(errno));
    ssize_t size = fstat(file, info) ? -1 : read(file, text, FILE_BYTES - 1);
    close(file);
    if (size < 0)
        return qpi_fail(QPI_NO_SERVICE, NULL, "cannot read %s: %s", path, strerror(errno));
    text[size] = 0;
    if (info->st_uid != getuid() || (info->st_mode & (S_IWGRP | S_IWOTH)))
        return qpi_fail(QPI_NO_SERVICE, "chmod 600 it, or start your own: simenv up",
                        "%s belongs to someone else or can be written by others: not believed",
                        path);
    if (strlen(text) != (size_t)size || !qpi_json_check(text))
        return qpi_fail(QPI_NO_SERVICE, NULL, "%s is not a connection file", path);
    return QPI_OK;
}

/* The entries of an address and its keys; `inside`: the object that has them. */
static int read_keys(const char *text, const char *inside, const char *public_name,
                     const char *secret_name, Address *address)
{
    return qpi_json_get(text, inside, "address", address->endpoint, PATH_BYTES)
           && !strncmp(address->endpoint, "tcp://", 6)
           && qpi_json_get(text, inside, "server_key", address->server_key, KEY_BYTES)
           && qpi_json_get(text, inside, public_name, address->public_key, KEY_BYTES)
           && qpi_json_get(text, inside, secret_name, address->secret_key, KEY_BYTES);
}

/* 1 where the socket is this user's own: its folder is nobody else's to write, and whoever listens
 * there is this user (SO_PEERCRED, unix(7)). `must_listen` 0: it may be about to listen again. */
static int is_own_socket(const char *folder, const char *path, int must_listen)
{
    struct stat info;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct ucred peer;
    struct timeval limit = {.tv_sec = 1};
    socklen_t size = sizeof peer;
    if (lstat(folder, &info))
        return !must_listen;
    if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH))
        || strlen(path) >= sizeof name.sun_path)
        return 0;
    memcpy(name.sun_path, path, strlen(path) + 1);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe >= 0)
        setsockopt(probe, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* of the connect too */
    int connected = probe >= 0 && !connect(probe, (struct sockaddr *)&name, sizeof name);
    int own = connected ? !getsockopt(probe, SOL_SOCKET, SO_PEERCRED, &peer, &size)
                              && peer.uid == geteuid()
                        : !must_listen;
    if (probe >= 0)
        close(probe);
    return own;
}

/* The way in of the environment's own user: its socket here, else its keys for another node. */
static int read_own(const char *path, const char *text, Address *address)
{
    char here[256] = "", folder[PATH_BYTES], near[PATH_BYTES], number[32];
    gethostname(here, sizeof here - 1);
    char key[KEY_BYTES] = "";
    if (!qpi_json_get(text, NULL, "socket_key", key, sizeof key)
        || !qpi_json_get(text, NULL, "sockets", folder, sizeof folder)
        || !qpi_json_get(text, NULL, "node", address->node, sizeof address->node)
        || !qpi_json_get(text, NULL, "pid", number, sizeof number)
        || snprintf(near, sizeof near, "%s/curve.sock", folder) >= (int)sizeof near)
        return qpi_fail(QPI_NO_SERVICE, NULL, "%s is not a connection file", path);
    int is_here = !strcmp(here, address->node);
    qpi_json_get(text, NULL, "start_ticks", address->start_ticks, sizeof address->start_ticks);
    address->pid = is_here ? strtol(number, NULL, 10) : 0;
    if (is_own_socket(folder, near, !is_here)) {
        if (snprintf(address->endpoint, PATH_BYTES, "ipc://%s", near) >= PATH_BYTES)
            return qpi_fail(QPI_LIMIT, NULL, "the socket path %.100s... is too long", near);
        memcpy(address->server_key, key, sizeof key);
        return QPI_OK;
    }
    if (read_keys(text, "own", "public", "secret", address))
        return QPI_OK;
    if (is_here)
        return qpi_fail(QPI_NO_SERVICE, "simenv down; simenv up --restore",
                        "%s is not of this user, or others can write its folder: not used", near);
    return qpi_fail(QPI_NO_SERVICE, "there: simenv up --listen tcp://INTERFACE:0; or work there",
                    "environment %s runs on %s, and listens for no other machine", address->name,
                    address->node);
}

int qpi_address_read(const char *path, Address *address)
{
    char secret[KEY_BYTES], format[16];
    struct stat info;
    *address = (Address){0};
    TRY(copy_path(address->file, path));
    if (qpi_is_broker(path))
        return qpi_broker_ask(address, 1);
    char *text = malloc(FILE_BYTES);
    if (!text)
        return qpi_fail_memory();
    int status = read_file(path, text, &info);
    if (status == QPI_OK
        && (!qpi_json_get(text, NULL, "format", format, sizeof format) || strcmp(format, "1")
            || !qpi_json_get(text, NULL, "name", address->name, sizeof address->name)))
        status = qpi_fail(QPI_NO_SERVICE, "use one version of simenv on both sides",
                          "%s is not a connection file of format 1", path);
    if (status != QPI_OK) {
        free(text);
        return status;
    }
    int personal = qpi_json_get(text, NULL, "secret_key", secret, sizeof secret);
    if ((personal || strstr(text, "\"secret\"")) && (info.st_mode & 077))
        status = qpi_fail(personal ? QPI_CONFIG : QPI_NO_SERVICE, "chmod 600 it",
                          "%s holds a secret key and can be opened by others: not used", path);
    else if (!personal)
        status = read_own(path, text, address);
    else if (!read_keys(text, NULL, "public_key", "secret_key", address))
        status = qpi_fail(QPI_CONFIG, "made by: simenv keys add", "%s is not a key file", path);
    explicit_bzero(text, FILE_BYTES);
    free(text);
    return status;
}

int qpi_address_alive(const Address *address)
{
    char path[64], text[1024], *field;
    if (address->pid <= 0)
        return 1;
    if (kill((pid_t)address->pid, 0))
        return 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", address->pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return access("/proc/self", F_OK) != 0;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    field = strrchr(text, ')'); /* the name of the command may hold spaces */
    if (!field || field[1] != ' ')
        return 0;
    field += 2;
    if (*field == 'Z' || *field == 'X')
        return 0;
    for (int skipped = 0; field && skipped < 19; skipped++) { /* starttime: proc_pid_stat(5) */
        field = strchr(field, ' ');
        field = field ? field + 1 : NULL;
    }
    size_t length = strlen(address->start_ticks);
    return !length || (field && !strncmp(field, address->start_ticks, length)
                       && (field[length] == ' ' || !field[length]));
}

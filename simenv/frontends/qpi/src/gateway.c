/* The gateway of an environment: its Unix socket on this machine, or its URL; and the token. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum { FILE_BYTES = 1 << 16, FORMAT = 1 };
static const char START[] = "start one: simenv up --gateway 127.0.0.1:0; or set SIMENV_URL";
static const char TOKEN[] = "eval \"$(simenv gateway env)\" makes one and sets SIMENV_TOKEN";

/* 1 where a name is a-z, then up to 63 of a-z 0-9 _ . - */
static int is_name(const char *name)
{
    return name[0] >= 'a' && name[0] <= 'z' && strlen(name) <= 64
           && !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-")];
}

/* Where the file of an environment's gateway is: `named` is its name, or its connection file. */
static int find_file(const char *named, int is_path, Gateway *gateway)
{
    const char *root = qpi_variable("SIMENV_HOME"), *home = qpi_variable("HOME");
    const char *slash = strrchr(named, '/'), *before = "";
    int size;
    if (!home && (!root || *named == '~'))
        return qpi_fail(QPI_CONFIG, "set SIMENV_HOME", "HOME is not set");
    snprintf(gateway->environment, sizeof gateway->environment, "%s", named);
    if (is_path && !strncmp(named, "~/", 2)) {
        before = home;
        named++;
    }
    if (is_path)
        size = snprintf(gateway->file, sizeof gateway->file, "%s%.*sgateway/gateway.json", before,
                        slash ? (int)(slash - named) + 1 : 0, named);
    else
        size = snprintf(gateway->file, sizeof gateway->file, "%s%s/%s/gateway/gateway.json",
                        root ? root : home, root ? "" : "/.simenv", named);
    return size < (int)sizeof gateway->file
               ? QPI_OK
               : qpi_fail(QPI_CONFIG, NULL, "the path of environment %.80s is too long", named);
}

/* Read a small file of this user; 0: there is none, or it is another user's. */
static int read_file(const char *path, char *to)
{
    struct stat found;
    size_t used = 0;
    ssize_t more = 1;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return 0;
    int is_own = !fstat(file, &found) && found.st_uid == geteuid() && S_ISREG(found.st_mode);
    while (is_own && used < FILE_BYTES && more > 0)
        if ((more = read(file, to + used, FILE_BYTES - used)) > 0)
            used += (size_t)more;
    close(file);
    to[used] = 0;
    return is_own && more == 0;
}

/* The URLs of the gateway's file must be of the one that is asked for, if one is. */
static int is_of_url(const char *json, const char *url)
{
    char found[PATH_BYTES];
    if (!*url)
        return 1;
    if (qpi_json_text(qpi_json_member(json, "url"), found, sizeof found) > 1
        && !strcmp(found, url))
        return 1;
    return qpi_json_text(qpi_json_member(json, "public_url"), found, sizeof found) > 1
           && !strcmp(found, url);
}

int qpi_gateway_refresh(Gateway *gateway)
{
    char json[FILE_BYTES + 1], path[sizeof gateway->socket];
    if (!*gateway->file)
        return QPI_OK;
    if (!read_file(gateway->file, json) || !qpi_json_check(json)
        || qpi_json_number(qpi_json_member(json, "format")) != FORMAT)
        return qpi_fail(QPI_NO_SERVICE, START, "no gateway runs for %s: there is no %s",
                        gateway->environment, gateway->file);
    if (qpi_json_text(qpi_json_member(json, "socket"), path, sizeof path) > 1
        && is_of_url(json, gateway->url))
        memcpy(gateway->socket, path, sizeof path);
    double pid = qpi_json_number(qpi_json_member(json, "pid"));
    if (pid > 1.0 && pid < 1e9 && kill((pid_t)pid, 0) && errno == ESRCH)
        return qpi_fail(QPI_NO_SERVICE, START, "no gateway runs for %s: process %.0f has ended",
                        gateway->environment, pid);
    return QPI_OK;
}

/* Can nobody but this user and root put something else at a path without links? A folder above it
 * with the sticky bit may be writable; what is above a folder of root is root's to keep. */
static int is_private(const char *path)
{
    char part[PATH_BYTES];
    struct stat found;
    size_t size = strlen(path);
    for (size_t end = size; end > 0; end--) {
        if (end < size && path[end] != '/')
            continue;
        memcpy(part, path, end);
        part[end] = 0;
        if (lstat(part, &found) || !S_ISDIR(found.st_mode)
            || (found.st_uid != geteuid() && (end == size || found.st_uid != 0))
            || ((found.st_mode & 022) && (end == size || !(found.st_mode & S_ISVTX))))
            return 0;
        if (end < size && found.st_uid == 0)
            break;
    }
    return 1;
}

int qpi_gateway_socket(const Gateway *gateway, char socket[PATH_BYTES])
{
    char folder[PATH_BYTES], real[PATH_MAX];
    const char *slash = strrchr(gateway->socket, '/');
    size_t size = slash ? (size_t)(slash - gateway->socket) : 0;
    memcpy(folder, gateway->socket, size);
    folder[size] = 0;
    *socket = 0;
    if (!realpath(folder, real) || strlen(real) + strlen(slash) >= PATH_BYTES)
        return qpi_fail(QPI_NO_SERVICE, START, "there is no %.200s", gateway->socket);
    memcpy(socket, real, strlen(real));
    strcpy(socket + strlen(real), slash);
    return is_private(real) ? QPI_OK
                            : qpi_fail(QPI_CONFIG, "simenv down; then simenv up, which avoids it",
                                       "others can write the folder of %.200s", socket);
}

static int copy_text(const char *what, const char *from, char *to, size_t capacity)
{
    for (const char *at = from; *at; at++)
        if (*at <= ' ' || *at > '~')
            return qpi_fail(QPI_CONFIG, NULL, "%s has a character that it cannot have", what);
    if (strlen(from) >= capacity)
        return qpi_fail(QPI_CONFIG, NULL, "%s is too long", what);
    strcpy(to, from);
    return QPI_OK;
}

/* Scheme, host and port, as simenv.config.model.check_web_url has them. */
static int is_web_url(const char *url)
{
    if (strncmp(url, "http://", 7) && strncmp(url, "https://", 8))
        return 0;
    const char *host = strstr(url, "://") + 3, *end = host + strcspn(host, "/?#@\\");
    return end > host && *host != ':' && (!*end || !strcmp(end, "/"));
}

static int is_loopback(const char *url)
{
    const char *host = strstr(url, "://") + 3;
    size_t size = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
    return (size == 9 && !strncasecmp(host, "localhost", size))
           || (size == 5 && !strncmp(host, "[::1]", size))
           || (!strncmp(host, "127.", 4) && strspn(host, "0123456789.") == size);
}

static int set_url(const char *url, Gateway *gateway)
{
    if (!is_web_url(url))
        return qpi_fail(QPI_CONFIG, "http://HOST:PORT or https://HOST:PORT", "the URL is '%.200s'",
                        url);
    TRY(copy_text("the URL", url, gateway->url, sizeof gateway->url));
    size_t end = strlen(gateway->url);
    if (gateway->url[end - 1] == '/')
        gateway->url[end - 1] = 0;
    gateway->is_loopback = is_loopback(gateway->url);
    const char *authority = qpi_variable("CURL_CA_BUNDLE");
    if (!authority)
        authority = qpi_variable("SSL_CERT_FILE");
    if (authority && strlen(authority) < sizeof gateway->authority)
        strcpy(gateway->authority, authority);
    return QPI_OK;
}

int qpi_gateway_find(const qpi_config *config, Gateway *gateway)
{
    const char *token = config->token ? config->token : qpi_variable("SIMENV_TOKEN");
    const char *url = config->url ? config->url : NULL;
    const char *named = config->environment;
    if (named && !is_name(named))
        return qpi_fail(QPI_CONFIG, "a-z, then up to 63 of a-z 0-9 _ . -",
                        "environment is '%.80s'", named);
    if (!url && !named)
        url = qpi_variable("SIMENV_URL");
    if (!named)
        named = qpi_variable("SIMENV_SERVICE");
    if (url)
        TRY(set_url(url, gateway));
    if (!url && named && (!strncmp(named, "local:", 6) || !strncmp(named, "munge:", 6)))
        return qpi_fail(QPI_CONFIG, "set SIMENV_URL and SIMENV_TOKEN, of its gateway",
                        "SIMENV_SERVICE is '%.200s', which this library does not speak", named);
    if (!config->url) {
        int is_path = named && !config->environment
                      && (!is_name(named) || strchr(named, '.') || !access(named, F_OK));
        int status = find_file(named ? named : "default", is_path, gateway);
        if (status == QPI_OK)
            status = qpi_gateway_refresh(gateway);
        if (url && !*gateway->socket)
            gateway->file[0] = 0; /* it is another environment's */
        else
            TRY(status);
    }
    if (!token)
        return qpi_fail(QPI_CONFIG, TOKEN, "there is no token: SIMENV_TOKEN is not set");
    return copy_text("the token", token, gateway->token, sizeof gateway->token);
}

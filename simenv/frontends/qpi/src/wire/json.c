/* Connection files and key files: JSON objects of text, numbers and one level of objects. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

enum { MAX_DEPTH = 16 };

static const char *space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
        at++;
    return at;
}

/* Behind the string that begins at `at`; NULL if it does not end. */
static const char *past_string(const char *at)
{
    if (*at != '"')
        return NULL;
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && !*++at)
            return NULL;
    return *at == '"' ? at + 1 : NULL;
}

static const char *past_value(const char *at, int depth);

/* Behind the object or list that begins at `at`. */
static const char *past_nested(const char *at, int depth)
{
    char closing = *at == '{' ? '}' : ']';
    if (depth > MAX_DEPTH)
        return NULL;
    at = space(at + 1);
    if (*at == closing)
        return at + 1;
    for (;;) {
        if (closing == '}') {
            at = past_string(at);
            if (!at || *(at = space(at)) != ':')
                return NULL;
            at = space(at + 1);
        }
        at = past_value(at, depth + 1);
        if (!at)
            return NULL;
        at = space(at);
        if (*at == closing)
            return at + 1;
        if (*at != ',')
            return NULL;
        at = space(at + 1);
    }
}

static const char *past_value(const char *at, int depth)
{
    if (*at == '"')
        return past_string(at);
    if (*at == '{' || *at == '[')
        return past_nested(at, depth);
    const char *start = at;
    while (isalnum((unsigned char)*at) || *at == '-' || *at == '+' || *at == '.')
        at++;
    return at == start ? NULL : at;
}

int qpi_json_check(const char *json)
{
    const char *end;
    json = space(json);
    end = *json == '{' ? past_value(json, 0) : NULL;
    return end && !*space(end);
}

/* Decode the string at `at`. Escapes of characters beyond ASCII, which none of these files needs,
 * are refused. */
static int copy_string(const char *at, char *to, size_t capacity)
{
    static const char NAMED[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    size_t used = 0;
    for (at++; *at != '"'; at++) {
        char value = *at;
        if (value == '\\') {
            const char *found = NULL;
            value = *++at;
            for (const char *pair = NAMED; *pair && !found; pair += 2)
                if (*pair == value)
                    found = pair;
            if (!found)
                return 0;
            value = found[1];
        }
        if (used + 1 >= capacity)
            return 0;
        to[used++] = value;
    }
    to[used] = 0;
    return 1;
}

static int copy_value(const char *at, char *to, size_t capacity)
{
    if (*at == '"')
        return copy_string(at, to, capacity);
    const char *end = past_value(at, 0);
    size_t length = (size_t)(end - at);
    if (*at == '{' || *at == '[' || *at == 'n' || length >= capacity)
        return 0;
    memcpy(to, at, length);
    to[length] = 0;
    return 1;
}

/* The value of a key in the object at `json`; NULL if it has none. */
static const char *member(const char *json, const char *key)
{
    size_t length = strlen(key);
    const char *at = space(space(json) + 1);
    while (*at == '"') {
        const char *name = at + 1, *end = past_string(at);
        at = space(space(end) + 1);
        if ((size_t)(end - 1 - name) == length && !memcmp(name, key, length))
            return at;
        at = space(past_value(at, 0));
        if (*at != ',')
            return NULL;
        at = space(at + 1);
    }
    return NULL;
}

int qpi_json_get(const char *json, const char *inside, const char *key, char *to, size_t capacity)
{
    const char *found = json;
    to[0] = 0;
    if (inside) {
        found = member(json, inside);
        if (!found || *found != '{')
            return 0;
    }
    found = member(found, key);
    return found && copy_value(found, to, capacity);
}

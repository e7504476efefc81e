/* A reader of JSON, RFC 8259, inside the text that was received.
 *
 * Invariant: a text is checked as a whole first, to a bounded depth; from then on pointers into it
 * are followed without a copy, and end before its zero. */
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_DEPTH = 32 };

static const char *space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
        at++;
    return at;
}

static int hex(const char *at, unsigned *value)
{
    *value = 0;
    for (int digit = 0; digit < 4; digit++, at++) {
        const char *found = *at ? strchr("0123456789abcdef0123456789ABCDEF", *at) : NULL;
        if (!found)
            return 0;
        *value = *value << 4 | ((unsigned)(found - "0123456789abcdef0123456789ABCDEF") & 15);
    }
    return 1;
}

/* --- check: behind a valid value, else NULL -------------------------------------------------- */

static const char *past_string(const char *at)
{
    unsigned unit;
    for (at++; *at != '"'; at++) {
        if ((unsigned char)*at < ' ')
            return NULL;
        if (*at != '\\')
            continue;
        if (*++at == 'u' ? !hex(at + 1, &unit) : !*at || !strchr("\"\\/bfnrt", *at))
            return NULL;
    }
    return at + 1;
}

static const char *past_digits(const char *at)
{
    const char *end = at + strspn(at, "0123456789");
    return end == at ? NULL : end;
}

static const char *past_number(const char *at)
{
    at += *at == '-';
    at = *at == '0' ? at + 1 : past_digits(at);
    if (at && *at == '.')
        at = past_digits(at + 1);
    if (at && (*at == 'e' || *at == 'E'))
        at = past_digits(at + 1 + (at[1] == '-' || at[1] == '+'));
    return at;
}

static const char *past_value(const char *at, int depth);

static const char *past_items(const char *at, int depth)
{
    char closing = *at == '{' ? '}' : ']';
    at = space(at + 1);
    if (*at == closing)
        return at + 1;
    for (;; at = space(at + 1)) {
        if (closing == '}') {
            at = *at == '"' ? past_string(at) : NULL;
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
    }
}

static const char *past_value(const char *at, int depth)
{
    static const char *const WORDS[] = {"null", "true", "false"};
    if (*at == '"')
        return past_string(at);
    if (*at == '{' || *at == '[')
        return depth < MAX_DEPTH ? past_items(at, depth) : NULL;
    for (int word = 0; word < 3; word++)
        if (!strncmp(at, WORDS[word], strlen(WORDS[word])))
            return at + strlen(WORDS[word]);
    return past_number(at);
}

int qpi_json_check(const char *text)
{
    const char *end = past_value(space(text), 0);
    return end && !*space(end);
}

/* --- values ---------------------------------------------------------------------------------- */

const char *qpi_json_first(const char *value)
{
    value = value ? space(value) : "";
    if (*value != '{' && *value != '[')
        return NULL;
    value = space(value + 1);
    return *value == '}' || *value == ']' ? NULL : value;
}

const char *qpi_json_value(const char *key)
{
    return space(space(past_string(key)) + 1);
}

const char *qpi_json_next(const char *item)
{
    const char *end = space(past_value(item, 0));
    if (*end == ':')
        end = space(past_value(space(end + 1), 0));
    return *end == ',' ? space(end + 1) : NULL;
}

const char *qpi_json_member(const char *value, const char *key)
{
    size_t length = strlen(key);
    if (!value || *(value = space(value)) != '{')
        return NULL;
    for (const char *at = qpi_json_first(value); at; at = qpi_json_next(at))
        if (!strncmp(at + 1, key, length) && at[1 + length] == '"')
            return qpi_json_value(at);
    return NULL;
}

/* One character behind a backslash, whose code point it gives; returns what follows. */
static const char *escaped(const char *at, unsigned *point)
{
    static const char NAMED[] = "b\bf\fn\nr\rt\t";
    unsigned low;
    if (*at != 'u') {
        const char *found = strchr(NAMED, *at);
        *point = (unsigned char)(found ? found[1] : *at);
        return at + 1;
    }
    hex(at + 1, point);
    at += 5;
    if (*point >> 10 == 0x36 && at[0] == '\\' && at[1] == 'u' && hex(at + 2, &low)
        && low >> 10 == 0x37) {
        *point = 0x10000 + ((*point & 0x3ff) << 10 | (low & 0x3ff));
        at += 6;
    } else if (*point >> 11 == 0x1b || *point == 0)
        *point = 0xfffd; /* half a pair, or what would end the text */
    return at;
}

static size_t utf8(unsigned point, char *to)
{
    size_t more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned char HEADS[] = {0, 0xc0, 0xe0, 0xf0};
    for (size_t index = more; index > 0; index--, point >>= 6)
        to[index] = (char)(0x80 | (point & 0x3f));
    to[0] = (char)(HEADS[more] | point);
    return more + 1;
}

size_t qpi_json_text(const char *value, char *to, size_t capacity)
{
    size_t used = 0, kept = 0;
    if (capacity)
        to[0] = 0;
    if (!value || *(value = space(value)) != '"')
        return 0;
    for (value++; *value != '"';) {
        char bytes[4];
        size_t size = 1;
        bytes[0] = *value++;
        if (bytes[0] == '\\') {
            unsigned point;
            value = escaped(value, &point);
            size = utf8(point, bytes);
        } else
            while ((*value & 0xc0) == 0x80 && size < 4)
                bytes[size++] = *value++;
        if (kept == used && used + size < capacity) {
            memcpy(to + used, bytes, size);
            kept += size;
        }
        used += size;
    }
    if (capacity)
        to[kept] = 0;
    return used + 1;
}

static locale_t plain;
static pthread_once_t plain_made = PTHREAD_ONCE_INIT;

static void make_plain(void)
{
    plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

double qpi_json_number(const char *value)
{
    if (!value || !strchr("-0123456789", *(value = space(value))) || !*value)
        return NAN;
    pthread_once(&plain_made, make_plain);
    return plain ? strtod_l(value, NULL, plain) : strtod(value, NULL);
}

/* msgpack: the values that the protocol uses, written and read.
 * Source: https://github.com/msgpack/msgpack/blob/master/spec.md */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* --- writing -------------------------------------------------------------------------------- */

static void put_head(Buffer *to, uint8_t kind, uint64_t value, int bytes)
{
    uint8_t head[9] = {kind};
    for (int index = 0; index < bytes; index++)
        head[1 + index] = (uint8_t)(value >> 8 * (bytes - 1 - index));
    qpi_buffer_add(to, head, 1 + (size_t)bytes);
}

void qpi_put_array(Buffer *to, size_t count)
{
    if (count < 16)
        put_head(to, (uint8_t)(0x90 | count), 0, 0);
    else if (count < 65536)
        put_head(to, 0xdc, count, 2);
    else
        put_head(to, 0xdd, count, 4);
}

void qpi_put_uint(Buffer *to, uint64_t value)
{
    if (value < 128)
        put_head(to, (uint8_t)value, 0, 0);
    else if (value < 256)
        put_head(to, 0xcc, value, 1);
    else if (value < 65536)
        put_head(to, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        put_head(to, 0xce, value, 4);
    else
        put_head(to, 0xcf, value, 8);
}

void qpi_put_head(Buffer *to, size_t fields, int tag, uint64_t number)
{
    qpi_put_array(to, fields);
    qpi_put_uint(to, (uint64_t)tag);
    qpi_put_uint(to, number);
}

void qpi_put_int(Buffer *to, int64_t value)
{
    if (value >= 0)
        qpi_put_uint(to, (uint64_t)value);
    else
        put_head(to, 0xd3, (uint64_t)value, 8);
}

void qpi_put_double(Buffer *to, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_head(to, 0xcb, bits, 8);
}

void qpi_put_text_n(Buffer *to, const char *text, size_t length)
{
    if (length < 32)
        put_head(to, (uint8_t)(0xa0 | length), 0, 0);
    else if (length < 256)
        put_head(to, 0xd9, length, 1);
    else if (length < 65536)
        put_head(to, 0xda, length, 2);
    else
        put_head(to, 0xdb, length, 4);
    qpi_buffer_add(to, text, length);
}

void qpi_put_nil(Buffer *to)
{
    put_head(to, 0xc0, 0, 0);
}

void qpi_put_text(Buffer *to, const char *text)
{
    qpi_put_text_n(to, text ? text : "", text ? strlen(text) : 0);
}

void qpi_put_bytes(Buffer *to, const void *data, size_t length)
{
    if (length < 256)
        put_head(to, 0xc4, length, 1);
    else if (length < 65536)
        put_head(to, 0xc5, length, 2);
    else
        put_head(to, 0xc6, length, 4);
    qpi_buffer_add(to, data, length);
}

/* --- reading -------------------------------------------------------------------------------- */

Reader qpi_reader(const uint8_t *data, size_t size)
{
    return (Reader){data, data ? data + size : data, 0};
}

static size_t left(const Reader *from)
{
    return (size_t)(from->end - from->at);
}

static uint8_t peek(const Reader *from)
{
    return from->bad || from->at == from->end ? 0xc1 : *from->at; /* 0xc1: no value begins so */
}

/* The next `bytes` as an unsigned number, big-endian. */
static uint64_t take(Reader *from, size_t bytes)
{
    uint64_t value = 0;
    if (from->bad || left(from) < bytes) {
        from->bad = 1;
        return 0;
    }
    for (size_t index = 0; index < bytes; index++)
        value = value << 8 | *from->at++;
    return value;
}

static uint64_t wrong(Reader *from)
{
    from->bad = 1;
    return 0;
}

/* A length, which cannot be more than there are bytes left. */
static size_t bounded(Reader *from, uint64_t length)
{
    if (from->bad || length > left(from))
        return (size_t)wrong(from);
    return (size_t)length;
}

/* A number of values: in the head, or in the 2 or 4 bytes behind the head `wide` or `wide` + 1. */
static size_t get_count(Reader *from, uint8_t fixed, uint8_t wide)
{
    uint8_t head = peek(from);
    take(from, 1);
    if ((head & 0xf0) == fixed)
        return bounded(from, head & 0x0f);
    if (head == wide || head == wide + 1)
        return bounded(from, take(from, head == wide ? 2 : 4));
    return (size_t)wrong(from);
}

size_t qpi_get_array(Reader *from)
{
    return get_count(from, 0x90, 0xdc);
}

size_t qpi_get_map(Reader *from)
{
    return get_count(from, 0x80, 0xde);
}

uint64_t qpi_get_uint(Reader *from)
{
    int64_t value;
    uint8_t head = peek(from);
    if (head == 0xcf) {
        take(from, 1);
        return take(from, 8);
    }
    value = qpi_get_int(from);
    return value < 0 ? wrong(from) : (uint64_t)value;
}

int64_t qpi_get_int(Reader *from)
{
    uint8_t head = peek(from);
    take(from, 1);
    if (head < 0x80)
        return head;
    if (head >= 0xe0)
        return (int8_t)head;
    switch (head) {
    case 0xcc: return (int64_t)take(from, 1);
    case 0xcd: return (int64_t)take(from, 2);
    case 0xce: return (int64_t)take(from, 4);
    case 0xcf: {
        uint64_t value = take(from, 8);
        return value > INT64_MAX ? (int64_t)wrong(from) : (int64_t)value;
    }
    case 0xd0: return (int8_t)take(from, 1);
    case 0xd1: return (int16_t)take(from, 2);
    case 0xd2: return (int32_t)take(from, 4);
    case 0xd3: return (int64_t)take(from, 8);
    default: return (int64_t)wrong(from);
    }
}

double qpi_get_double(Reader *from)
{
    uint8_t head = peek(from);
    if (head == 0xcb) {
        double value;
        take(from, 1);
        uint64_t bits = take(from, 8);
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    if (head == 0xca) {
        float value;
        take(from, 1);
        uint32_t bits = (uint32_t)take(from, 4);
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    return (double)qpi_get_int(from);
}

int qpi_get_bool(Reader *from)
{
    uint8_t head = peek(from);
    take(from, 1);
    if (head != 0xc2 && head != 0xc3)
        wrong(from);
    return head == 0xc3;
}

static Slice taken(Reader *from, uint64_t length)
{
    Slice slice = {from->at, bounded(from, length)};
    from->at += slice.size;
    return slice;
}

/* Text or bytes whose length is in the 1, 2 or 4 bytes behind the head `first`, + 1 or + 2. */
static Slice get_sized(Reader *from, uint8_t head, uint8_t first)
{
    if (head >= first && head <= first + 2)
        return taken(from, take(from, (size_t)1 << (head - first)));
    wrong(from);
    return (Slice){NULL, 0};
}

Slice qpi_get_text(Reader *from)
{
    uint8_t head = peek(from);
    take(from, 1);
    return (head & 0xe0) == 0xa0 ? taken(from, head & 0x1f) : get_sized(from, head, 0xd9);
}

Slice qpi_get_bytes(Reader *from)
{
    uint8_t head = peek(from);
    take(from, 1);
    return get_sized(from, head, 0xc4);
}

int qpi_skip_nil(Reader *from)
{
    if (peek(from) != 0xc0)
        return 0;
    take(from, 1);
    return 1;
}

/* Pass values of any type. Nested ones are counted, not called for: no stack is used. */
void qpi_skip(Reader *from, size_t values)
{
    static const uint8_t EXT[] = {1, 2, 4, 8, 16};
    uint64_t open = values;
    while (open > 0 && !from->bad) {
        uint8_t head = peek(from);
        open--;
        if ((head & 0xf0) == 0x90 || head == 0xdc || head == 0xdd)
            open += qpi_get_array(from);
        else if ((head & 0xf0) == 0x80 || head == 0xde || head == 0xdf)
            open += 2 * (uint64_t)qpi_get_map(from);
        else if ((head & 0xe0) == 0xa0 || (head >= 0xd9 && head <= 0xdb))
            qpi_get_text(from);
        else if (head >= 0xc4 && head <= 0xc6)
            qpi_get_bytes(from);
        else if (head == 0xca || head == 0xcb)
            qpi_get_double(from);
        else if (head == 0xc0 || head == 0xc2 || head == 0xc3)
            take(from, 1);
        else if (head >= 0xd4 && head <= 0xd8) {
            take(from, 2);
            taken(from, EXT[head - 0xd4]);
        } else if (head >= 0xc7 && head <= 0xc9) {
            take(from, 1);
            uint64_t length = take(from, (size_t)1 << (head - 0xc7));
            take(from, 1);
            taken(from, length);
        } else if (head == 0xcf) {
            take(from, 1);
            take(from, 8);
        } else
            qpi_get_int(from);
    }
}

int qpi_slice_is(Slice slice, const char *text)
{
    return slice.data && slice.size == strlen(text) && !memcmp(slice.data, text, slice.size);
}

char *qpi_slice_copy(Slice slice)
{
    char *copy = malloc(slice.size + 1);
    if (!copy)
        return NULL;
    if (slice.size)
        memcpy(copy, slice.data, slice.size);
    copy[slice.size] = 0;
    for (size_t index = 0; index < slice.size; index++)
        if ((uint8_t)copy[index] < 32 && copy[index] != '\n')
            copy[index] = '?';
    return copy;
}

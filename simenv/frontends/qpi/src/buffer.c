/* Growing buffers, what is written to them, and the checksum of arrays. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

void qpi_buffer_free(Buffer *buffer)
{
    free(buffer->data);
    *buffer = (Buffer){0};
}

void *qpi_buffer_reserve(Buffer *buffer, size_t bytes)
{
    if (buffer->failed)
        return NULL;
    if (bytes > buffer->capacity - buffer->used) {
        size_t capacity = buffer->capacity ? buffer->capacity : 64;
        while (capacity - buffer->used < bytes && capacity <= SIZE_MAX / 2)
            capacity *= 2;
        char *grown = capacity - buffer->used < bytes ? NULL : realloc(buffer->data, capacity);
        if (!grown) {
            buffer->failed = 1;
            return NULL;
        }
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    void *place = buffer->data + buffer->used;
    buffer->used += bytes;
    return place;
}

void qpi_buffer_add(Buffer *buffer, const void *data, size_t bytes)
{
    void *place = bytes ? qpi_buffer_reserve(buffer, bytes) : NULL;
    if (place)
        memcpy(place, data, bytes);
}

void qpi_put(Buffer *buffer, const char *text)
{
    qpi_buffer_add(buffer, text, strlen(text));
}

void qpi_put_int(Buffer *buffer, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    qpi_put(buffer, text);
}

void qpi_put_double(Buffer *buffer, double value)
{
    char text[64];
    const char *point = localeconv()->decimal_point;
    snprintf(text, sizeof text, "%.17g", value);
    char *found = strcmp(point, ".") ? strstr(text, point) : NULL;
    if (found) {
        *found = '.';
        memmove(found + 1, found + strlen(point), strlen(found + strlen(point)) + 1);
    }
    qpi_put(buffer, text);
}

void qpi_put_string(Buffer *buffer, const char *text)
{
    qpi_put(buffer, "\"");
    while (*text) {
        size_t plain = 0;
        while ((unsigned char)text[plain] >= ' ' && text[plain] != '"' && text[plain] != '\\')
            plain++;
        qpi_buffer_add(buffer, text, plain);
        text += plain;
        if (*text) {
            char escaped[8];
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)(unsigned char)*text++);
            qpi_put(buffer, escaped);
        }
    }
    qpi_put(buffer, "\"");
}

/* CRC-32 as of zlib: polynomial 0xedb88320, reflected. */
uint32_t qpi_crc32(const void *data, size_t bytes)
{
    static const uint32_t NIBBLES[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffffu;
    for (size_t index = 0; index < bytes; index++) {
        crc ^= ((const uint8_t *)data)[index];
        crc = crc >> 4 ^ NIBBLES[crc & 15];
        crc = crc >> 4 ^ NIBBLES[crc & 15];
    }
    return ~crc;
}

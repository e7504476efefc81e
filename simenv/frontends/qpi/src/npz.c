/* Arrays of numpy in a zip file, as numpy.savez writes it: without compression.
 *
 * Zip: APPNOTE.TXT 6.3 of PKWARE, with the 64-bit records; .npy: numpy.lib.format. Invariant: every
 * length is checked against the bytes that are there before one of them is read. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { END_BYTES = 22, LOCATOR_BYTES = 20, END64_BYTES = 56, ENTRY_BYTES = 46, LOCAL_BYTES = 30,
       MAX_ENTRIES = 1000, MAX_HEADER = 4096 };

typedef struct Entry {
    uint64_t size, offset; /* offset: of the local header */
    uint32_t crc;
} Entry;

static uint64_t number(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | at[bytes];
    return value;
}

static int is_signed(const uint8_t *at, uint32_t signature)
{
    return number(at, 4) == signature;
}

static int fail_file(const char *what)
{
    return qpi_fail(QPI_PROTOCOL, "use one version of simenv on both sides",
                    "a result cannot be read: %s", what);
}

/* Where the directory begins, and its entries. */
static int find_directory(const uint8_t *file, size_t size, uint64_t *start, uint64_t *entries)
{
    const uint8_t *end = file + size - END_BYTES;
    if (size < END_BYTES || !is_signed(end, 0x06054b50))
        return 0;
    *entries = number(end + 10, 2);
    *start = number(end + 16, 4);
    if (*entries != 0xffff && *start != 0xffffffff)
        return 1;
    const uint8_t *locator = end - LOCATOR_BYTES;
    if (size < END_BYTES + LOCATOR_BYTES || !is_signed(locator, 0x07064b50))
        return 0;
    uint64_t at = number(locator + 8, 8);
    if (at > size || size - at < END64_BYTES || !is_signed(file + at, 0x06064b50))
        return 0;
    *entries = number(file + at + 32, 8);
    *start = number(file + at + 48, 8);
    return 1;
}

/* The 64-bit fields of an entry, which stand in for those that are all ones, in this order. */
static int read_extra(const uint8_t *at, size_t size, const uint8_t *fixed, Entry *entry)
{
    uint64_t *fields[] = {&entry->size, NULL, &entry->offset}, ignored;
    static const int PLACES[] = {24, 20, 42};
    for (size_t length; size >= 4; at += 4 + length, size -= 4 + length) {
        length = number(at + 2, 2);
        if (length > size - 4)
            return 0;
        size_t used = 0;
        for (int field = 0; number(at, 2) == 1 && field < 3; field++) {
            if (number(fixed + PLACES[field], 4) != 0xffffffff)
                continue;
            if (length - used < 8)
                return 0;
            *(fields[field] ? fields[field] : &ignored) = number(at + 4 + used, 8);
            used += 8;
        }
    }
    return 1;
}

/* 1: found; 0: there is none; -1: the directory cannot be read. */
static int find_entry(const uint8_t *file, size_t size, const char *name, Entry *entry)
{
    uint64_t at, entries;
    size_t wanted = strlen(name);
    if (!find_directory(file, size, &at, &entries) || entries > MAX_ENTRIES)
        return -1;
    for (; entries > 0; entries--) {
        const uint8_t *fixed = file + at;
        if (at > size || size - at < ENTRY_BYTES || !is_signed(fixed, 0x02014b50))
            return -1;
        size_t length = number(fixed + 28, 2), extra = number(fixed + 30, 2);
        size_t more = length + extra + number(fixed + 32, 2);
        if (size - at - ENTRY_BYTES < more)
            return -1;
        const uint8_t *text = fixed + ENTRY_BYTES;
        at += ENTRY_BYTES + more;
        if (length != wanted + 4 || memcmp(text, name, wanted) || memcmp(text + wanted, ".npy", 4))
            continue;
        entry->crc = (uint32_t)number(fixed + 16, 4);
        entry->size = number(fixed + 24, 4);
        entry->offset = number(fixed + 42, 4);
        return number(fixed + 10, 2) == 0 && read_extra(text + length, extra, fixed, entry) ? 1
                                                                                            : -1;
    }
    return 0;
}

/* The header of a .npy file, such as {'descr': '<c16', 'fortran_order': False, 'shape': (8,), } */
static int read_header(const char *header, size_t bytes, Array *array)
{
    const char *type = strstr(header, "'descr': '"), *shape = strstr(header, "'shape': (");
    if (!type || !shape || !strstr(header, "'fortran_order': False"))
        return 0;
    type += strlen("'descr': '");
    shape += strlen("'shape': (");
    if (!strchr("<|", *type) || !strchr("fcuU", type[1]) || !type[1])
        return 0;
    array->kind = type[1];
    array->item_bytes = strtoul(type + 2, NULL, 10);
    if (array->item_bytes < 1 || array->item_bytes > (1u << 28))
        return 0;
    array->item_bytes *= array->kind == 'U' ? 4 : 1;
    array->items = array->rows = 1;
    for (int axis = 0; *shape >= '0' && *shape <= '9'; axis++) {
        char *end;
        size_t length = strtoul(shape, &end, 10);
        if (length && array->items > SIZE_MAX / 2 / length)
            return 0;
        array->items *= length;
        if (axis == 0)
            array->rows = length;
        shape = end + strspn(end, ", ");
    }
    return *shape == ')' && array->items <= bytes / array->item_bytes
           && array->items * array->item_bytes == bytes;
}

int qpi_npz_find(const uint8_t *file, size_t size, const char *name, Array *array)
{
    char header[MAX_HEADER + 1];
    Entry entry = {0};
    int found = find_entry(file, size, name, &entry);
    if (!found)
        return qpi_fail(QPI_NO_DATA, "name it in qpi_options.outputs", "the result has no %s",
                        name);
    if (found < 0 || entry.offset > size || size - entry.offset < LOCAL_BYTES
        || !is_signed(file + entry.offset, 0x04034b50))
        return fail_file("it is no file of numpy");
    const uint8_t *local = file + entry.offset;
    uint64_t before = LOCAL_BYTES + number(local + 26, 2) + number(local + 28, 2);
    if (size - entry.offset < before || entry.size > size - entry.offset - before)
        return fail_file("an array ends beyond the file");
    const uint8_t *data = local + before;
    if (entry.size < 12 || memcmp(data, "\x93NUMPY", 6) || data[6] < 1 || data[6] > 2)
        return fail_file("an array has another format");
    size_t begin = data[6] == 1 ? 10 : 12, length = number(data + 8, data[6] == 1 ? 2 : 4);
    if (length > MAX_HEADER || entry.size - begin < length)
        return fail_file("an array has too long a header");
    memcpy(header, data + begin, length);
    header[length] = 0;
    if (!read_header(header, entry.size - begin - length, array))
        return fail_file("an array is of another kind");
    array->data = data + begin + length;
    return qpi_crc32(data, entry.size) == entry.crc
               ? QPI_OK
               : qpi_fail(QPI_RESULT_STORE, "read it again; or submit it again with its seed",
                          "%s has a wrong checksum", name);
}

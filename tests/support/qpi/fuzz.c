/* Feed mutated answers of a gateway, and mutated programs, to the readers of the library.
 *
 * fuzz FILE TURNS: the file holds documents, each behind its kind and its length in 4 bytes,
 * little-endian: t, s an accepted task or sweep of ROWS rows; r, p a result or a page of them, as JSON;
 * z a result as a file of numpy; e a problem document; q OpenQASM.
 * Prints how many rows were read and how many documents were refused, so that a run in which none is
 * gets seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_DOCUMENTS = 64, ROWS = 2 };

static uint64_t state = 88172645463325252u;
static long results, refused;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

/* A copy of its own size with a zero behind it, so that a read beyond it is seen; some bytes changed,
 * cut off or repeated. */
static char *mutated(const char *data, size_t *size)
{
    static const char SIGNS[] = "{}[]\",:\\-.0e9nu; \x80\xff";
    char *copy = malloc(2 * *size + 1);
    memcpy(copy, data, *size);
    if (draw(8) == 0)
        *size = draw(*size + 1);
    for (uint64_t edits = draw(4); edits > 0 && *size > 0; edits--) {
        size_t at = draw(*size), run = draw(*size - at) + 1;
        switch (draw(6)) {
        case 0: copy[at] = (char)draw(256); break;
        case 1: copy[at] ^= (char)(1u << draw(8)); break;
        case 2: copy[at] = SIGNS[draw(sizeof SIGNS - 1)]; break;
        case 3: copy[at] = copy[draw(*size)]; break;
        case 4:
            memmove(copy + at, copy + at + run, *size - at - run);
            *size -= run;
            break;
        default:
            if (edits > 1)
                break;
            memmove(copy + at + run, copy + at, *size - at);
            *size += run;
            edits = 1;
        }
    }
    char *exact = malloc(*size + 1);
    memcpy(exact, copy, *size);
    exact[*size] = 0;
    free(copy);
    return exact;
}

/* Make the checksums of a mutated zip file those of its entries, so that what they hold is read. */
static void mend_checksums(char *file, size_t size)
{
    for (size_t at = 0; at + 46 <= size; at++) {
        uint32_t length, offset, checksum;
        uint16_t name, extra;
        if (memcmp(file + at, "PK\1\2", 4))
            continue;
        memcpy(&length, file + at + 24, 4);
        memcpy(&offset, file + at + 42, 4);
        if (offset > size || size - offset < 30)
            continue;
        memcpy(&name, file + offset + 26, 2);
        memcpy(&extra, file + offset + 28, 2);
        size_t begin = (size_t)offset + 30 + name + extra;
        if (begin > size || size - begin < length)
            continue;
        checksum = qpi_crc32(file + begin, length);
        memcpy(file + at + 16, &checksum, 4);
    }
}

static void read_rows(qpi_job *job)
{
    for (size_t row = 0; row < job->rows + 1; row++) {
        char bits[256];
        uint64_t count;
        double value, error, amplitudes[64];
        size_t size = 0;
        results += qpi_row_status(job, row) == QPI_OK && job->loaded[row];
        for (size_t index = 0; qpi_counts_size(job, row, &size) == QPI_OK && index <= size
                               && index < 8; index++)
            qpi_counts_entry(job, row, index, bits, draw(sizeof bits), &count);
        for (size_t index = 0; qpi_probabilities_size(job, row, &size) == QPI_OK && index <= size
                               && index < 8; index++)
            qpi_probabilities_entry(job, row, index, bits, sizeof bits, &value);
        qpi_expectation(job, row, draw(3), &value, &error);
        qpi_statevector(job, row, amplitudes, 32);
        for (size_t index = 0; qpi_warnings_size(job, row, &size) == QPI_OK && index <= size
                               && index < 8; index++)
            qpi_warning(job, row, index, bits, draw(sizeof bits));
        qpi_task_id(job, row, bits, draw(sizeof bits));
    }
}

static qpi_job *make_job(int is_sweep)
{
    qpi_job *job = calloc(1, sizeof *job);
    job->rows = is_sweep ? ROWS : 1;
    job->is_sweep = is_sweep;
    job->page = 1 + draw(ROWS);
    job->loaded = calloc(job->rows, sizeof *job->loaded);
    job->shared = calloc(1, sizeof *job->shared);
    pthread_mutex_init(&job->shared->lock, NULL);
    job->shared->users = 1;
    return job;
}

/* An accepted job whose part has ended with this answer. */
static int end_with(qpi_job *job, const Answer *answer, int kind)
{
    size_t here = 0;
    job->num_parts = 1;
    job->parts = calloc(1, sizeof *job->parts);
    job->parts[0] = (Part){.id = "t-1", .rows = job->rows, .has_ended = 1, .by_row = kind == 'z'};
    job->ended_rows = job->rows;
    if (kind != 'z' && !qpi_json_check(answer->body.data))
        return QPI_PROTOCOL;
    return qpi_job_take(job, &job->parts[0], answer, &here);
}

static void read_program(const char *text)
{
    qpi_circuit *circuit;
    if (qpi_circuit_from_qasm(text, &circuit) != QPI_OK) {
        refused++;
        return;
    }
    for (size_t index = 0; index <= qpi_circuit_parameters(circuit); index++)
        qpi_circuit_parameter(circuit, index);
    qpi_circuit_free(circuit);
}

static void read_document(int kind, char *text, size_t size)
{
    Answer answer = {.code = draw(2) ? 200 : 201, .body = {text, size, size + 1, 0}};
    if (kind == 'q') {
        read_program(text);
        return;
    }
    if (kind == 'e') {
        refused += qpi_json_check(text) && qpi_fail_problem(&answer) != QPI_OK;
        return;
    }
    qpi_job *job = make_job(kind == 's' || kind == 'p');
    int status = kind == 't' || kind == 's'
                     ? (qpi_json_check(text) ? qpi_job_accept(job, &answer) : QPI_PROTOCOL)
                     : end_with(job, &answer, kind);
    refused += status != QPI_OK;
    read_rows(job);
    qpi_job_free(job);
}

int main(int argc, char **argv)
{
    static char input[1 << 22];
    const char *documents[MAX_DOCUMENTS];
    size_t sizes[MAX_DOCUMENTS], count = 0;
    FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    size_t size = fread(input, 1, sizeof input, file);
    fclose(file);
    for (size_t at = 0; at + 5 <= size && count < MAX_DOCUMENTS; at += 5 + sizes[count++]) {
        uint32_t length;
        memcpy(&length, input + at + 1, 4);
        sizes[count] = length;
        documents[count] = input + at;
    }
    for (long turn = atol(argv[2]); turn > 0; turn--)
        for (size_t index = 0; index < count; index++) {
            size_t length = sizes[index];
            char *copy = mutated(documents[index] + 5, &length);
            if (documents[index][0] == 'z' && draw(2))
                mend_checksums(copy, length);
            read_document(documents[index][0], copy, length);
            free(copy);
        }
    printf("%ld %ld\n", results, refused);
    return 0;
}

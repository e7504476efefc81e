/* Print the program of each OpenQASM text that is given, in hexadecimal, or its error.
 *
 * stdin: texts, each with a zero behind it. With a number as argument: that many mutations of each
 * text are parsed, and nothing is printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static uint64_t state = 88172645463325252u;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static void print(const char *text)
{
    qpi_circuit *circuit;
    int status = qpi_circuit_from_qasm(text, &circuit);
    if (status != QPI_OK) {
        printf("%s %d %d %s\n", qpi_status_name(status), qpi_error_line(), qpi_error_column(),
               qpi_error_message());
        return;
    }
    for (size_t index = 0; index < circuit->packed.used; index++)
        printf("%02x", circuit->packed.data[index]);
    for (size_t index = 0; index < qpi_circuit_parameters(circuit); index++)
        printf(" %s", qpi_circuit_parameter(circuit, index));
    printf("\n");
    qpi_circuit_free(circuit);
}

/* Change, drop, repeat or insert some characters. */
static void mutate(const char *text, char *to, size_t capacity)
{
    static const char SIGNS[] = ";,()[]{}-+*/^>\"'=.0129eqcp \n\x80";
    size_t length = strlen(text);
    memcpy(to, text, length + 1);
    for (uint64_t edits = 1 + draw(4); edits > 0 && length > 2; edits--) {
        size_t at = draw(length), run = 1 + draw(8);
        run = run < length - at ? run : length - at;
        switch (draw(4)) {
        case 0: to[at] = SIGNS[draw(sizeof SIGNS - 1)]; break;
        case 1: memmove(to + at, to + at + run, length + 1 - at - run); length -= run; break;
        case 2:
            if (length + run + 1 < capacity) {
                memmove(to + at + run, to + at, length + 1 - at);
                length += run;
            }
            break;
        default: to[at] = to[draw(length)];
        }
    }
}

int main(int argc, char **argv)
{
    static char input[1 << 22], text[1 << 22];
    size_t size = fread(input, 1, sizeof input - 1, stdin);
    for (size_t at = 0; at < size; at += strlen(input + at) + 1) {
        if (argc < 2)
            print(input + at);
        for (long turn = argc < 2 ? 0 : atol(argv[1]); turn > 0; turn--) {
            qpi_circuit *circuit;
            mutate(input + at, text, sizeof text);
            if (qpi_circuit_from_qasm(text, &circuit) == QPI_OK)
                qpi_circuit_free(circuit);
        }
    }
    return 0;
}

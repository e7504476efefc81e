/* Circuits: the text of a program, and what a program needs to know of it: its declarations.
 *
 * The service parses the text. Here its tokens are read as far as statements that begin with input,
 * qubit, bit, qreg or creg go; whatever else there is, also what is no OpenQASM, is passed on. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_TEXT = 16 << 20, MAX_SIZE = 1 << 24 };

typedef struct Token {
    const char *text;
    size_t length; /* 0: the end */
} Token;

static int is(Token token, const char *text)
{
    return strlen(text) == token.length && !memcmp(token.text, text, token.length);
}

static const char *behind(const char *at, const char *mark)
{
    const char *found = strstr(at, mark);
    return found ? found + strlen(mark) : at + strlen(at);
}

/* The next name, number, string or sign. Comments, pragmas and annotations are passed over. */
static Token next(const char **from)
{
    const char *at = *from;
    for (;;) {
        if (isspace((unsigned char)*at))
            at++;
        else if (!strncmp(at, "//", 2) || *at == '#' || *at == '@')
            at = behind(at, "\n");
        else if (!strncmp(at, "/*", 2))
            at = behind(at + 2, "*/");
        else
            break;
    }
    const char *end = at;
    if (*at == '"' || *at == '\'') {
        end = strchr(at + 1, *at);
        end = end ? end + 1 : at + strlen(at);
    } else if (isalnum((unsigned char)*at) || *at == '_' || (unsigned char)*at >= 0x80)
        while (isalnum((unsigned char)*end) || *end == '_' || (unsigned char)*end >= 0x80)
            end++;
    else
        end += *at != 0;
    *from = end;
    return (Token){at, (size_t)(end - at)};
}

/* Pass over [N], if it stands there. Returns N; 0: it is computed. Without brackets 1. */
static size_t read_size(const char **at)
{
    const char *look = *at;
    unsigned long size = 0;
    int tokens = 0;
    if (!is(next(&look), "["))
        return 1;
    for (int depth = 1; depth > 0; tokens++) {
        Token token = next(&look);
        if (!token.length)
            return 0;
        depth += is(token, "[") - is(token, "]");
        if (tokens == 0 && isdigit((unsigned char)*token.text)
            && strspn(token.text, "0123456789") == token.length)
            size = strtoul(token.text, NULL, 10);
    }
    *at = look;
    return tokens == 2 && size <= MAX_SIZE ? size : 0; /* a number and the bracket */
}

static void add_bits(size_t *total, int *is_known, size_t size)
{
    *is_known &= size > 0 && *total <= MAX_SIZE;
    *total += size;
}

/* A parameter: input TYPE[SIZE] NAME; */
static void add_parameter(qpi_circuit *circuit, const char **at)
{
    next(at);
    read_size(at);
    Token name = next(at);
    if (!name.length)
        return;
    qpi_buffer_add(&circuit->names, name.text, name.length);
    qpi_buffer_add(&circuit->names, "", 1);
    circuit->num_parameters++;
}

static void scan(qpi_circuit *circuit)
{
    const char *at = circuit->text;
    int depth = 0, begins = 1, known_qubits = 1, known_clbits = 1;
    for (Token token = next(&at); token.length; token = next(&at)) {
        int is_declaration = begins && depth == 0;
        begins = is(token, ";") || is(token, "{") || is(token, "}")
                 || (is_declaration && is(token, "output"));
        depth += is(token, "{") + is(token, "(") - is(token, "}") - is(token, ")");
        circuit->measures |= is(token, "measure");
        if (!is_declaration)
            continue;
        int is_qubits = is(token, "qubit"), is_bits = is(token, "bit");
        if (is(token, "input"))
            add_parameter(circuit, &at);
        else if (is(token, "qreg") || is(token, "creg")) {
            next(&at);
            is_qubits = is(token, "qreg");
            is_bits = !is_qubits;
        }
        if (is_qubits)
            add_bits(&circuit->qubits, &known_qubits, read_size(&at));
        else if (is_bits)
            add_bits(&circuit->clbits, &known_clbits, read_size(&at));
    }
    circuit->qubits *= (size_t)known_qubits;
    circuit->clbits *= (size_t)known_clbits;
}

int qpi_circuit_from_qasm(const char *text, qpi_circuit **circuit)
{
    size_t length = strlen(text);
    *circuit = NULL;
    if (length > MAX_TEXT)
        return qpi_fail(QPI_LIMIT, "a smaller program", "the text has %zu bytes, not at most %d",
                        length, MAX_TEXT);
    if (!text[strspn(text, " \t\r\n")])
        return qpi_fail(QPI_PROGRAM, "OpenQASM 2 or 3", "the text is empty");
    qpi_circuit *made = calloc(1, sizeof *made);
    if (!made || !(made->text = strdup(text))) {
        free(made);
        return qpi_fail_memory();
    }
    scan(made);
    if (made->names.failed) {
        qpi_circuit_free(made);
        return qpi_fail_memory();
    }
    *circuit = made;
    return QPI_OK;
}

void qpi_circuit_free(qpi_circuit *circuit)
{
    if (!circuit)
        return;
    qpi_buffer_free(&circuit->names);
    free(circuit->text);
    free(circuit);
}

size_t qpi_circuit_qubits(const qpi_circuit *circuit)
{
    return circuit->qubits;
}

size_t qpi_circuit_clbits(const qpi_circuit *circuit)
{
    return circuit->clbits;
}

size_t qpi_circuit_parameters(const qpi_circuit *circuit)
{
    return circuit->num_parameters;
}

const char *qpi_circuit_parameter(const qpi_circuit *circuit, size_t index)
{
    const char *name = circuit->names.data;
    if (index >= circuit->num_parameters)
        return NULL;
    while (index-- > 0)
        name += strlen(name) + 1;
    return name;
}

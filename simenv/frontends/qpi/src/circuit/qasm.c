/* Statements of OpenQASM 2 and of the part of OpenQASM 3 that has no control flow. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_BITS = 65535, MAX_TEXT_BYTES = 16 << 20, MAX_DEFINITIONS = 1000 };

/* --- declarations --------------------------------------------------------------------------- */

static int check_new(Parser *parser, const Token *name)
{
    if (qpi_find_register(parser, name) || qpi_find_definition(parser, name)
        || qpi_gate_shape(name, parser->version, parser->included))
        return qpi_refuse(name, NULL, "this name is taken");
    for (size_t index = 0; index < parser->circuit->num_parameters; index++)
        if (qpi_token_is(name, qpi_circuit_parameter(parser->circuit, index)))
            return qpi_refuse(name, NULL, "this name is taken");
    return QPI_OK;
}

static int add_register(Parser *parser, const Token *name, int is_qubits, size_t size,
                        int is_scalar)
{
    size_t *total = is_qubits ? &parser->circuit->qubits : &parser->circuit->clbits;
    Register made = {*name, *total, size, is_qubits, is_scalar};
    uint8_t scalar = (uint8_t)is_scalar;
    TRY(check_new(parser, name));
    if (size == 0 || size > MAX_BITS - *total)
        return size ? qpi_fail(QPI_LIMIT, "split the circuit", "line %d: more than %d %s",
                               name->line, MAX_BITS, is_qubits ? "qubits" : "clbits")
                    : qpi_refuse(name, NULL, "a register without bits");
    *total += size;
    qpi_buffer_add(&parser->registers, &made, sizeof made);
    for (size_t index = 0; !is_qubits && index < size; index++)
        qpi_buffer_add(&parser->scalars, &scalar, 1);
    return parser->registers.failed || parser->scalars.failed ? qpi_fail_memory() : QPI_OK;
}

/* qreg q[3]; creg c[3]; */
static int declare_2(Parser *parser, int is_qubits)
{
    Token name;
    size_t size;
    qpi_advance(parser);
    TRY(qpi_expect_name(parser, &name));
    TRY(qpi_expect(parser, '[', "'[' was expected"));
    TRY(qpi_parse_index(parser, &size));
    TRY(qpi_expect(parser, ']', "']' was expected"));
    TRY(qpi_expect(parser, ';', "';' was expected"));
    return add_register(parser, &name, is_qubits, size, 0);
}

static int measure_to(Parser *parser, size_t first, size_t count, int is_whole);

/* qubit[3] q; bit c; bit[3] c = measure q; */
static int declare_3(Parser *parser, int is_qubits)
{
    Token name;
    size_t size = 1;
    qpi_advance(parser);
    int is_scalar = !qpi_accept(parser, '[');
    if (!is_scalar) {
        TRY(qpi_parse_index(parser, &size));
        TRY(qpi_expect(parser, ']', "']' was expected"));
    }
    TRY(qpi_expect_name(parser, &name));
    TRY(add_register(parser, &name, is_qubits, size, is_scalar));
    if (!is_qubits && qpi_accept(parser, '='))
        return measure_to(parser, parser->circuit->clbits - size, size, !is_scalar);
    return qpi_expect(parser, ';', "';' was expected");
}

/* input float[64] theta; */
static int declare_input(Parser *parser)
{
    qpi_circuit *circuit = parser->circuit;
    Token name;
    size_t bits;
    qpi_advance(parser);
    if (!qpi_token_is(&parser->token, "float") && !qpi_token_is(&parser->token, "angle"))
        return qpi_refuse(&parser->token, "input float NAME; or input angle NAME;",
                          "an input of another type than float or angle");
    qpi_advance(parser);
    if (qpi_accept(parser, '[')) {
        TRY(qpi_parse_index(parser, &bits));
        TRY(qpi_expect(parser, ']', "']' was expected"));
    }
    TRY(qpi_expect_name(parser, &name));
    TRY(check_new(parser, &name));
    TRY(qpi_expect(parser, ';', "';' was expected"));
    qpi_buffer_add(&circuit->parameter_names, name.text, name.length);
    qpi_buffer_add(&circuit->parameter_names, "", 1);
    circuit->num_parameters++;
    return circuit->parameter_names.failed ? qpi_fail_memory() : QPI_OK;
}

static int parse_formals(Parser *parser, int closing, size_t *count)
{
    Token name;
    *count = 0;
    while (parser->token.kind != closing) {
        if (*count > 0)
            TRY(qpi_expect(parser, ',', "',' was expected"));
        TRY(qpi_expect_name(parser, &name));
        qpi_buffer_add(&parser->formals, &name, sizeof name);
        ++*count;
    }
    return parser->formals.failed ? qpi_fail_memory() : QPI_OK;
}

/* The body, read once without adding anything: an error in it is told where it stands. */
static int check_body(Parser *parser, const Definition *definition)
{
    Expression *values = calloc(definition->params + 1, sizeof *values);
    size_t *qubits = calloc(definition->qubits + 1, sizeof *qubits);
    Scope scope = {definition, values, qubits};
    int status = values && qubits ? QPI_OK : qpi_fail_memory();
    for (size_t index = 0; qubits && index < definition->qubits; index++)
        qubits[index] = index;
    parser->checking = 1;
    while (status == QPI_OK && parser->token.kind != '}')
        status = qpi_token_is(&parser->token, "barrier") ? qpi_parse_barrier(parser, &scope)
                                                         : qpi_parse_call(parser, &scope);
    parser->checking = 0;
    free(values);
    free(qubits);
    return status;
}

/* gate name(a, b) q, r { ... } */
static int define_gate(Parser *parser)
{
    Definition made = {.first_formal = parser->formals.used / sizeof(Token)};
    qpi_advance(parser);
    TRY(qpi_expect_name(parser, &made.name));
    TRY(check_new(parser, &made.name));
    if (qpi_accept(parser, '(')) {
        TRY(parse_formals(parser, ')', &made.params));
        qpi_advance(parser);
    }
    TRY(parse_formals(parser, '{', &made.qubits));
    made.body = parser->lexer;
    qpi_advance(parser);
    TRY(check_body(parser, &made));
    qpi_advance(parser);
    if (parser->definitions.used / sizeof made >= MAX_DEFINITIONS)
        return qpi_fail(QPI_LIMIT, "write the gates out", "more than %d gate definitions",
                        MAX_DEFINITIONS);
    qpi_buffer_add(&parser->definitions, &made, sizeof made);
    return parser->definitions.failed ? qpi_fail_memory() : QPI_OK;
}

/* --- operations that are no gates ----------------------------------------------------------- */

static int add_measure(Parser *parser, size_t qubit, size_t clbit, size_t count)
{
    qpi_circuit *circuit = parser->circuit;
    for (size_t index = 0; index < count; index++) {
        TRY(qpi_add_operation(circuit, "measure", 1, 1, 0));
        TRY(qpi_add_qubit(circuit, qubit + index));
        TRY(qpi_add_clbit(circuit, clbit + index));
    }
    circuit->measures = 1;
    return QPI_OK;
}

/* Behind the "=": measure q; */
static int measure_to(Parser *parser, size_t clbit, size_t count, int is_whole)
{
    Token at = parser->token;
    size_t qubit, qubits;
    int whole;
    if (!qpi_token_is(&at, "measure"))
        return qpi_refuse(&at, "the Python client reads classical expressions",
                          "only a measurement can be assigned");
    qpi_advance(parser);
    TRY(qpi_parse_operand(parser, 1, &qubit, &qubits, &whole));
    if (qubits != count || whole != is_whole)
        return qpi_refuse(&at, NULL, "as many bits as qubits are needed");
    TRY(add_measure(parser, qubit, clbit, count));
    return qpi_expect(parser, ';', "';' was expected");
}

/* measure q -> c; */
static int measure_2(Parser *parser)
{
    Token at = parser->token;
    size_t qubit, clbit, qubits, clbits;
    int whole, other;
    qpi_advance(parser);
    TRY(qpi_parse_operand(parser, 1, &qubit, &qubits, &whole));
    TRY(qpi_expect(parser, TOKEN_ARROW, "'->' was expected"));
    TRY(qpi_parse_operand(parser, 0, &clbit, &clbits, &other));
    if (qubits != clbits || whole != other)
        return qpi_refuse(&at, NULL, "as many bits as qubits are needed");
    TRY(add_measure(parser, qubit, clbit, qubits));
    return qpi_expect(parser, ';', "';' was expected");
}

/* c[0] = measure q[0]; */
static int assign(Parser *parser)
{
    size_t clbit, count;
    int whole;
    TRY(qpi_parse_operand(parser, 0, &clbit, &count, &whole));
    TRY(qpi_expect(parser, '=', "'=' was expected"));
    return measure_to(parser, clbit, count, whole);
}

static int reset(Parser *parser)
{
    size_t qubit, count;
    int whole;
    qpi_advance(parser);
    TRY(qpi_parse_operand(parser, 1, &qubit, &count, &whole));
    for (size_t index = 0; index < count; index++) {
        TRY(qpi_add_operation(parser->circuit, "reset", 1, 0, 0));
        TRY(qpi_add_qubit(parser->circuit, qubit + index));
    }
    return qpi_expect(parser, ';', "';' was expected");
}

/* Barriers in the body of a gate keep no order across gates, and are left out. */
int qpi_parse_barrier(Parser *parser, const Scope *scope)
{
    qpi_circuit *circuit = parser->circuit;
    size_t before = circuit->qubit_list.used, first = 0, count = circuit->qubits;
    int whole, ended;
    qpi_advance(parser);
    ended = qpi_accept(parser, ';');
    while (!ended && scope) {
        Token name;
        TRY(qpi_expect_name(parser, &name));
        ended = qpi_accept(parser, ';');
        if (!ended)
            TRY(qpi_expect(parser, ',', "',' or ';' was expected"));
    }
    if (scope)
        return QPI_OK;
    for (int next = 1; next; next = !ended && parser->token.kind == ',') {
        if (circuit->qubit_list.used > before)
            qpi_advance(parser);
        if (!ended)
            TRY(qpi_parse_operand(parser, 1, &first, &count, &whole));
        for (size_t index = 0; index < count; index++)
            TRY(qpi_add_qubit(circuit, first + index));
    }
    TRY(qpi_add_operation(circuit, "barrier", (circuit->qubit_list.used - before) / 2, 0, 0));
    return ended ? QPI_OK : qpi_expect(parser, ';', "';' was expected");
}

/* --- the whole text ------------------------------------------------------------------------- */

static int include(Parser *parser)
{
    const char *file = parser->version == 2 ? "\"qelib1.inc\"" : "\"stdgates.inc\"";
    qpi_advance(parser);
    Token name = parser->token;
    TRY(qpi_expect(parser, TOKEN_STRING, "the name of a file was expected"));
    if (name.length != strlen(file) || memcmp(name.text + 1, file + 1, name.length - 2))
        return qpi_refuse(&name, "no other file is read: paste its gates",
                          parser->version == 2 ? "only \"qelib1.inc\" can be included"
                                               : "only \"stdgates.inc\" can be included");
    parser->included = 1;
    return qpi_expect(parser, ';', "';' was expected");
}

static int parse_statement(Parser *parser)
{
    Token *token = &parser->token;
    int second = parser->version == 2;
    if (qpi_token_is(token, "include"))
        return include(parser);
    if (qpi_token_is(token, "qreg") || qpi_token_is(token, "creg"))
        return declare_2(parser, qpi_token_is(token, "qreg"));
    if (!second && (qpi_token_is(token, "qubit") || qpi_token_is(token, "bit")))
        return declare_3(parser, qpi_token_is(token, "qubit"));
    if (!second && qpi_token_is(token, "input"))
        return declare_input(parser);
    if (qpi_token_is(token, "gate"))
        return define_gate(parser);
    if (qpi_token_is(token, "measure"))
        return measure_2(parser);
    if (qpi_token_is(token, "reset"))
        return reset(parser);
    if (qpi_token_is(token, "barrier"))
        return qpi_parse_barrier(parser, NULL);
    if (!second && token->kind == TOKEN_NAME && qpi_find_register(parser, token))
        return assign(parser);
    return qpi_parse_call(parser, NULL);
}

/* Whether the text has what only OpenQASM 3 has, whose version line is optional. */
static int is_version_3(const Parser *parser)
{
    static const char *const WORDS[] = {"qubit", "bit", "input", "gphase"};
    static const char FILE_NAME[] = "stdgates.inc";
    Parser ahead = *parser;
    for (const Token *token = &ahead.token; token->kind != TOKEN_END && token->kind != TOKEN_BAD;
         qpi_advance(&ahead)) {
        if (token->kind == TOKEN_STRING && token->length == strlen(FILE_NAME) + 2
            && !memcmp(token->text + 1, FILE_NAME, strlen(FILE_NAME)))
            return 1;
        for (size_t word = 0; word < sizeof WORDS / sizeof *WORDS; word++)
            if (qpi_token_is(token, WORDS[word]))
                return 1;
    }
    return 0;
}

static int parse_version(Parser *parser)
{
    static const char HINT[] = "the first statement is OPENQASM 2.0; or OPENQASM 3.0;";
    Token word = parser->token;
    if (!qpi_token_is(&word, "OPENQASM")) {
        parser->version = 3;
        return is_version_3(parser) ? QPI_OK : qpi_refuse(&word, HINT, "no version line");
    }
    qpi_advance(parser);
    Token number = parser->token;
    qpi_advance(parser);
    if ((number.kind != TOKEN_REAL && number.kind != TOKEN_INTEGER)
        || (number.text[0] != '2' && number.text[0] != '3')
        || (number.length > 1 && number.text[1] != '.'))
        return qpi_refuse(&number, HINT, "a version that is not read");
    parser->version = number.text[0] - '0';
    return qpi_expect(parser, ';', "';' was expected");
}

/* Registers lie one after the other; bits that are in none come last. */
static int number_clbits(Parser *parser)
{
    qpi_circuit *circuit = parser->circuit;
    const Register *all = (const Register *)(const void *)parser->registers.data;
    uint16_t *numbers = malloc((circuit->clbits + 1) * sizeof *numbers);
    uint16_t *list = (uint16_t *)(void *)circuit->clbit_list.data;
    uint16_t next = 0;
    size_t before = 0;
    if (!numbers)
        return qpi_fail_memory();
    for (int scalar = 0; scalar < 2; scalar++) {
        before = next;
        for (size_t bit = 0; bit < circuit->clbits; bit++)
            if (parser->scalars.data[bit] == scalar)
                numbers[bit] = next++;
    }
    for (size_t index = 0; index < circuit->clbit_list.used / sizeof *list; index++)
        list[index] = numbers[list[index]];
    free(numbers);
    for (size_t index = 0; index < parser->registers.used / sizeof *all; index++)
        if (!all[index].is_qubits && !all[index].is_scalar) {
            qpi_put_array(&circuit->registers, 2);
            qpi_put_text_n(&circuit->registers, all[index].name.text, all[index].name.length);
            qpi_put_uint(&circuit->registers, all[index].size);
            circuit->num_registers++;
        }
    if (next > before) {
        qpi_put_array(&circuit->registers, 2);
        qpi_put_text(&circuit->registers, "");
        qpi_put_uint(&circuit->registers, next - before);
        circuit->num_registers++;
    }
    return QPI_OK;
}

static int parse(Parser *parser)
{
    qpi_advance(parser);
    TRY(parse_version(parser));
    while (parser->token.kind != TOKEN_END)
        TRY(parse_statement(parser));
    if (parser->circuit->qubits == 0)
        return qpi_refuse(&parser->token, NULL, "the circuit has no qubits");
    TRY(number_clbits(parser));
    return qpi_pack_program(parser->circuit);
}

int qpi_circuit_from_qasm(const char *text, qpi_circuit **circuit)
{
    Parser parser = {.lexer = {text, 1, 1}, .circuit = calloc(1, sizeof *parser.circuit),
                     .plain = newlocale(LC_ALL_MASK, "C", NULL)};
    *circuit = NULL;
    if (!parser.circuit || !parser.plain) {
        free(parser.circuit);
        return qpi_fail_memory();
    }
    int status = strlen(text) > MAX_TEXT_BYTES
                     ? qpi_fail(QPI_LIMIT, "split the circuit", "more than %d bytes of text",
                                MAX_TEXT_BYTES)
                     : parse(&parser);
    freelocale(parser.plain);
    qpi_buffer_free(&parser.registers);
    qpi_buffer_free(&parser.formals);
    qpi_buffer_free(&parser.definitions);
    qpi_buffer_free(&parser.scalars);
    if (status == QPI_OK)
        *circuit = parser.circuit;
    else
        qpi_circuit_free(parser.circuit);
    return status;
}

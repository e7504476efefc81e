/* Parts of statements that both versions of OpenQASM share: angles, operands, calls of gates. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_NESTING = 64, MAX_CALLS = 4000000, MAX_GATE_BITS = 65535 };

void qpi_advance(Parser *parser)
{
    parser->token = qpi_next_token(&parser->lexer);
}

int qpi_accept(Parser *parser, int kind)
{
    int found = parser->token.kind == kind;
    if (found)
        qpi_advance(parser);
    return found;
}

int qpi_refuse(const Token *token, const char *hint, const char *what)
{
    int shown = token->length < 60 ? (int)token->length : 60;
    if (token->kind == TOKEN_END)
        return qpi_fail_at(token->line, token->column, hint, "line %d, column %d: %s, at the end",
                           token->line, token->column, what);
    return qpi_fail_at(token->line, token->column, hint, "line %d, column %d: %s: '%.*s'",
                       token->line, token->column, what, shown, token->text);
}

int qpi_expect(Parser *parser, int kind, const char *what)
{
    return qpi_accept(parser, kind) ? QPI_OK : qpi_refuse(&parser->token, NULL, what);
}

int qpi_expect_name(Parser *parser, Token *name)
{
    *name = parser->token;
    return qpi_expect(parser, TOKEN_NAME, "a name was expected");
}

static int same(const Token *one, const Token *other)
{
    return one->length == other->length && !memcmp(one->text, other->text, one->length);
}

const Register *qpi_find_register(const Parser *parser, const Token *name)
{
    const Register *all = (const Register *)(const void *)parser->registers.data;
    for (size_t index = 0; index < parser->registers.used / sizeof *all; index++)
        if (same(&all[index].name, name))
            return &all[index];
    return NULL;
}

const Definition *qpi_find_definition(const Parser *parser, const Token *name)
{
    const Definition *all = (const Definition *)(const void *)parser->definitions.data;
    for (size_t index = 0; index < parser->definitions.used / sizeof *all; index++)
        if (same(&all[index].name, name))
            return &all[index];
    return NULL;
}

/* The place of a formal name among `count` from `first` on; -1: it is none of them. */
static long formal(const Parser *parser, size_t first, size_t count, const Token *name)
{
    const Token *all = (const Token *)(const void *)parser->formals.data;
    for (size_t index = 0; index < count; index++)
        if (same(&all[first + index], name))
            return (long)index;
    return -1;
}

/* --- angles --------------------------------------------------------------------------------- */

static int parse_sum(Parser *parser, const Scope *scope, Expression *to);

static int function_code(const Token *name)
{
    static const char *const NAMES[] = {"sin", "cos", "tan", "exp", "ln", "sqrt", "asin", "acos",
                                        "atan", "log", "arcsin", "arccos", "arctan"};
    static const uint8_t CODES[] = {CODE_SIN, CODE_COS, CODE_TAN, CODE_EXP, CODE_LN, CODE_SQRT,
                                    CODE_ASIN, CODE_ACOS, CODE_ATAN, CODE_LN, CODE_ASIN, CODE_ACOS,
                                    CODE_ATAN};
    for (size_t index = 0; index < sizeof CODES; index++)
        if (qpi_token_is(name, NAMES[index]))
            return CODES[index];
    return 0;
}

static int parse_name(Parser *parser, const Scope *scope, Expression *to)
{
    static const double PI = 3.14159265358979323846;
    Token name = parser->token;
    int code = function_code(&name);
    qpi_advance(parser);
    if (code && parser->token.kind == '(') {
        qpi_advance(parser);
        TRY(parse_sum(parser, scope, to));
        qpi_expression_apply(to, (uint8_t)code);
        return qpi_expect(parser, ')', "')' was expected");
    }
    if (qpi_token_is(&name, "pi") || (parser->version == 3 && qpi_token_is(&name, "tau"))) {
        qpi_expression_number(to, qpi_token_is(&name, "pi") ? PI : 2.0 * PI);
        return QPI_OK;
    }
    if (scope) {
        const Definition *definition = scope->definition;
        long found = formal(parser, definition->first_formal, definition->params, &name);
        if (found >= 0) {
            qpi_expression_copy(to, &scope->values[found]);
            return QPI_OK;
        }
    }
    for (size_t index = 0; !scope && index < parser->circuit->num_parameters; index++)
        if (qpi_token_is(&name, qpi_circuit_parameter(parser->circuit, index))) {
            qpi_expression_parameter(to, (uint32_t)index);
            return QPI_OK;
        }
    return qpi_refuse(&name, "parameters are declared by: input float NAME;  (OpenQASM 3)",
                      "no number, parameter or function");
}

static int parse_atom(Parser *parser, const Scope *scope, Expression *to)
{
    Token token = parser->token;
    if (token.kind == TOKEN_INTEGER || token.kind == TOKEN_REAL) {
        qpi_expression_number(to, strtod_l(token.text, NULL, parser->plain));
        qpi_advance(parser);
        return QPI_OK;
    }
    if (token.kind == TOKEN_NAME)
        return parse_name(parser, scope, to);
    TRY(qpi_expect(parser, '(', "an angle was expected"));
    TRY(parse_sum(parser, scope, to));
    return qpi_expect(parser, ')', "')' was expected");
}

/* Take the right operand with `parse`, and join. */
static int parse_right(Parser *parser, const Scope *scope, Expression *left, uint8_t code,
                       int (*parse)(Parser *, const Scope *, Expression *))
{
    Expression right = {0};
    Token at = parser->token;
    int status = parse(parser, scope, &right);
    if (status == QPI_OK && !qpi_expression_join(left, &right, code))
        status = qpi_refuse(&at, "write it in steps", "an angle of too many terms");
    qpi_expression_free(&right);
    return status;
}

static int parse_signed(Parser *parser, const Scope *scope, Expression *to)
{
    int negative = 0;
    while (parser->token.kind == '-' || parser->token.kind == '+') {
        negative ^= parser->token.kind == '-';
        qpi_advance(parser);
    }
    TRY(parse_atom(parser, scope, to));
    if (qpi_accept(parser, TOKEN_POWER)) {
        if (++parser->depth > MAX_NESTING)
            return qpi_refuse(&parser->token, "write it in steps", "nested too deeply");
        TRY(parse_right(parser, scope, to, CODE_POW, parse_signed));
        parser->depth--;
    }
    if (negative)
        qpi_expression_apply(to, CODE_NEG);
    return QPI_OK;
}

static int parse_product(Parser *parser, const Scope *scope, Expression *to)
{
    TRY(parse_signed(parser, scope, to));
    while (parser->token.kind == '*' || parser->token.kind == '/') {
        uint8_t code = parser->token.kind == '*' ? CODE_MUL : CODE_DIV;
        qpi_advance(parser);
        TRY(parse_right(parser, scope, to, code, parse_signed));
    }
    return QPI_OK;
}

static int parse_sum(Parser *parser, const Scope *scope, Expression *to)
{
    if (++parser->depth > MAX_NESTING)
        return qpi_refuse(&parser->token, "write it in steps", "nested too deeply");
    TRY(parse_product(parser, scope, to));
    while (parser->token.kind == '+' || parser->token.kind == '-') {
        uint8_t code = parser->token.kind == '+' ? CODE_ADD : CODE_SUB;
        qpi_advance(parser);
        TRY(parse_right(parser, scope, to, code, parse_product));
    }
    parser->depth--;
    return QPI_OK;
}

int qpi_parse_angle(Parser *parser, const Scope *scope, Expression *to)
{
    *to = (Expression){0};
    parser->depth = 0;
    int status = parse_sum(parser, scope, to);
    if (status != QPI_OK)
        qpi_expression_free(to);
    return status;
}

/* --- operands ------------------------------------------------------------------------------- */

int qpi_parse_index(Parser *parser, size_t *value)
{
    Token token = parser->token;
    TRY(qpi_expect(parser, TOKEN_INTEGER, "a whole number was expected"));
    unsigned long number = strtoul(token.text, NULL, 10);
    if (token.length > 6 || number > MAX_GATE_BITS)
        return qpi_refuse(&token, "at most 65535 bits", "too large a number");
    *value = number;
    return QPI_OK;
}

int qpi_parse_operand(Parser *parser, int is_qubits, size_t *first, size_t *count, int *is_whole)
{
    Token name, at;
    size_t index = 0;
    TRY(qpi_expect_name(parser, &name));
    const Register *found = qpi_find_register(parser, &name);
    if (!found || found->is_qubits != is_qubits)
        return qpi_refuse(&name, NULL, is_qubits ? "no qubit of that name" : "no bit of that name");
    *first = found->start;
    *count = found->size;
    *is_whole = !found->is_scalar;
    if (found->is_scalar || !qpi_accept(parser, '['))
        return QPI_OK;
    at = parser->token;
    TRY(qpi_parse_index(parser, &index));
    if (index >= found->size)
        return qpi_refuse(&at, NULL, "an index beyond its register");
    *first += index;
    *count = 1;
    *is_whole = 0;
    return qpi_expect(parser, ']', "']' was expected");
}

/* Operands of a gate: bits that are the same for all its copies, or registers, a bit for each. */
typedef struct Operands {
    size_t *first, copies;
    uint8_t *is_whole;
} Operands;

static int parse_gate_operand(Parser *parser, const Scope *scope, Operands *to, size_t index)
{
    Token name = parser->token;
    size_t count = 1;
    int is_whole = 0;
    if (scope) {
        const Definition *definition = scope->definition;
        TRY(qpi_expect_name(parser, &name));
        long found = formal(parser, definition->first_formal + definition->params,
                            definition->qubits, &name);
        if (found < 0)
            return qpi_refuse(&name, NULL, "no qubit of this gate");
        to->first[index] = scope->qubits[found];
    } else
        TRY(qpi_parse_operand(parser, 1, &to->first[index], &count, &is_whole));
    to->is_whole[index] = (uint8_t)is_whole;
    if (is_whole && to->copies && to->copies != count)
        return qpi_refuse(&name, NULL, "registers of different sizes in one call");
    if (is_whole)
        to->copies = count;
    for (size_t other = 0; other < index; other++) {
        int both = to->is_whole[other] && is_whole;
        size_t low = to->first[other], high = low + (to->is_whole[other] ? to->copies : 1);
        int meet = both ? low == to->first[index]
                        : to->first[index] < high && low < to->first[index] + count;
        if (meet)
            return qpi_refuse(&name, NULL, "a qubit is named twice in one call");
    }
    return QPI_OK;
}

/* --- calls of gates ------------------------------------------------------------------------- */

static int add_shape(Parser *parser, const GateShape *shape, const Expression *values,
                     const size_t *qubits)
{
    qpi_circuit *circuit = parser->circuit;
    if (parser->checking)
        return QPI_OK;
    TRY(qpi_add_operation(circuit, shape->carried, (size_t)shape->qubits, 0,
                          (size_t)shape->params));
    for (int index = 0; index < shape->qubits; index++)
        TRY(qpi_add_qubit(circuit, qubits[index]));
    for (int index = 0; index < shape->params; index++)
        TRY(qpi_add_angle(circuit, &values[index]));
    return QPI_OK;
}

/* Read the body of a definition once more, for these values and qubits. */
static int add_defined(Parser *parser, const Definition *definition, const Expression *values,
                       const size_t *qubits)
{
    Definition copy = *definition; /* the table may move, but not in a body */
    Scope scope = {&copy, values, qubits};
    Lexer lexer = parser->lexer;
    Token token = parser->token;
    int status = QPI_OK;
    if (++parser->calls > MAX_CALLS)
        return qpi_fail(QPI_LIMIT, "split the circuit", "more than %d calls of defined gates",
                        MAX_CALLS);
    if (parser->checking)
        return QPI_OK; /* its own body has been checked */
    parser->lexer = definition->body;
    qpi_advance(parser);
    while (status == QPI_OK && parser->token.kind != '}')
        status = qpi_token_is(&parser->token, "barrier") ? qpi_parse_barrier(parser, &scope)
                                                         : qpi_parse_call(parser, &scope);
    parser->lexer = lexer;
    parser->token = token;
    return status;
}

static int parse_angles(Parser *parser, const Scope *scope, const Token *name, Expression *values,
                        size_t params)
{
    if (params == 0 && parser->token.kind != '(')
        return QPI_OK;
    TRY(qpi_expect(parser, '(', "this gate takes angles: '(' was expected"));
    for (size_t index = 0; index < params; index++) {
        if (index > 0)
            TRY(qpi_expect(parser, ',', "the gate takes more angles: ',' was expected"));
        TRY(qpi_parse_angle(parser, scope, &values[index]));
    }
    return parser->token.kind == ')' ? (qpi_advance(parser), QPI_OK)
                                     : qpi_refuse(name, NULL, "too many angles for this gate");
}

static int parse_shaped(Parser *parser, const Scope *scope, const Token *name,
                        const GateShape *shape, const Definition *definition, Expression *values,
                        Operands *operands)
{
    size_t width = definition ? definition->qubits : (size_t)shape->qubits;
    size_t params = definition ? definition->params : (size_t)shape->params;
    TRY(parse_angles(parser, scope, name, values, params));
    for (size_t index = 0; index < width; index++) {
        if (index > 0)
            TRY(qpi_expect(parser, ',', "the gate takes more qubits: ',' was expected"));
        TRY(parse_gate_operand(parser, scope, operands, index));
    }
    TRY(qpi_expect(parser, ';', "';' was expected"));
    size_t copies = operands->copies ? operands->copies : 1;
    size_t *bits = operands->first;
    for (size_t copy = 0; copy < copies; copy++) {
        TRY(definition ? add_defined(parser, definition, values, bits)
                       : add_shape(parser, shape, values, bits));
        for (size_t index = 0; index < width; index++)
            bits[index] += operands->is_whole[index];
    }
    return QPI_OK;
}

int qpi_parse_call(Parser *parser, const Scope *scope)
{
    Token name;
    TRY(qpi_expect_name(parser, &name));
    const Definition *found = qpi_find_definition(parser, &name);
    const GateShape *shape = found ? NULL : qpi_gate_shape(&name, parser->version,
                                                           parser->included);
    if (!found && !shape)
        return qpi_refuse(&name, parser->version == 2 ? "include \"qelib1.inc\"; or define the gate"
                                                      : "include \"stdgates.inc\"; or define the "
                                                        "gate; the Python client reads all of "
                                                        "OpenQASM 3",
                          "no gate or statement that is read here");
    Definition copy = found ? *found : (Definition){0};
    size_t width = found ? copy.qubits : (size_t)shape->qubits;
    size_t params = found ? copy.params : (size_t)shape->params;
    Expression *values = calloc(params + 1, sizeof *values);
    Operands operands = {calloc(width + 1, sizeof(size_t)), 0, calloc(width + 1, 1)};
    int status = values && operands.first && operands.is_whole
                     ? parse_shaped(parser, scope, &name, shape, found ? &copy : NULL, values,
                                    &operands)
                     : qpi_fail_memory();
    for (size_t index = 0; values && index < params; index++)
        qpi_expression_free(&values[index]);
    free(values);
    free(operands.first);
    free(operands.is_whole);
    return status;
}

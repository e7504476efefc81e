/* Angles: numbers, or postfix code over the parameters of a circuit.
 *
 * Invariant: an expression without parameters is one number, folded as it is read. */
#include <math.h>
#include <string.h>

#include "internal.h"

enum { MAX_STACK = 256, MAX_CODE_BYTES = 1 << 16 };

void qpi_expression_free(Expression *expression)
{
    qpi_buffer_free(&expression->code);
    *expression = (Expression){0};
}

void qpi_expression_number(Expression *expression, double value)
{
    *expression = (Expression){.value = value, .depth = 1};
}

void qpi_expression_parameter(Expression *expression, uint32_t index)
{
    uint8_t operation = CODE_PARAMETER;
    *expression = (Expression){.has_parameters = 1, .depth = 1};
    qpi_buffer_add(&expression->code, &operation, 1);
    qpi_buffer_add(&expression->code, &index, sizeof index);
}

/* The code of an expression, also of a number. */
static void add_code(Buffer *to, const Expression *from)
{
    uint8_t operation = CODE_NUMBER;
    if (from->has_parameters) {
        qpi_buffer_add(to, from->code.data, from->code.used);
        to->failed |= from->code.failed;
        return;
    }
    qpi_buffer_add(to, &operation, 1);
    qpi_buffer_add(to, &from->value, sizeof from->value);
}

void qpi_expression_copy(Expression *to, const Expression *from)
{
    *to = (Expression){.has_parameters = from->has_parameters, .value = from->value,
                       .depth = from->depth};
    if (from->has_parameters)
        add_code(&to->code, from);
}

static double apply2(double left, double right, uint8_t operation)
{
    switch (operation) {
    case CODE_ADD: return left + right;
    case CODE_SUB: return left - right;
    case CODE_MUL: return left * right;
    case CODE_DIV: return left / right;
    default: return pow(left, right);
    }
}

static double apply1(double value, uint8_t operation)
{
    switch (operation) {
    case CODE_NEG: return -value;
    case CODE_SIN: return sin(value);
    case CODE_COS: return cos(value);
    case CODE_TAN: return tan(value);
    case CODE_EXP: return exp(value);
    case CODE_LN: return log(value);
    case CODE_SQRT: return sqrt(value);
    case CODE_ASIN: return asin(value);
    case CODE_ACOS: return acos(value);
    default: return atan(value);
    }
}

int qpi_expression_join(Expression *left, Expression *right, uint8_t operation)
{
    if (!left->has_parameters && !right->has_parameters) {
        left->value = apply2(left->value, right->value, operation);
        return 1;
    }
    Expression joined = {.has_parameters = 1};
    joined.depth = left->depth > right->depth + 1 ? left->depth : right->depth + 1;
    add_code(&joined.code, left);
    add_code(&joined.code, right);
    qpi_buffer_add(&joined.code, &operation, 1);
    qpi_expression_free(left);
    qpi_expression_free(right);
    *left = joined;
    return joined.depth < MAX_STACK && joined.code.used < MAX_CODE_BYTES;
}

void qpi_expression_apply(Expression *expression, uint8_t operation)
{
    if (expression->has_parameters)
        qpi_buffer_add(&expression->code, &operation, 1);
    else
        expression->value = apply1(expression->value, operation);
}

double qpi_evaluate(const uint8_t *code, size_t size, const double *parameters)
{
    double stack[MAX_STACK] = {0.0};
    size_t used = 0;
    for (const uint8_t *at = code, *end = code + size; at < end;) {
        uint8_t operation = *at++;
        if (operation == CODE_NUMBER) {
            memcpy(&stack[used++], at, sizeof(double));
            at += sizeof(double);
        } else if (operation == CODE_PARAMETER) {
            uint32_t index;
            memcpy(&index, at, sizeof index);
            stack[used++] = parameters[index];
            at += sizeof index;
        } else if (operation <= CODE_POW) {
            used--;
            stack[used - 1] = apply2(stack[used - 1], stack[used], operation);
        } else
            stack[used - 1] = apply1(stack[used - 1], operation);
    }
    return stack[0];
}

/* Tokens of OpenQASM 2 and 3. */
#include <string.h>

#include "internal.h"

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void step(Lexer *lexer)
{
    if (*lexer->at++ == '\n') {
        lexer->line++;
        lexer->column = 1;
    } else
        lexer->column++;
}

/* Pass white space and comments. 0 for a comment that does not end; the lexer then stays before
 * it. */
static int pass_blanks(Lexer *lexer)
{
    for (;;) {
        const char *at = lexer->at;
        Lexer before = *lexer;
        if (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
            step(lexer);
        else if (at[0] == '/' && at[1] == '/')
            while (*lexer->at && *lexer->at != '\n')
                step(lexer);
        else if (at[0] == '/' && at[1] == '*') {
            step(lexer);
            step(lexer);
            while (*lexer->at && !(lexer->at[0] == '*' && lexer->at[1] == '/'))
                step(lexer);
            if (!*lexer->at) {
                *lexer = before;
                return 0;
            }
            step(lexer);
            step(lexer);
        } else
            return 1;
    }
}

static const char *past_digits(const char *at)
{
    while (is_digit(*at))
        at++;
    return at;
}

static int number(const char *at, const char **end)
{
    int kind = TOKEN_INTEGER;
    at = past_digits(at);
    if (*at == '.') {
        kind = TOKEN_REAL;
        at = past_digits(at + 1);
    }
    if (*at == 'e' || *at == 'E') {
        const char *digits = at + 1 + (at[1] == '+' || at[1] == '-');
        if (is_digit(*digits)) {
            kind = TOKEN_REAL;
            at = past_digits(digits);
        }
    }
    *end = at;
    return is_letter(*at) ? TOKEN_BAD : kind;
}

static int string(const char *at, const char **end)
{
    char quote = *at++;
    while (*at && *at != quote && *at != '\n')
        at++;
    *end = *at == quote ? at + 1 : at;
    return *at == quote ? TOKEN_STRING : TOKEN_BAD;
}

Token qpi_next_token(Lexer *lexer)
{
    int ends = pass_blanks(lexer);
    Token token = {TOKEN_BAD, lexer->at, 0, lexer->line, lexer->column};
    const char *at = lexer->at, *end = at + (*at != 0);
    if (!ends) {
        token.length = 2;
        return token;
    }
    if (!*at)
        token.kind = TOKEN_END;
    else if (is_letter(*at)) {
        while (is_letter(*end) || is_digit(*end))
            end++;
        token.kind = TOKEN_NAME;
    } else if (is_digit(*at) || (*at == '.' && is_digit(at[1])))
        token.kind = number(at, &end);
    else if (*at == '"' || *at == '\'')
        token.kind = string(at, &end);
    else if (at[0] == '-' && at[1] == '>') {
        end = at + 2;
        token.kind = TOKEN_ARROW;
    } else if (*at == '^' || (at[0] == '*' && at[1] == '*')) {
        end = at + (*at == '^' ? 1 : 2);
        token.kind = TOKEN_POWER;
    } else if (strchr(";,()[]{}+-*/=<>!@:&|~%#$.", *at))
        token.kind = *at;
    token.length = (size_t)(end - at);
    while (lexer->at < end)
        step(lexer);
    return token;
}

int qpi_token_is(const Token *token, const char *text)
{
    return token->kind == TOKEN_NAME && strlen(text) == token->length
           && !memcmp(token->text, text, token->length);
}

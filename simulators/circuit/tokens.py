"""Tokens of an expression: postfix, over clbits, registers, variables and constants.

Rows are (token, operand, width); widths are bits, a Bool has width 0. The numbers are those of the
wire form; a test compares the two. END closes an expression. CLBIT, REGISTER and VARIABLE push the
one with the operand's number, VALUE the constant with this index; CAST is to the width; INDEX takes
a value and an index, and pushes a Bool. SET_CLBIT, SET_REGISTER and SET_VARIABLE end a `store`:
they take a value of the target's width, and leave nothing.
"""

from __future__ import annotations

(
    END, CLBIT, REGISTER, VALUE, CAST, BIT_NOT, LOGIC_NOT, BIT_AND, BIT_OR, BIT_XOR, LOGIC_AND,
    LOGIC_OR, EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, SHIFT_LEFT, SHIFT_RIGHT,
    ADD, SUB, MUL, DIV, INDEX, VARIABLE, SET_CLBIT, SET_REGISTER, SET_VARIABLE,
) = range(29)  # fmt: skip

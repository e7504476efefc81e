"""Tokens of an expression: postfix, over clbits, registers, variables and constants.

Rows are (token, operand, width); widths are bits, a Bool has width 0. The numbers are those of the
wire form; a test compares the two.
"""

from __future__ import annotations

END = 0  # closes one expression
CLBIT = 1  # operand: clbit number; pushes a Bool
REGISTER = 2  # operand: register number; pushes a Uint of its size
VALUE = 3  # operand: index into the constants
CAST = 4  # to the width
BIT_NOT = 5
LOGIC_NOT = 6
BIT_AND = 7
BIT_OR = 8
BIT_XOR = 9
LOGIC_AND = 10
LOGIC_OR = 11
EQUAL = 12
NOT_EQUAL = 13
LESS = 14
LESS_EQUAL = 15
GREATER = 16
GREATER_EQUAL = 17
SHIFT_LEFT = 18
SHIFT_RIGHT = 19
ADD = 20
SUB = 21
MUL = 22
DIV = 23
INDEX = 24  # (value, index) -> Bool
VARIABLE = 25  # operand: variable number; pushes it
# The last token of a `store`: takes a value of the target's width, and leaves nothing.
SET_CLBIT = 26
SET_REGISTER = 27
SET_VARIABLE = 28

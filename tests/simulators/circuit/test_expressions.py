"""Classical expressions on records of any width."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays, Token

from simenv.model import Token as WireToken
from simulators.circuit import tokens as tk
from simulators.circuit.expressions import expressions_of
from simulators.circuit.validation.admission import validation_error

SIZES = (("a", 4), ("b", 4), ("wide", 300), ("", 2))
A, B, WIDE = (tk.REGISTER, 0, 4), (tk.REGISTER, 1, 4), (tk.REGISTER, 2, 300)


def value(tokens: tuple[Token, ...], bits: int, constants: tuple[int, ...] = ()) -> bool:
    arrays = Arrays(1, 310, SIZES)
    for constant in constants:
        arrays.value(constant)
    circuit = arrays.begin(*tokens).add("end").circuit()
    assert validation_error(circuit) == ""
    (condition,) = expressions_of(circuit)
    entries = [bits >> (64 * k) & (2**64 - 1) for k in range(5)]
    (result,) = condition.truths(np.array([entries], np.uint64)).tolist()
    assert result == bool(condition.evaluate(bits))
    return bool(result)


def test_token_numbers_equal_those_of_wire_format() -> None:
    table = {name: number for name, number in vars(tk).items() if name.isupper()}
    assert table == {token.name: token.value for token in WireToken}


@pytest.mark.parametrize(
    ("token", "left", "right", "expected"),
    [
        (tk.BIT_AND, 12, 10, 8), (tk.BIT_OR, 12, 10, 14), (tk.BIT_XOR, 12, 10, 6),
        (tk.ADD, 12, 10, 6), (tk.SUB, 3, 10, 9), (tk.MUL, 7, 7, 1), (tk.DIV, 13, 4, 3),
        (tk.DIV, 13, 0, 0), (tk.SHIFT_LEFT, 5, 2, 4), (tk.SHIFT_LEFT, 5, 15, 0),
        (tk.SHIFT_RIGHT, 13, 2, 3), (tk.SHIFT_RIGHT, 13, 9, 0),
    ],
)  # fmt: skip
def test_arithmetic_wraps_at_register_width(
    token: int, left: int, right: int, expected: int
) -> None:
    tokens = (A, B, (token, 0, 4), (tk.VALUE, 0, 4), (tk.EQUAL, 0, 0))
    assert value(tokens, left | right << 4, (expected,))
    assert not value(tokens, left | right << 4, (expected ^ 1,))


@pytest.mark.parametrize(
    ("token", "truth"),
    [
        (tk.EQUAL, (0, 1, 0)), (tk.NOT_EQUAL, (1, 0, 1)), (tk.LESS, (1, 0, 0)),
        (tk.LESS_EQUAL, (1, 1, 0)), (tk.GREATER, (0, 0, 1)), (tk.GREATER_EQUAL, (0, 1, 1)),
    ],
)  # fmt: skip
def test_comparisons_of_registers_are_correct(token: int, truth: tuple[int, int, int]) -> None:
    entries = [value((A, B, (token, 0, 0)), left | 7 << 4) for left in (6, 7, 8)]
    assert entries == [bool(x) for x in truth]


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
def test_logic_operators_on_clbits_are_correct(left: int, right: int) -> None:
    bits = left << 308 | right << 309
    one, two = (tk.CLBIT, 308, 0), (tk.CLBIT, 309, 0)
    assert value((one, two, (tk.LOGIC_AND, 0, 0)), bits) == (left and right)
    assert value((one, two, (tk.LOGIC_OR, 0, 0)), bits) == (left or right)
    assert value((one, two, (tk.BIT_XOR, 0, 0)), bits) == (left != right)
    assert value((one, two, (tk.EQUAL, 0, 0)), bits) == (left == right)
    assert value((one, (tk.LOGIC_NOT, 0, 0)), bits) != left
    assert value((one, (tk.BIT_NOT, 0, 0)), bits) != left


def test_casts_bit_not_and_index_are_correct() -> None:
    assert value((A, (tk.CAST, 0, 0)), 4)
    assert not value((A, (tk.CAST, 0, 0)), 16)
    assert not value((A, (tk.CAST, 0, 2), (tk.CAST, 0, 0)), 12)
    assert value((A, (tk.BIT_NOT, 0, 4), (tk.VALUE, 0, 4), (tk.EQUAL, 0, 0)), 5, (10,))
    assert value((A, (tk.VALUE, 0, 8), (tk.INDEX, 0, 0)), 4, (2,))
    assert not value((A, (tk.VALUE, 0, 8), (tk.INDEX, 0, 0)), 4, (200,))
    boolean = ((tk.CLBIT, 0, 0), (tk.CAST, 0, 4), B, (tk.EQUAL, 0, 0))
    assert value(boolean, 1 | 1 << 4)


def test_values_wider_than_64_bits_are_exact() -> None:
    number = 3**180
    equal = (WIDE, (tk.VALUE, 0, 300), (tk.EQUAL, 0, 0))
    assert value(equal, number << 8, (number,))
    assert not value(equal, number << 8, (number ^ 1 << 280,))
    doubled = (WIDE, WIDE, (tk.ADD, 0, 300), (tk.VALUE, 0, 300), (tk.EQUAL, 0, 0))
    assert value(doubled, number << 8, (2 * number % 2**300,))


def test_constant_wider_than_register_is_not_truncated() -> None:
    equal = (A, (tk.VALUE, 0, 4), (tk.EQUAL, 0, 0))
    assert not value(equal, 3, (19,))
    assert value((A, (tk.VALUE, 0, 4), (tk.LESS, 0, 0)), 3, (19,))


def test_expression_is_evaluated_for_each_record() -> None:
    arrays = Arrays(1, 310, SIZES)
    (condition,) = expressions_of(arrays.begin(*arrays.equals(1, 5)).add("end").circuit())
    rng = np.random.default_rng(0)
    records = rng.integers(0, 2**63, (500, 5)).astype(np.uint64)
    expected = (records[:, 0] >> np.uint64(4) & np.uint64(15)) == 5
    assert (condition.truths(records) == expected).all()
    assert expected.any()

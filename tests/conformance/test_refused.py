"""What an engine cannot do is refused by name, with the way out."""

from collections.abc import Callable

import pytest
from arrays import Arrays
from engines import Runner

from simulators.circuit import ir
from simulators.circuit.ir import Circuit, feed_forward
from simulators.errors import Unsupported

Token = tuple[int, int, int]


def under(*gates: tuple[str, list[int]], tokens: tuple[Token, ...]) -> Circuit:
    arrays = Arrays(3, 3).add("h", [0]).add("measure", [0], [0]).add("measure", [0], [1])
    arrays.begin(*tokens)
    for name, wires in gates:
        arrays.add(name, wires)
    return arrays.add("end").add("measure", [1], [2]).circuit()


BIT = ((ir.CLBIT, 0, 0),)
BOTH = ((ir.CLBIT, 0, 0), (ir.CLBIT, 1, 0), (ir.LOGIC_AND, 0, 0))


def shifted() -> Circuit:
    arrays = Arrays(2, 8).add("h", [0]).add("measure", [0], [0])
    two = (ir.VALUE, arrays.value(2), 8)
    arrays.begin((ir.REGISTER, 0, 8), two, (ir.SHIFT_LEFT, 0, 8), two, (ir.EQUAL, 0, 0))
    return arrays.add("x", [1]).add("end").add("measure", [1], [1]).circuit()


REFUSED: dict[str, tuple[str, Circuit, tuple[str, ...], str]] = {
    "an angle": ("stabilizer", Arrays(1, 1).add("rz", [0], (), [0.3]).add("measure", [0], [0])
                 .circuit(), ("counts",), "operation 0 \\(rz\\): its angle 0.3 is no multiple"),
    "a gate": ("stabilizer", Arrays(1, 1).add("h", [0]).add("t", [0]).add("measure", [0], [0])
               .circuit(), ("counts",), "operation 1 \\(t\\): it is no Clifford gate"),
    "a gate of three": ("stabilizer", Arrays(3, 1).add("ccx", [0, 1, 2]).add("measure", [0], [0])
                        .circuit(), ("counts",), "operation 0 \\(ccx\\)"),
    "amplitudes": ("stabilizer", Arrays(1, 0).circuit(), ("statevector",), "has no output"),
    "h under a condition": ("stabilizer", under(("h", [1]), tokens=BIT), ("counts",), "only Pauli"),
    "a conjunction": ("stabilizer", under(("x", [1]), tokens=BOTH), ("counts",), "no parity"),
    "a reset under a condition": ("stabilizer", under(("reset", [1]), tokens=BIT), ("counts",),
                                  "'reset' under a condition"),
    "branches": ("contraction", feed_forward(), ("counts",), "before a circuit's end"),
    "a wide state": ("mps", Arrays(25, 0).circuit(), ("statevector",), "at most 24"),
    "a wide distribution": ("mps", Arrays(25, 0).circuit(), ("probabilities",), "at most 24"),
    "a shift": ("aer", shifted(), ("counts",), "cannot evaluate"),
    "a mixed distribution": ("aer", feed_forward(), ("probabilities",), "'probabilities'"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_unsupported_feature_is_refused(runner_of: Callable[[str], Runner], what: str) -> None:
    engine, circuit, outputs, value = REFUSED[what]
    shots = 10 if outputs == ("counts",) else 0
    with pytest.raises(Unsupported, match=value) as caught:
        runner_of(engine)(circuit, shots=shots, outputs=outputs)
    assert caught.value.hint

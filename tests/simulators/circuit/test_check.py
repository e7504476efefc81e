"""Every way an arriving circuit can be wrong is answered by a message."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from arrays import Arrays, from_qiskit
from qiskit import QuantumCircuit

from simulators.base import Control, Request, RunOptions
from simulators.circuit import tokens as tk
from simulators.circuit.check import problem
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.errors import EngineError
from simulators.statevector.engine import StatevectorEngine

FIELDS = (
    "num_qubits", "num_clbits", "registers", "names", "arities", "ops", "qubits", "clbits",
    "params", "num_slots", "slots", "conditions", "constants",
)  # fmt: skip


def sample() -> Arrays:
    arrays = Arrays(12, 70, [("a", 3), ("b", 66), ("", 1)])
    arrays.add("h", [0]).add("cx", [0, 1]).add("rx", [2], (), [0.5])
    arrays.free(0)
    arrays.add("u", [1], (), [0.1, 0.2, 0.3])
    arrays.free(1)
    arrays.add("barrier", range(12)).add("mcx", range(10)).add("delay", [3], (), [100.0])
    arrays.add("measure", [0], [0]).add("reset", [0])
    arrays.begin(*arrays.equals(1, 2**65), (tk.CLBIT, 0, 0), (tk.LOGIC_OR, 0, 0))
    arrays.add("x", [3]).add("else").begin((tk.CLBIT, 2, 0)).add("z", [4]).add("end").add("end")
    arrays.begin((tk.REGISTER, 0, 3), (tk.BIT_NOT, 0, 3), (tk.CAST, 0, 0)).add("end")
    return arrays.add("measure", [3], [69])


def changed(**fields: object) -> Circuit:
    values = dict(zip(FIELDS, sample().fields(), strict=True)) | fields
    return Circuit.from_buffers(*values.values())


def u16(*values: int) -> bytes:
    return np.array(values, np.uint16).tobytes()


def condition(*tokens: tuple[int, int, int]) -> Circuit:
    """A circuit with one `if` on these raw tokens."""
    arrays = Arrays(1, 70, [("a", 3), ("b", 67)])
    arrays.value(5)
    arrays.conditions = list(tokens)
    return arrays.add("if").add("end").circuit()


CLBIT, WIDE = (tk.CLBIT, 0, 0), (tk.REGISTER, 1, 67)
END = (tk.END, 0, 0)


def test_a_sound_circuit_is_refused() -> None:
    assert problem(changed()) == ""
    assert problem(bell()) == problem(feed_forward()) == ""
    assert problem(Arrays(0, 0).circuit()) == ""
    assert problem(from_qiskit(QuantumCircuit(3, 3))) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_qubits": -1}, "-1 qubits"),
        ({"num_qubits": 10**6}, "1000000 qubits; the limit is 65535"),
        ({"num_qubits": 2**80}, "qubits"),
        ({"num_qubits": 11}, "qubit 11 does not exist"),
        ({"num_clbits": -5}, "-5 clbits"),
        ({"num_clbits": 2**70}, "clbits"),
        ({"num_clbits": 69}, "registers hold 70 bits"),
        ({"registers": (("a", -1), ("b", 71))}, "register 'a' has -1 bits"),
        ({"registers": ()}, "registers hold 0 bits"),
        ({"num_slots": 1}, "slot 1 does not exist"),
        ({"num_slots": -1}, "parameter slots"),
        ({"num_slots": 2**66}, "parameter slots"),
        ({"ops": b"\0"}, "not a multiple of 2 bytes"),
        ({"params": b"\0" * 9}, "params not of 8"),
        ({"slots": b"\0" * 7}, "slots is not a multiple"),
        ({"conditions": b"\0" * 13}, "conditions not of 12"),
        ({"arities": b""}, "bytes of arities"),
        ({"arities": b"\0"}, "bytes of arities"),
        ({"names": ()}, "0 operation names"),
        ({"names": ("foo",), "arities": u16(1, 0, 0)}, "unknown gate 'foo'"),
        ({"names": ("cx",), "arities": u16(1, 0, 0)}, "'cx' takes 2 qubits"),
        ({"names": ("mcx",), "arities": u16(0, 0, 0)}, "'mcx' takes any number of qubits"),
        ({"names": ("measure",), "arities": u16(2, 2, 0)}, "'measure' takes 1 qubits, 1 clbits"),
        ({"ops": u16(999)}, "operation 0 (?): row 999"),
        ({"ops": u16()}, "longer than the operations need"),
        ({"qubits": u16()}, "operation 0 (h): the list of qubits ends"),
        ({"clbits": u16()}, "(measure): the list of clbits ends"),
        ({"params": b""}, "(rx): the list of parameters ends"),
        ({"slots": np.array([9, 0], np.int32).tobytes()}, "parameter 9, which does not exist"),
        ({"slots": np.array([-1, 0], np.int32).tobytes()}, "parameter -1"),
        ({"slots": np.array([0, -1], np.int32).tobytes()}, "slot -1"),
        ({"slots": np.array([1, 0, 1, 0], np.int32).tobytes()}, "ascending"),
        ({"conditions": b""}, "3 if blocks, but 0 conditions"),
        ({"constants": ()}, "condition 0: operand 0 does not exist"),
    ],
)  # fmt: skip
def test_a_field_is_wrong(fields: dict[str, object], words: str) -> None:
    assert words in problem(changed(**fields))


@pytest.mark.parametrize("angle", [np.nan, np.inf, -np.inf])
def test_an_angle_is_not_a_number(angle: float) -> None:
    arrays = Arrays(1, 0).add("h", [0]).add("rz", [0], (), [angle])
    assert problem(arrays.circuit()) == "operation 1 (rz): a parameter is not a finite number"


@pytest.mark.parametrize("count", [2, 5, 9, 5000])
def test_a_qubit_comes_twice(count: int) -> None:
    wires = [*range(count - 1), 0]
    assert "same qubit twice" in problem(Arrays(5000, 0).add("barrier", wires).circuit())
    assert problem(Arrays(5000, 0).add("barrier", range(count)).circuit()) == ""


def test_a_delay_is_negative() -> None:
    assert "negative" in problem(Arrays(1, 0).add("delay", [0], (), [-1.0]).circuit())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["else"], "operation 0 (else): an else without an if"),
        (["end"], "operation 0 (end): an end without an if"),
        (["if"], "an if without an end"),
        (["if", "else", "else", "end"], "operation 2 (else): an else without"),
        (["if", "end", "end"], "operation 2 (end)"),
        (["if"] * 101 + ["end"] * 101, "nested more than 100"),
    ],
)
def test_blocks_do_not_match(names: list[str], words: str) -> None:
    arrays = Arrays(1, 1)
    for name in names:
        arrays.add(name)
    arrays.conditions = [CLBIT, END] * names.count("if")
    assert words in problem(arrays.circuit())


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([], "1 if blocks, but 0 conditions"),
        ([CLBIT], "does not end"),
        ([END], "does not yield one Bool"),
        ([CLBIT, CLBIT, END], "does not yield one Bool"),
        ([WIDE, END], "does not yield one Bool"),
        ([CLBIT, END, CLBIT, END], "1 if blocks, but 2"),
        ([(25, 0, 0), END], "token 25"),
        ([(-1, 0, 0), END], "token -1"),
        ([(tk.CLBIT, 70, 0), END], "operand 70"),
        ([(tk.CLBIT, -1, 0), END], "operand -1"),
        ([(tk.REGISTER, 2, 67), END], "operand 2"),
        ([(tk.REGISTER, 1, 66), END], "width 66"),
        ([(tk.VALUE, 1, 3), END], "operand 1"),
        ([(tk.VALUE, 0, -1), END], "width -1"),
        ([(tk.VALUE, 0, 70000), END], "width 70000"),
        ([(tk.LOGIC_NOT, 0, 0), END], "lacks an operand"),
        ([CLBIT, (tk.LOGIC_AND, 0, 0), END], "lacks an operand"),
        ([WIDE, (tk.LOGIC_NOT, 0, 0), END], "needs Bools"),
        ([CLBIT, (tk.LOGIC_NOT, 0, 3), END], "width 3"),
        ([CLBIT, WIDE, (tk.BIT_AND, 0, 0), END], "widths differ"),
        ([CLBIT, WIDE, (tk.EQUAL, 0, 0), END], "widths differ"),
        ([CLBIT, CLBIT, (tk.LESS, 0, 0), END], "needs Uints"),
        ([CLBIT, CLBIT, (tk.ADD, 0, 0), END], "needs Uints"),
        ([(tk.REGISTER, 0, 3), WIDE, (tk.ADD, 0, 67), END], "widths differ"),
        ([CLBIT] * 101 + [END], "more than 100 values"),
    ],
)  # fmt: skip
def test_a_condition_is_wrong(tokens: list[tuple[int, int, int]], words: str) -> None:
    assert words in problem(condition(*tokens))


def test_noise_on_the_wire_crashes_check_or_engine() -> None:
    """Whatever check admits, the engine survives."""
    rng = np.random.default_rng(0)
    engine, options = StatevectorEngine(), RunOptions(max_steps=1000)
    originals = [sample().fields(), *(_fields(circuit) for circuit in (bell(), feed_forward()))]
    refused = ran = 0
    for _ in range(6000):
        values = list(originals[rng.integers(3)])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(values)))
            values[at] = _mutated(rng, values[at])
        circuit = Circuit.from_buffers(*values)
        text = problem(circuit)
        assert isinstance(text, str)
        refused += bool(text)
        if text or circuit.num_qubits > 14:
            continue
        bindings = np.zeros((1, circuit.num_slots))
        request = Request(5, 1, ("counts",), (), bindings)
        with suppress(EngineError):
            engine.run(engine.plan(circuit, None, options), circuit, request, options, Control())
            ran += 1
    assert refused > 2000
    assert ran > 100


def _fields(circuit: Circuit) -> tuple:
    return (
        circuit.num_qubits, circuit.num_clbits, circuit.registers, circuit.table.names,
        circuit.table.rows[:, 1:].astype(np.uint16).tobytes(), circuit.ops.tobytes(),
        circuit.qubits.tobytes(), circuit.clbits.tobytes(), circuit.params.tobytes(),
        circuit.num_slots, circuit.slots.tobytes(), circuit.conditions.tobytes(),
        circuit.constants,
    )  # fmt: skip


def _mutated(rng: np.random.Generator, value: object) -> object:
    if isinstance(value, bytes):
        raw = bytearray(value)
        for _ in range(rng.integers(1, 4)):
            kind = rng.integers(4)
            at = int(rng.integers(len(raw) + 1))
            if kind == 0:
                raw[at:at] = rng.bytes(int(rng.choice([1, 2, 8, 12])))
            elif kind == 1:
                del raw[at : at + int(rng.choice([1, 2, 8, 12]))]
            elif at < len(raw):
                raw[at] = int(rng.integers(256)) if kind == 2 else raw[at] ^ 1
        return bytes(raw)
    if isinstance(value, int):
        return value + int(rng.choice([-1, 1, 2, -70000, 2**63, 2**70]))
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        at = int(rng.integers(len(value)))
        name = str(rng.choice(["h", "cx", "if", "end", "measure", "rx", "no such", "barrier"]))
        return (*value[:at], name, *value[at + 1 :])
    if isinstance(value, tuple) and value:
        return value[int(rng.integers(2)) :] + value[: int(rng.integers(2))]
    return value

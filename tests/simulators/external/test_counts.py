"""Counts and texts of external programs."""

import json
import re

import numpy as np
import pytest
from arrays import Arrays
from failing import fails
from hypothesis import given, settings, strategies as st
from qiskit import qasm2
from qiskit.quantum_info import Statevector
from random_circuits import unitary_circuits
from reference import final_state

from simulators.circuit.ir import Circuit, bell
from simulators.errors import BadAnswer, Unsupported
from simulators.external.engine import dump, parse

NWQ = '\n===============  Measurement (tests=10) ================\n"01" : 4\n"11" : 6\ndone\n'


def test_lines_and_json_are_read() -> None:
    assert parse(NWQ, 2, 10) == {1: 4, 3: 6}
    assert parse('log\n{"01": 4, "1 1": 6}\n\n', 2, 10) == {1: 4, 3: 6}
    assert parse('{"00": 10, "01": 0}', 2, 10) == {0: 10}


@given(st.dictionaries(st.integers(0, 31), st.integers(1, 99), min_size=1))
def test_all_counts_are_read_in_either_form(counts: dict[int, int]) -> None:
    texts = {f"{outcome:05b}": count for outcome, count in counts.items()}
    shots = sum(counts.values())
    assert parse(json.dumps(texts), 5, shots) == counts
    lines = "".join(f'"{bits}" : {count}\n' for bits, count in texts.items())
    assert parse(lines, 5, shots) == counts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it printed nothing"),
        ("ready\nno counts here\n", "'no counts here'"),
        ("[1, 2]", "printed no counts"),
        ("42", "printed no counts"),
        ('{"01": 4, "11": 5}', "counted 9 shots; 10"),
        ('{"011": 10}', "'011'; the circuit has 2 clbits"),
        ('{"0x": 10}', "'0x'"),
        ('{"01": 10.0}', "10.0 times"),
        ('{"01": true}', "True times"),
        ('{"01": -1, "11": 11}', "-1 times"),
        ('{"01": 5, "01": 5}', "twice"),
        ('"01" : 5\n"0 1" : 5\n', "twice"),
        ('{"01": 4', "printed no counts"),
        ('{"01":' + "[" * 100_000, "printed no counts"),
        ('{"01": ' + "9" * 5_000 + "}", "printed no counts"),
        ('{"01": ' + "9" * 4_300 + ', "11": ' + "9" * 4_300 + "}", "9999 times"),
        ('{"": 10}', "''; the circuit has"),
        ('"01" : \u0661\u0660', "printed no counts"),
    ],
)
def test_anything_else_is_refused_with_its_fault(text: str, fault: str) -> None:
    caught = fails(BadAnswer, "", parse, text, 2, 10)
    assert fault in caught.message
    assert len(caught.message) < 400


def test_a_circuit_without_clbits_has_no_counts() -> None:
    for text in ('{"": 10}', '" " : 10'):
        fails(BadAnswer, "0 clbits", parse, text, 0, 10)


@given(st.text(max_size=80))
def test_no_text_is_taken_for_counts_by_chance(text: str) -> None:
    fails(BadAnswer, "", parse, text, 70, 10**9)


@settings(max_examples=25, deadline=None)
@given(unitary_circuits(1, 4))
def test_text_has_the_state_of_the_circuit(circuit: Circuit) -> None:
    read = qasm2.loads(dump(circuit, circuit.params))
    read.remove_final_measurements()
    assert set(read.count_ops()) <= {"u3", "cx"}
    assert abs(abs(np.vdot(Statevector(read).data, final_state(circuit))) - 1) < 1e-10


def test_measurements_keep_their_clbits_and_numbers_have_no_exponent() -> None:
    arrays = Arrays(3, 4)
    arrays.add("rx", [1], (), [1e-9])
    arrays.add("measure", [2], [0])
    arrays.add("measure", [0], [3])
    circuit = arrays.circuit()
    text = dump(circuit, circuit.params)
    assert "creg c[4];" in text
    assert "measure q[2] -> c[0];" in text
    assert "measure q[0] -> c[3];" in text
    assert "0.0000000010000000" in text
    assert not re.search(r"\de[-+]?\d", text)
    assert "h q" not in dump(bell(), bell().params)


def test_resets_are_refused() -> None:
    arrays = Arrays(1, 1)
    arrays.add("h", [0])
    arrays.add("reset", [0])
    arrays.add("measure", [0], [0])
    circuit = arrays.circuit()
    with pytest.raises(Unsupported, match="reset"):
        dump(circuit, circuit.params)

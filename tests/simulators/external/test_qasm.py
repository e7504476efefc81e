"""Circuits as OpenQASM 2 of u3 and cx have the same state as the circuits themselves."""

from __future__ import annotations

import re

import numpy as np
import pytest
from arrays import Arrays
from hypothesis import given, settings
from qiskit import qasm2
from qiskit.quantum_info import Statevector
from random_circuits import unitary_circuits
from reference import final_state

from simulators.circuit.examples import bell
from simulators.circuit.ir import Circuit
from simulators.errors import Unsupported
from simulators.external.qasm import dump


@settings(max_examples=25, deadline=None)
@given(unitary_circuits(1, 4))
def test_text_has_the_state_of_the_circuit(circuit: Circuit) -> None:
    read = qasm2.loads(dump(circuit, circuit.params))
    read.remove_final_measurements()
    assert set(read.count_ops()) <= {"u3", "cx"}
    overlap = np.vdot(Statevector(read).data, final_state(circuit))
    assert abs(abs(overlap) - 1) < 1e-10


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

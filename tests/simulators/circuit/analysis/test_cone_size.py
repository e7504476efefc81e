"""Numbers of a light cone in one call equal those of the partition."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays

from simulators.circuit.analysis import profiler
from simulators.circuit.analysis.cone_size import cone_size
from simulators.circuit.ir import Circuit

WIDE = 16


def random_circuit(rng: np.random.Generator) -> Circuit:
    """Wide, with gates that may go, on some of its qubits."""
    arrays = Arrays(WIDE, 6)
    used = int(rng.integers(2, WIDE + 1))
    for _ in range(int(rng.integers(60))):
        a, b, c = (rng.permutation(max(3, used))[:3]).tolist()
        name = str(rng.choice(["cx", "cz", "h", "rz", "ccx", "swap", "id", "measure", "reset"]))
        if name == "measure":
            arrays.add(name, [a], [int(rng.integers(6))])
        else:
            wires = {"cx": [a, b], "cz": [a, b], "swap": [a, b], "ccx": [a, b, c]}.get(name, [a])
            arrays.add(name, wires, (), [0.5] if name == "rz" else [])
    return arrays.add("measure", [0], [0]).circuit()


def test_numbers_of_one_part_are_those_of_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    reduced = 0
    for _ in range(200):
        circuit = random_circuit(rng)
        value, several = cone_size(circuit)
        result = profiler.profile(circuit, ("counts",))
        with monkeypatch.context() as patch:
            patch.setattr(profiler, "cone_size", lambda _: (None, True))
            expected = profiler.profile(circuit, ("counts",))
        assert result == expected
        assert several or result.kept == value
        reduced += value is not None
    assert 40 < reduced < 200


def test_a_circuit_that_is_needed_as_it_is_has_no_numbers_of_its_own() -> None:
    arrays = Arrays(WIDE, 1)
    for qubit in range(WIDE - 1):
        arrays.add("h", [qubit]).add("cx", [qubit, qubit + 1])
    arrays.add("h", [WIDE - 1]).add("measure", [WIDE - 1], [0])
    assert cone_size(arrays.circuit()) == (None, False)

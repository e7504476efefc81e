"""Measurements, resets and conditions before the end of a circuit, by histories of outcomes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from hypothesis import assume, given
from random_circuits import QUIET, dynamic_circuits

from simulators import registry
from simulators.circuit import tokens as tk
from simulators.circuit.gates import FOR, STORE, SWITCH, WHILE
from simulators.circuit.ir import Circuit
from simulators.control import RunControl
from simulators.engine import PauliSum, Request, RunOptions
from simulators.errors import TooManyBranches, TooManySteps, Unsupported
from simulators.results import BindingResult
from simulators.simulate import counts_of, simulate


def run(circuit: Circuit, request: Request, **options: object) -> BindingResult:
    engine = registry.create("mps")
    chosen = RunOptions(**options)  # type: ignore[arg-type]
    result = engine.run(engine.plan(circuit, None, chosen), circuit, request, chosen, RunControl())
    assert result is not None
    return result.row(0)


def histories(num_qubits: int) -> Circuit:
    """Each outcome turns a qubit by another angle, so histories stay different."""
    arrays = Arrays(num_qubits, num_qubits)
    for q in range(num_qubits):
        arrays.add("ry", [q], (), [0.9 + 0.1 * q]).add("cx", [q, (q + 1) % num_qubits])
        arrays.add("measure", [q], [q])
        arrays.begin((tk.CLBIT, q, 0)).add("rx", [q], (), [0.3 + q])
        arrays.add("else").add("ry", [(q + 1) % num_qubits], (), [0.2]).add("end")
    arrays.add("reset", [0]).add("h", [0]).add("cx", [0, 2])
    for q in range(num_qubits):
        arrays.add("measure", [q], [num_qubits - 1 - q])
    return arrays.circuit()


@QUIET
@given(circuit=dynamic_circuits())
def test_counts_are_those_of_the_statevector_engine(circuit: Circuit) -> None:
    codes = circuit.table.rows[circuit.ops, 0]
    assume(not np.isin(codes, (FOR, WHILE, SWITCH, STORE)).any())
    assume(not circuit.variables)
    result = simulate(circuit, shots=200, seed=4, binding=1, engine="mps")
    outcome = simulate(circuit, shots=200, seed=4, binding=1, engine="statevector")
    assert counts_of(result.row(0)) == counts_of(outcome.row(0))


def test_counts_memory_and_exact_results_match_the_statevector_engine() -> None:
    circuit = histories(5)
    sampled = {"shots": 400, "seed": 9, "outputs": ("counts", "memory")}
    result = simulate(circuit, engine="mps", **sampled)  # type: ignore[call-overload]
    outcome = simulate(circuit, engine="statevector", **sampled)  # type: ignore[call-overload]
    assert (result.outcomes, result.counts, result.memory) == (
        outcome.outcomes, outcome.counts, outcome.memory
    )  # fmt: skip
    assert int(result.remark.split()[-2]) > 20
    sums = tuple(PauliSum((label,), np.ones(1)) for label in ("ZZIII", "IIZIZ", "IIIII"))
    exact = {"shots": 0, "outputs": ("probabilities", "expectation"), "observables": sums}
    result = simulate(circuit, engine="mps", **exact)  # type: ignore[call-overload]
    outcome = simulate(circuit, engine="statevector", **exact)  # type: ignore[call-overload]
    assert result.probability_outcomes == outcome.probability_outcomes
    probs = [np.frombuffer(each.probabilities) for each in (result, outcome)]
    assert np.abs(probs[0] - probs[1]).max() < 1e-10
    means = [np.frombuffer(each.expectations) for each in (result, outcome)]
    assert np.abs(means[0] - means[1]).max() < 1e-10


def test_wide_circuit_teleports_a_qubit_along_a_chain() -> None:
    """80 qubits: each hop measures two of them and corrects the next one."""
    hops = 40
    arrays = Arrays(2 * hops + 1, 2 * hops + 1).add("ry", [0], (), [1.1])
    for hop in range(hops):
        a, b, c = 2 * hop, 2 * hop + 1, 2 * hop + 2
        arrays.add("h", [b]).add("cx", [b, c]).add("cx", [a, b]).add("h", [a])
        arrays.add("measure", [a], [a]).add("measure", [b], [b])
        arrays.begin((tk.CLBIT, b, 0)).add("x", [c]).add("end")
        arrays.begin((tk.CLBIT, a, 0)).add("z", [c]).add("end")
    last = 2 * hops
    arrays.add("ry", [last], (), [-1.1]).add("measure", [last], [last])
    counts = counts_of(simulate(arrays.circuit(), shots=20, seed=1, engine="mps").row(0))
    assert all(not outcome >> last for outcome in counts)
    assert len(counts) == 20


def test_reset_before_expectation_values_is_carried_out() -> None:
    circuit = Arrays(2, 0).add("h", [0]).add("cx", [0, 1]).add("reset", [0]).circuit()
    sums = tuple(PauliSum((label,), np.ones(1)) for label in ("IZ", "ZI", "ZZ"))
    result = simulate(circuit, shots=0, engine="mps", outputs=("expectation",), observables=sums)
    assert np.frombuffer(result.expectations)[0::2] == pytest.approx([1.0, 0.0, 0.0], abs=1e-12)


def test_limits_are_refused_with_the_way_out() -> None:
    circuit = histories(6)
    with pytest.raises(TooManyBranches, match="more than 3 histories") as caught:
        run(circuit, Request(0, 1, ("probabilities",)), max_branches=3)
    assert "statevector" in caught.value.hint
    with pytest.raises(TooManySteps, match="in all histories"):
        run(circuit, Request(500, 1), max_steps=100)
    with pytest.raises(Unsupported, match="a statevector was asked for"):
        run(circuit, Request(0, 1, ("statevector",)))


def test_histories_share_no_state() -> None:
    """Fewer shots are a part of more."""
    circuit = histories(5)
    few, value = (run(circuit, Request(shots, 3, ("memory",))).memory for shots in (50, 400))
    assert value[: len(few)] == few
    assert msgspec.structs.replace(run(circuit, Request(50, 3)), remark="") == (
        msgspec.structs.replace(run(circuit, Request(50, 3)), remark="")
    )

"""Counts of fixed seeds, expectation values and gradients are those that were written down.

tests/golden/counts/counts.json has a SHA-256 hash of the counts of each circuit and precision, or
of exact values; where a hash would hang on the last bit of a float, the values themselves, with ten
decimals. Engines that keep the seed contract are all held against the same hash. A draw of 53 bits
decides otherwise on another processor only if it is within 1e-15 of a border, 1e-7 in single
precision: wide circuits are therefore drawn in double precision only. The stabilizer engine's draws
are stim's: they are compared where stim has that version and takes vectors of that width, its exact
probabilities everywhere.

    PYTHONPATH=tests/support .venv/bin/python tests/compatibility/test_counts.py --write
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from among_ranks import outcomes
from engines import Runner, present
from frozen_circuits import CLIFFORD, DYNAMIC, STATES, STATIC, UNMEASURED, Numbers, with_parameters

from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum
from simulators.simulate import counts_of
from testbed.ranks import mpirun

FILE = Path(__file__).parents[1] / "golden" / "counts" / "counts.json"
SEED, SHOTS, LARGE_SEED = 7, 1000, 2**64 - 5
FEW_QUBITS = 5  # in single precision
NARROW_QUBITS = 6  # of a chain of tensors, whose amplitudes have fewer digits
WIDE_QUBITS = 14  # run with several threads too
DECIMALS = 10
TOLERANCE = 2e-10
CONTRACT = ("statevector", "statevector-dense", "aer", "mps")
BRANCHING = ("statevector", "statevector-dense")
FITTING = {"mps": NARROW_QUBITS, "statevector-dense": 14}  # the widest circuits they are given

Values = dict[str, Any]


def digest(counts: Iterable[dict[int, int]]) -> str:
    text = json.dumps(
        [sorted((f"{key:x}", value) for key, value in each.items()) for each in counts]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def static(run: Runner) -> Values:
    mapping = {}
    for name, circuit in STATIC.items():
        if circuit.num_qubits <= FITTING.get(run.name, 64):
            mapping[name] = digest([counts_of(run(circuit, shots=SHOTS, seed=SEED, threads=2))])
    mapping["a large seed"] = digest(
        [counts_of(run(STATIC["random, 4 qubits"], shots=SHOTS, seed=LARGE_SEED, binding=3))]
    )
    return mapping


def single(run: Runner) -> Values:
    return {
        name: digest([counts_of(run(circuit, shots=SHOTS, seed=SEED, precision="single"))])
        for name, circuit in {**STATIC, **DYNAMIC}.items()
        if circuit.num_qubits <= FEW_QUBITS
    }


def dynamic(run: Runner) -> Values:
    return {
        name: digest([counts_of(run(circuit, shots=SHOTS, seed=SEED))])
        for name, circuit in DYNAMIC.items()
    }


def sweeps(run: Runner) -> Values:
    """Rows that travel together; `binding` is the number of the first."""
    mapping = {}
    for qubits, layers, rows in ((1, 1, 30), (4, 2, 12), (6, 1, 5)):
        circuit = with_parameters(qubits, layers)
        bindings = angles(circuit, rows)
        results = run.all(circuit, bindings=bindings, shots=200, seed=SEED, binding=10)
        mapping[f"{rows} rows of {qubits} qubits"] = digest(map(counts_of, results))
    return mapping


def stabilizer(run: Runner) -> Values:
    """Exact odds, powers of two."""
    mapping = {}
    for name, circuit in CLIFFORD.items():
        if circuit.num_qubits <= FEW_QUBITS:
            exact = run(circuit, outputs=("probabilities",))
            text = exact.probability_outcomes.hex() + exact.probabilities.hex()
            mapping[name] = hashlib.sha256(text.encode()).hexdigest()
    return mapping


def stim_counts(run: Runner) -> Values:
    return {
        name: digest([counts_of(run(circuit, shots=SHOTS, seed=SEED))])
        for name, circuit in CLIFFORD.items()
    }


def stim_draws() -> str:
    """What stim's random numbers depend on."""
    import stim
    from stim._detect_machine_architecture import _UNSTABLE_detect_march

    return f"stim {stim.__version__}, {_UNSTABLE_detect_march()}"


def angles(circuit: Circuit, rows: int) -> np.ndarray:
    outcome = Numbers(rows)
    return np.array([[outcome.angle() for _ in range(circuit.num_slots)] for _ in range(rows)])


def observables(qubits: int) -> tuple[PauliSum, ...]:
    neighbours = tuple("I" * k + "ZZ" + "I" * (qubits - 2 - k) for k in range(qubits - 1))
    field = tuple("I" * k + "X" + "I" * (qubits - 1 - k) for k in range(qubits))
    return (
        PauliSum(neighbours, np.linspace(0.5, 1.5, qubits - 1)),
        PauliSum(field, np.linspace(-1, 1, qubits)),
        PauliSum(("Y" * qubits, "X" * qubits), np.array([0.25, -2.0])),
    )


def rounded(values: Any) -> list[float]:
    return [round(value, DECIMALS) + 0.0 for value in np.ravel(values).tolist()]


def values(run: Runner) -> Values:
    """Expectation values and gradients of two rows; expectation values of 500 shots."""
    outcome: Values = {}
    for qubits, layers in ((2, 1), (5, 2), (15, 1)):
        circuit = with_parameters(qubits, layers, measured=False)
        mapping = {"observables": observables(qubits), "bindings": angles(circuit, 2)}
        outputs = ("expectation", "gradient") if run.name == "statevector" else ("expectation",)
        for name, shots, wanted in (("exact", 0, outputs), ("500 shots", 500, outputs[:1])):
            for row, result in enumerate(run.all(circuit, shots=shots, outputs=wanted, **mapping)):
                actual = {"expectations": rounded(result.expectations)}
                if "gradient" in wanted:
                    actual["gradients"] = rounded(result.gradients)
                outcome[f"{qubits} qubits, {name}, row {row}"] = actual
    return outcome


def amplitudes(run: Runner) -> Values:
    """Real and imaginary parts of final states; means of Z after branches."""
    mapping = {}
    for name, circuit in STATES.items():
        state = run(circuit, outputs=("statevector",)).statevector
        assert state is not None
        mapping[name] = {"amplitudes": rounded([state.real, state.imag])}
    for name, circuit in UNMEASURED.items():
        entries = (PauliSum(("Z" * circuit.num_qubits,), np.ones(1)),)
        result = run(circuit, outputs=("expectation",), observables=entries)
        mapping[name] = {"expectations": rounded(result.expectations)}
    return mapping


TABLES: dict[str, tuple[Callable[[Runner], Values], tuple[str, ...]]] = {
    "static circuits, double precision": (static, CONTRACT),
    "circuits of few qubits, single precision": (single, BRANCHING),
    "circuits with branches, double precision": (dynamic, BRANCHING),
    "parameter sweeps": (sweeps, CONTRACT),
    "exact probabilities of the stabilizer engine": (stabilizer, ("stabilizer",)),
}
CASES = [(table, engine) for table, (_, engines) in TABLES.items() for engine in engines]


def stored(table: str) -> Values:
    item: Values = json.loads(FILE.read_text())[table]
    return item


def runner(name: str) -> Runner:
    if not present(name):
        pytest.skip(f"what engine {name!r} needs is not installed")
    return Runner(name)


@pytest.mark.parametrize(("table", "engine"), CASES)
def test_counts_of_fixed_seeds_equal_stored_hashes(table: str, engine: str) -> None:
    compute, engines = TABLES[table]
    result, expected = compute(runner(engine)), stored(table)
    assert result == {name: expected.get(name) for name in result}
    if engine == engines[0]:
        assert set(result) == set(expected)


def test_stabilizer_counts_equal_stored_hashes_for_same_stim_version() -> None:
    run = runner("stabilizer")
    expected = stored("counts of the stabilizer engine")
    if stim_draws() not in expected:
        pytest.skip(f"written down for {', '.join(expected)}, not for {stim_draws()}")
    assert stim_counts(run) == expected[stim_draws()]


@pytest.mark.parametrize("engine", ["statevector", "aer"])
def test_expectation_values_and_gradients_equal_stored_values(engine: str) -> None:
    assert_close(values(runner(engine)), stored("expectation values and gradients"))


def test_final_states_equal_stored_amplitudes() -> None:
    assert_close(amplitudes(runner("statevector")), stored("final states"))


def assert_close(found: Values, expected: Values) -> None:
    assert set(found) == set(expected)
    for name, result in found.items():
        for what, value in result.items():
            np.testing.assert_allclose(value, expected[name][what], rtol=0, atol=TOLERANCE)


@pytest.mark.skipif(
    mpirun() is None or importlib.util.find_spec("mpi4py") is None, reason="there is no MPI"
)
@pytest.mark.parametrize("ranks", [2, 4])
def test_stored_counts_and_values_are_reproduced_on_2_and_4_ranks(ranks: int) -> None:
    cases = ["case_static_circuits", "case_circuits_with_branches", "case_values"]
    result = outcomes([Path(__file__).with_name("cases_counts.py")], ranks, cases)
    assert result == dict.fromkeys(cases, "")


def write() -> None:
    mapping = {
        table: compute(Runner(engines[0]))
        for table, (compute, engines) in TABLES.items()
        if present(engines[0])
    }
    mapping["counts of the stabilizer engine"] = {stim_draws(): stim_counts(Runner("stabilizer"))}
    mapping["expectation values and gradients"] = values(Runner("statevector"))
    mapping["final states"] = amplitudes(Runner("statevector"))
    FILE.write_text(json.dumps(mapping, indent=1) + "\n")


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write()

"""RunProgress of every engine: what is counted, that it never falls, and that it ends with all work
done."""

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engines import present
from noisy import after_gates, program
from noisy_runs import bit, device_noise
from watched_progress import WatchedControl

from noise_models.channel import depolarizing
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import PauliSum, RunProgress
from simulators.simulate import simulate
from simulators.statevector.trajectories import walks

COUNTS = {"outputs": ("counts",), "shots": 600}


def sums(num_qubits: int, count: int) -> dict[str, object]:
    """Z on each of some qubits, exactly."""
    rows = ["I" * (num_qubits - 1 - k) + "Z" + "I" * k for k in range(count)]
    return {
        "outputs": ("expectation",),
        "observables": (PauliSum(tuple(rows), np.ones(count)),),
        "shots": 0,
    }


def gates(arrays: Arrays, qubits: range, layers: int) -> Arrays:
    """Gates on one and on two qubits."""
    random = np.random.default_rng(1)
    for layer in range(layers):
        for qubit in qubits:
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for qubit in qubits[layer % 2 : -1 : 2]:
            arrays.add("cx", [qubit, qubit + 1])
    return arrays


def plain(num_qubits: int, layers: int = 6) -> Circuit:
    return gates(Arrays(num_qubits, 0), range(num_qubits), layers).circuit()


def measured(num_qubits: int, layers: int = 6) -> Circuit:
    arrays = gates(Arrays(num_qubits, num_qubits), range(num_qubits), layers)
    return arrays.measure(range(num_qubits)).circuit()


def two_components() -> Circuit:
    arrays = gates(Arrays(27, 27), range(13), 6)
    return gates(arrays, range(13, 27), 6).measure(range(27)).circuit()


def dynamic(num_qubits: int) -> Circuit:
    """A measurement that an operation depends on."""
    arrays = gates(Arrays(num_qubits, num_qubits), range(num_qubits), 2).measure([0])
    arrays.begin(bit(0)).add("x", [1]).add("end")
    return gates(arrays, range(num_qubits), 2).measure(range(num_qubits)).circuit()


def clifford() -> Circuit:
    arrays = Arrays(20, 20).add("h", [0])
    for qubit in range(19):
        arrays.add("cx", [qubit, qubit + 1])
    return arrays.measure(range(20)).circuit()


CASES = [
    ("statevector", measured(22), COUNTS, "passes"),
    ("statevector", plain(22), sums(22, 22), "passes"),
    ("statevector", two_components(), COUNTS, "components"),
    ("statevector", dynamic(14), COUNTS, "shots"),
    ("densitymatrix", measured(9), {"outputs": ("probabilities",), "shots": 0}, "operations"),
    ("densitymatrix", plain(9), sums(9, 9), "operations"),
    ("stabilizer", clifford(), {"outputs": ("counts",), "shots": 60_000}, "shots"),
    ("near_clifford", clifford(), {"outputs": ("counts",), "shots": 60_000}, "shots"),
    ("sweep", measured(12, 1), COUNTS, "shots"),
    ("contraction", measured(22, 1), COUNTS, "shots"),
    ("contraction", plain(22, 1), sums(22, 3), "strings"),
    ("mps", measured(14), COUNTS, "operations"),
    ("mps", plain(14), sums(14, 3), "operations"),
    ("mps", dynamic(8), COUNTS, "shots"),
    ("pauli", plain(8, 2), sums(8, 3), "strings"),
    ("dmt", measured(9, 3), COUNTS, "operations"),
    ("dmt", plain(9, 3), sums(9, 3), "operations"),
    ("peps", measured(6, 2), COUNTS, "shots"),
    ("peps", plain(6, 2), sums(6, 3), "strings"),
    ("aer", measured(14), COUNTS, "operations"),
    ("aer", dynamic(4), {"outputs": ("counts",), "shots": 20_000}, "shots"),
    ("quimb", measured(22, 1), COUNTS, "operations"),
]
NOISY = [
    ("statevector", 13, "trajectories"),
    ("densitymatrix", 9, "operations"),
    ("dmt", 9, "operations"),
    ("mps", 8, "trajectories"),
    ("sweep", 8, "shots"),
]


def followed(
    engine: str, circuit: Circuit, noise: NoiseProgram | None, **terms: object
) -> RunProgress:
    """The progress at the end of a run, which was checked to grow."""
    if not present(engine):
        pytest.skip(f"engine {engine} is not installed")
    control = WatchedControl()
    simulate(circuit, engine=engine, control=control, noise=noise, **terms)  # type: ignore[arg-type]
    fractions = [each.fraction for each in control.seen]
    assert fractions == sorted(fractions)
    assert any(0.0 < fraction < 1.0 for fraction in fractions)
    assert all(0 <= each.done <= each.total for each in control.seen)
    last = control.progress
    assert (last.fraction, last.before) == (pytest.approx(1.0), 0.0)
    assert last.done == last.total > 1
    return last


@pytest.mark.parametrize(("engine", "circuit", "terms", "unit"), CASES)
def test_progress_of_engine(
    engine: str, circuit: Circuit, terms: dict[str, object], unit: str
) -> None:
    last = followed(engine, circuit, None, **terms)
    assert last.unit == unit
    if unit == "shots":
        assert last.total == terms["shots"]


@pytest.mark.parametrize(("engine", "num_qubits", "unit"), NOISY)
def test_progress_of_engine_with_noise(engine: str, num_qubits: int, unit: str) -> None:
    circuit = measured(num_qubits, 2)
    outputs = ("probabilities",) if engine == "densitymatrix" else ("counts",)
    shots = 0 if engine == "densitymatrix" else 300
    noise = program(device_noise(circuit, 1.0))
    last = followed(engine, circuit, noise, outputs=outputs, shots=shots)
    assert last.unit == unit
    if unit == "trajectories":
        assert last.total == shots


def test_long_trajectories_of_few_qubits_are_counted_in_ranges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walks, "_LONG_WORK", 0)
    circuit = measured(6, 2)
    noise = program(device_noise(circuit, 1.0))
    last = followed("statevector", circuit, noise, outputs=("counts",), shots=2_000)
    assert (last.unit, last.total) == ("trajectories", 2_000)


def test_progress_of_peps_with_noise_counts_trajectories() -> None:
    circuit, flips = measured(6, 2), depolarizing(0.1, 1)
    located = after_gates(circuit, lambda row: [(row.qubits, flips)] * (row.name == "u"))
    noise = msgspec.structs.replace(program(located), kinds=frozenset({"pauli"}))
    last = followed("peps", circuit, noise, outputs=("counts",), shots=40)
    assert (last.unit, last.total) == ("trajectories", 40)


def test_passes_of_bindings_are_counted_together() -> None:
    arrays = gates(Arrays(14, 0), range(14), 4).add("rx", [0], (), [0.0])
    arrays.free(0)
    totals = []
    for count in (1, 3):
        control = WatchedControl()
        values = np.zeros((count, 1))
        terms = {**sums(14, 14), "bindings": values}
        simulate(arrays.circuit(), control=control, **terms)  # type: ignore[arg-type]
        totals.append(control.progress.total)
        assert control.progress == RunProgress("passes", totals[-1], totals[-1], 1.0)
    assert totals[1] == 3 * totals[0]


def test_passes_over_few_amplitudes_are_little_of_the_work() -> None:
    control = WatchedControl()  # the first gates act on |0...0>: most amplitudes are still 0
    simulate(measured(22, 20), control=control, **COUNTS)  # type: ignore[arg-type]
    halfway = next(each for each in control.seen if each.done >= each.total / 2)
    assert halfway.done < halfway.total
    assert halfway.fraction < 0.3

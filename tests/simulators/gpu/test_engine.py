"""Engine on a device that g++ compiles: results of the engine `statevector`, and refusals."""

import weakref
from pathlib import Path
from typing import Any

import gpu_exercise
import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from numpy.typing import DTypeLike, NDArray
from random_circuits import random_static

from simulators.circuit.gates import PERMUTATION, PHASE
from simulators.circuit.ir import Circuit, ghz
from simulators.engine import PauliSum, Request, RunControl, RunOptions, ThreadPool
from simulators.errors import OutOfMemory, Stopped, Unsupported
from simulators.execution.requests import bind
from simulators.gpu.engine import GpuEngine
from simulators.gpu.reductions import gate_matrices
from simulators.simulate import counts_of, simulate
from simulators.statevector.backend.gate_list import plan_gate_list
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.small.gate_kernels import KIND
from testbed.host_device import HostDevice


@pytest.fixture
def engine(device: HostDevice) -> GpuEngine:
    return GpuEngine(device)


def ansatz(n: int, layers: int = 2, *, measured: bool = True) -> Circuit:
    """Layers of rotations with a free parameter each, and of entangling gates."""
    arrays = Arrays(n, n if measured else 0)
    slot = 0
    for _ in range(layers):
        for q in range(n):
            arrays.add("ry", [q], (), [0.0])
            arrays.free(slot)
            arrays.add("rz", [q], (), [0.0])
            arrays.free(slot + 1)
            slot += 2
        for q in range(n - 1):
            arrays.add("cx", [q, q + 1])
        arrays.add("rzz", [0, n - 1], (), [0.0])
        arrays.free(slot)
        slot += 1
    return arrays.measure(range(n if measured else 0)).circuit()


def values(circuit: Circuit, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, (rows, circuit.num_slots))


def strings(n: int, number: int) -> tuple[PauliSum, ...]:
    rng = np.random.default_rng(number)
    labels = ["".join(rng.choice(list("IXYZ"), n)) for _ in range(number)]
    return (PauliSum(tuple(labels), rng.normal(size=number)), PauliSum(("Z" * n,), np.ones(1)))


def test_circuit_of_permutations_alone_has_the_one_outcome_of_its_bits(engine: GpuEngine) -> None:
    arrays = Arrays(13, 13).add("x", [12])
    for q in range(12, 0, -1):
        arrays.add("cx", [q, q - 1])
    result = run(engine, arrays.measure(range(13)).circuit(), Request(100, 1))
    assert counts_of(result.row(0)) == {2**13 - 1: 100}


@pytest.mark.parametrize("n", [4, 14])
def test_expectation_values_of_many_bindings_are_reduced_together(
    engine: GpuEngine, device: HostDevice, n: int
) -> None:
    circuit = ansatz(n, measured=False)
    request = Request(0, 1, ("expectation",), strings(n, 12), values(circuit, 3))
    result = run(engine, circuit, request)
    groups = len({label.translate(str.maketrans("IZXY", "0011")) for item in request.observables
                  for label in item.labels})  # fmt: skip
    assert sum(name.startswith("pauli_sums") for name in device.launches) == groups
    expected = run(StatevectorEngine(), circuit, request)
    for k in range(3):
        np.testing.assert_allclose(
            result.row(k).expectations, expected.row(k).expectations, atol=1e-12
        )


@pytest.mark.parametrize("n", [3, 12, 14])
def test_statevector_and_probabilities_agree_with_statevector(engine: GpuEngine, n: int) -> None:
    circuit = random_static(n, 50, n, 0)
    request = Request(0, 1, ("statevector", "probabilities"))
    result, expected = run(engine, circuit, request), run(StatevectorEngine(), circuit, request)
    assert result.statevector is not None
    assert expected.statevector is not None
    assert np.abs(result.statevector - expected.statevector).max() < 1e-13
    assert result.probability_outcomes == expected.probability_outcomes
    np.testing.assert_allclose(
        np.frombuffer(result.probabilities), np.frombuffer(expected.probabilities), atol=1e-13
    )


def test_probabilities_of_some_qubits_agree_with_the_statevector_engine(engine: GpuEngine) -> None:
    arrays = Arrays(14, 3)
    for q in range(14):
        arrays.add("ry", [q], (), [0.3 + q]).add("cx", [q, (q + 5) % 14])
    for clbit, qubit in enumerate((9, 2, 13)):
        arrays.add("measure", [qubit], [clbit])
    circuit, request = arrays.circuit(), Request(0, 1, ("probabilities",))
    result, expected = run(engine, circuit, request), run(StatevectorEngine(), circuit, request)
    assert result.probability_outcomes == expected.probability_outcomes
    np.testing.assert_allclose(
        np.frombuffer(result.probabilities), np.frombuffer(expected.probabilities), atol=1e-13
    )


@pytest.mark.parametrize(("n", "layers"), [(2, 2), (4, 40), (5, 2), (13, 1)])
def test_gradients_agree_with_statevector_engine(engine: GpuEngine, n: int, layers: int) -> None:
    circuit = ansatz(n, layers, measured=False)
    assert (circuit.num_slots > 256) == (layers == 40), "more than a launch sums"
    request = Request(0, 1, ("expectation", "gradient", "statevector"), strings(n, 5),
                      values(circuit, 1))  # fmt: skip
    result, expected = run(engine, circuit, request), run(StatevectorEngine(), circuit, request)
    made, wanted = np.frombuffer(result.gradients), np.frombuffer(expected.gradients)
    np.testing.assert_allclose(made, wanted, atol=1e-11 if layers == 40 else 1e-12)


@pytest.mark.parametrize("qubits", [1, 4, 6])
def test_matrices_that_are_not_fused_agree_with_statevector(engine: GpuEngine, qubits: int) -> None:
    rng = np.random.default_rng(qubits)
    size = 1 << qubits
    matrix = np.linalg.qr(rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size)))[0]
    for n in (qubits, 13):
        arrays = Arrays(n, 0)
        for q in range(n):
            arrays.add("ry", [q], (), [0.4 * q + 0.1])
        arrays.unitary(matrix, rng.permutation(n)[:qubits].tolist()).add("h", [0])
        request = Request(0, 1, ("statevector",))
        statevector = run(engine, arrays.circuit(), request).statevector
        expected = run(StatevectorEngine(), arrays.circuit(), request).statevector
        assert statevector is not None
        assert expected is not None
        assert np.abs(statevector - expected).max() < 1e-13


def test_state_larger_than_the_device_is_refused_before_it_is_allocated(library: Path) -> None:
    device = HostDevice(library, free_bytes=2**18)  # 14 qubits in double precision
    engine = GpuEngine(device)
    request = Request(0, 1, ("statevector",))
    circuit = random_static(15, 30, 1, 0)
    with pytest.raises(OutOfMemory, match=r"15 qubits .* needs 0\.00 GiB; host has") as caught:
        run(engine, circuit, request)
    assert "14 in double or 15 in single precision" in caught.value.hint
    assert device.launches == []
    assert run(engine, circuit, request, precision="single").statevector is not None
    assert engine.ledger.reserved_bytes == 0


def test_matrix_on_too_many_qubits_is_refused_by_name(engine: GpuEngine) -> None:
    circuit = Arrays(13, 0).unitary(np.eye(2), range(13)).circuit()  # nobody reads it
    with pytest.raises(Unsupported, match="a matrix on 13 qubits; engine 'gpu' takes 12"):
        engine.plan(circuit, None, RunOptions())


def test_run_is_stopped_between_launches(library: Path) -> None:
    control = RunControl()

    class StoppingDevice(HostDevice):
        def launch(self, kernel: str, *arguments: object, **named: object) -> None:
            super().launch(kernel, *arguments, **named)  # type: ignore[arg-type]
            if kernel.startswith("sweep"):
                control.stop()

    device = StoppingDevice(library)
    engine = GpuEngine(device)
    circuit = random_static(14, 300, 1, 14)
    plan = engine.plan(circuit, None, RunOptions())
    with pytest.raises(Stopped):
        engine.run(plan, circuit, Request(10, 1), RunOptions(), control)
    assert sum(name.startswith("sweep") for name in device.launches) == 1
    assert control.progress.done == 1


class PooledDevice(HostDevice):
    """One whose freed memory is that of the next buffer of its size, as in CuPy's pool."""

    def __init__(self, library: Path) -> None:
        super().__init__(library)
        self._free: dict[object, list[NDArray[Any]]] = {}

    def empty(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        free = self._free.setdefault((count, np.dtype(dtype)), [])
        memory = free.pop() if free else super().empty(count, dtype)
        result = memory[:]
        weakref.finalize(result, free.append, memory)
        return result


def test_sweeps_of_bindings_one_after_another_are_replayed(library: Path) -> None:
    circuit = gpu_exercise.circuit(14, measured=True)
    request = Request(200, 5, bindings=values(circuit, 6))
    device = PooledDevice(library)
    result = run(GpuEngine(device), circuit, request)
    assert device.replays >= 3, "two states are held in turn, each is met twice before"
    assert result == run(StatevectorEngine(), circuit, request)


def test_program_of_a_structure_is_uploaded_once(engine: GpuEngine) -> None:
    circuit = ansatz(13)
    plan = engine.plan(circuit, None, RunOptions())
    request = Request(100, 1, bindings=values(circuit, 2))
    engine.run(plan, circuit, request, RunOptions(), RunControl())
    table = dict(engine._programs._made)
    engine.run(plan, circuit, request, RunOptions(), RunControl())
    assert engine._programs._made == table
    assert len(table) == 1


def test_counts_of_wide_ghz_state_are_those_of_the_statevector_engine(engine: GpuEngine) -> None:
    request = Request(1000, 9)
    expected = simulate(ghz(17), shots=1000, seed=9)
    assert counts_of(run(engine, ghz(17), request).row(0)) == counts_of(expected.row(0))


def test_matrices_of_many_rows_are_those_of_each_row() -> None:
    """Among them operations without parameters, constants, and parameters used twice."""
    arrays = Arrays(4, 2).add("h", [3]).add("rx", [0], (), [0.0])
    arrays.free(1)
    arrays.add("cu", [0, 2], (), [0.1, 0.2, 0.3, 0.4])
    arrays.free(1)
    arrays.add("barrier", [0, 1]).add("rzz", [1, 3], (), [0.0])
    arrays.free(0)
    circuit = arrays.add("measure", [0], [0]).add("measure", [3], [1]).circuit()
    segment = plan_gate_list(circuit, 0, circuit.ops.size, 0, 0)
    request = Request(1, 1, bindings=values(circuit, 5))
    rows = [bind(circuit, request, row) for row in range(5)]
    with ThreadPool(2, RunControl()) as pool:
        result = gate_matrices(circuit, segment, np.stack(rows), pool)
    used = [{PHASE: 2, PERMUTATION: 0}.get(kind, 8) for kind in segment.steps[:, KIND].tolist()]
    for row, params in enumerate(rows):
        expected = segment.floats(circuit, params)
        for step, count in enumerate(used):
            assert (result[row, step, :count] == expected[step, :count]).all()

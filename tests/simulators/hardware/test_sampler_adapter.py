"""A machine without errors gives the ideal distribution, bit for bit where we put the bits."""

import math
from collections import Counter
from typing import Any

import engine_runs
import machines
import numpy as np
import pytest
from arrays import Arrays
from qiskit.providers.fake_provider import GenericBackendV2
from reference import Reference

from simulators.circuit.ir import Circuit, feed_forward
from simulators.engine import EngineResult, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.hardware.engine import HardwareEngine
from simulators.hardware.jobs import SamplerAdapter
from simulators.simulate import counts_of

SHOTS = 4_000
# Of a machine without errors, said by Aer.
pytestmark = pytest.mark.filterwarnings("ignore:Qiskit backend:UserWarning")


def ran(
    engine: HardwareEngine, circuit: Circuit, shots: int = SHOTS, **request: object
) -> EngineResult:
    return engine_runs.run(engine, circuit, Request(shots, 3, **request))  # type: ignore[arg-type]


def assert_same_distribution(found: dict[int, int], expected: dict[int, int], shots: int) -> None:
    """Chi-square of two samples, rare outcomes together, at five sigma."""
    keys = set(found) | set(expected)
    rare = {key for key in keys if found.get(key, 0) + expected.get(key, 0) < 20}
    cells = [(found.get(key, 0), expected.get(key, 0)) for key in keys - rare]
    cells.append((sum(found.get(k, 0) for k in rare), sum(expected.get(k, 0) for k in rare)))
    cells = [cell for cell in cells if sum(cell)]
    assert sum(a for a, _ in cells) == sum(b for _, b in cells) == shots
    chi2 = sum((a - b) ** 2 / (a + b) for a, b in cells)
    freedom = max(1, len(cells) - 1)
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom), (found, expected)


def entangled(seed: int) -> Arrays:
    """Gates the machine has none of, over four qubits."""
    rng = np.random.default_rng(seed)
    arrays = Arrays(4, 5, [("low", 2), ("high", 3)])
    for _ in range(12):
        a, b = rng.permutation(4)[:2].tolist()
        arrays.add("ry", [a], (), [rng.uniform(0, 3)]).add("crx", [a, b], (), [rng.uniform(0, 3)])
        arrays.add("swap", [a, b])
    return arrays


@pytest.mark.parametrize("machine", ["ideal", "aer"])
@pytest.mark.parametrize("seed", range(3))
def test_ideal_device_gives_reference_distribution(machine: str, seed: int) -> None:
    arrays = entangled(seed)
    for qubit, clbit in ((0, 4), (1, 0), (2, 3), (3, 1)):
        arrays.add("measure", [qubit], [clbit])
    circuit = arrays.circuit()
    result = ran(HardwareEngine(getattr(machines, machine)()), circuit)
    expected = Reference(circuit, 5, 0, SHOTS).counts()
    assert_same_distribution(counts_of(result.row(0)), expected, SHOTS)


@pytest.mark.parametrize("machine", ["ideal", "aer"])
def test_counts_have_bits_at_their_clbits(machine: str) -> None:
    """Each clbit of several registers alone, one that nobody writes, and two that come twice."""
    engine = HardwareEngine(getattr(machines, machine)())
    for each in range(4):
        arrays = Arrays(4, 6, [("a", 1), ("b", 3), ("c", 2)]).add("x", [each])
        for qubit, clbit in ((0, 5), (1, 2), (2, 0), (3, 4)):
            arrays.add("measure", [qubit], [clbit])
        assert counts_of(ran(engine, arrays.circuit(), 50).row(0)) == {1 << (5, 2, 0, 4)[each]: 50}


@pytest.mark.parametrize("machine", ["ideal", "aer"])
def test_mid_circuit_measurements_reset_and_feed_forward_are_correct(machine: str) -> None:
    engine = HardwareEngine(getattr(machines, machine)())
    arrays = Arrays(2, 3).add("x", [0]).add("measure", [0], [2]).add("x", [0])
    arrays.add("measure", [0], [0]).add("reset", [0]).add("x", [1]).add("measure", [1], [1])
    assert counts_of(ran(engine, arrays.circuit(), 40).row(0)) == {0b110: 40}
    result = counts_of(ran(engine, feed_forward()).row(0))
    assert_same_distribution(result, Reference(feed_forward(), 5, 0, SHOTS).counts(), SHOTS)


def test_bindings_keep_order_and_share_jobs() -> None:
    machine = machines.Faulty(max_circuits=2)
    engine = HardwareEngine(machine)
    arrays = Arrays(2, 2).add("rx", [0], (), [0.0])
    arrays.free(1)
    arrays.add("rx", [1], (), [0.0])
    arrays.free(0)
    circuit = arrays.add("measure", [0], [0]).add("measure", [1], [1]).circuit()
    values = np.array([[0, 0], [np.pi, 0], [0, np.pi], [np.pi, np.pi], [0, np.pi]])
    ideal = HardwareEngine(machines.ideal())
    result = ran(ideal, circuit, 30, bindings=values)
    assert [counts_of(result.row(k)) for k in range(5)] == [
        {0: 30}, {2: 30}, {1: 30}, {3: 30}, {1: 30}
    ]  # fmt: skip
    fixed = Arrays(2, 2).add("x", [0]).add("measure", [0], [1]).circuit()
    plan = engine.plan(fixed, None, RunOptions())
    counts = engine.machine.counts([plan.full_circuit] * 5, 30, (1, 0), RunControl())  # type: ignore[attr-defined]
    assert machine.asked == [(2, 30), (2, 30), (1, 30)]
    assert [dict(each) for each in counts] == [{2: 30}] * 5


def test_shots_above_device_limit_are_split_over_jobs() -> None:
    machine = machines.Faulty(max_shots=400)
    engine = HardwareEngine(machine)
    circuit = Arrays(2, 2).add("h", [0]).add("cx", [0, 1])
    circuit.add("measure", [0], [0]).add("measure", [1], [1])
    result = ran(engine, circuit.circuit(), 1000)
    assert machine.asked == [(1, 400), (1, 400), (1, 200)]
    counts = counts_of(result.row(0))
    assert set(counts) == {0, 3}
    assert sum(counts.values()) == 1000
    assert abs(counts[0] - 500) < 5 * math.sqrt(250)
    assert result.remark.endswith("in 3 jobs")


def test_memory_of_several_jobs_has_all_shots_of_the_counts_in_order() -> None:
    machine = machines.Faulty(max_shots=40)
    circuit = Arrays(2, 9).add("h", [0]).add("cx", [0, 1])
    circuit.add("measure", [0], [0]).add("measure", [1], [8])
    result = ran(HardwareEngine(machine), circuit.circuit(), 100, outputs=("counts", "memory"))
    assert machine.asked == [(1, 40), (1, 40), (1, 20)]
    row = result.row(0)
    shots = [int.from_bytes(row.memory[k : k + 2], "little") for k in range(0, 200, 2)]
    assert set(shots) == {0, 0b1_0000_0001}
    assert Counter(shots) == counts_of(row)


def test_noisy_device_gives_some_wrong_outcomes() -> None:
    arrays = Arrays(5, 5).add("h", [0])
    for q in range(4):
        arrays.add("cx", [q, q + 1])
    counts = counts_of(
        ran(HardwareEngine(machines.noisy()), arrays.measure(range(5)).circuit()).row(0)
    )
    assert counts[0] + counts[31] > 0.7 * SHOTS
    assert SHOTS - counts[0] - counts[31] > 0


def test_conditions_or_width_beyond_device_are_refused() -> None:
    with pytest.raises(Unsupported, match="generic_backend_5q' has no conditions"):
        HardwareEngine(machines.noisy()).plan(feed_forward(), None, RunOptions())
    with pytest.raises(Unsupported, match="6 qubits; machine 'generic_backend_5q' has 5"):
        HardwareEngine(machines.noisy()).plan(Arrays(6, 1).circuit(), None, RunOptions())


def test_fake_ibm_backend_is_accepted() -> None:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    engine = HardwareEngine(provider.FakeMontrealV2())
    arrays = Arrays(6, 6).add("h", [0])
    for q in range(5):
        arrays.add("cx", [q, (q + 3) % 6] if q % 2 else [0, q + 1])
    for q in range(6):
        arrays.add("measure", [q], [5 - q])
    result = ran(engine, arrays.circuit(), 500)
    assert sum(counts_of(result.row(0)).values()) == 500
    assert result.remark == "fake_montreal: transpiled (level 1, seed 7)"


def test_counts_from_sampler_v2_have_registers_in_order() -> None:
    from qiskit.primitives import BackendSamplerV2

    machine = machines.ideal()
    engine = HardwareEngine(SamplerAdapter(machine, BackendSamplerV2(backend=machine)))
    arrays = Arrays(3, 6, [("a", 1), ("b", 3), ("c", 2)]).add("x", [1])
    arrays.add("ry", [2], (), [0.0])
    arrays.free(0)
    for qubit, clbit in ((0, 0), (1, 2), (2, 5)):
        arrays.add("measure", [qubit], [clbit])
    result = ran(engine, arrays.circuit(), 30, bindings=np.array([[0.0], [np.pi]]))
    assert [counts_of(result.row(k)) for k in range(2)] == [{0b100: 30}, {0b100100: 30}]
    recorded = ran(engine, arrays.circuit(), 30, bindings=np.array([[np.pi]]), outputs=("memory",))
    assert recorded.row(0).memory == bytes([0b100100]) * 30
    assert result.remark.startswith("generic_backend_5q: ")
    assert engine.machine.max_shots == 2**31 - 1


class Listened(GenericBackendV2):
    """Keeps the circuits it was given."""

    def run(self, run_input: Any, **options: Any) -> Any:
        self.given = run_input
        return super().run(run_input, **options)


def test_circuit_is_transpiled_again_if_target_changed() -> None:
    machine = Listened(2, seed=1)
    engine = HardwareEngine(machine)
    circuit = Arrays(2, 2).add("h", [0]).add("cx", [0, 1]).add("measure", [1], [0]).circuit()
    old = engine.plan(circuit, None, RunOptions())
    machine._target = GenericBackendV2(2, basis_gates=["cz", "rx", "rz"], seed=3).target
    result = engine.run(old, circuit, Request(100, 1), RunOptions(), RunControl())
    assert sum(counts_of(result.row(0)).values()) == 100
    assert "cz" in machine.given.count_ops()
    assert "cx" not in machine.given.count_ops()


def test_rotations_with_numeric_angles_are_fused() -> None:
    machine = Listened(2, seed=1)
    arrays = Arrays(1, 1)
    for angle in np.linspace(0.1, 3, 10):
        arrays.add("ry", [0], (), [angle]).add("rx", [0], (), [angle])
    circuit = arrays.add("measure", [0], [0]).circuit()
    result = ran(HardwareEngine(machine), circuit, SHOTS)
    assert machine.given.size() <= 6  # rz, sx, rz, sx, rz, measure
    ideal = Reference(circuit, 1, 0, SHOTS).counts()
    assert abs(counts_of(result.row(0)).get(1, 0) - ideal.get(1, 0)) < 0.1 * SHOTS


def test_equal_target_is_not_treated_as_changed() -> None:
    engine = HardwareEngine(machines.aer())
    assert engine.backend.target is not engine.backend.target
    assert engine.target is engine.target

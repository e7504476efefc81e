"""Counts of noisy circuits whose parts nothing connects: drawn part by part."""

from collections import Counter

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel
from engine_runs import probabilities, run
from noisy import Exact

from simulators.catalog import builtin_card
from simulators.circuit.analysis.noise_profile import noise_profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.simulate import counts_of

ENGINE = DensityMatrixEngine()
SHOTS = 60_000
PAIRS = 9
QUBITS = 2 * PAIRS + 2  # and two single qubits


def parts() -> Circuit:
    """Pairs that are not connected, in mixed order, and two single qubits."""
    arrays = Arrays(QUBITS, QUBITS)
    for layer in range(3):
        for pair in range(PAIRS):
            a, b = pair, QUBITS - 1 - pair
            arrays.add("ry", [a], (), [0.3 + 0.1 * pair + layer])
            arrays.add("cx", [a, b])
            arrays.add("rx", [b], (), [0.7 - 0.05 * pair])
    for qubit in (PAIRS, PAIRS + 1):
        arrays.add("ry", [qubit], (), [0.9])
    for qubit in range(QUBITS):
        arrays.add("measure", [qubit], [QUBITS - 1 - qubit])
    return arrays.circuit()


def one_pair(pair: int) -> Circuit:
    """One pair of `parts` alone, measured into clbits 0 and 1."""
    arrays = Arrays(QUBITS, 2)
    a, b = pair, QUBITS - 1 - pair
    for layer in range(3):
        arrays.add("ry", [a], (), [0.3 + 0.1 * pair + layer])
        arrays.add("cx", [a, b])
        arrays.add("rx", [b], (), [0.7 - 0.05 * pair])
    return arrays.add("measure", [a], [0]).add("measure", [b], [1]).circuit()


def model(**more: object) -> DeviceModel:
    return DeviceModel(QUBITS, gate_error=0.03, t2_by_t1=1.2, readout=(0.02, 0.06), **more)  # type: ignore[arg-type]


def seen(circuit: Circuit, noise: NoiseProgram, shots: int = SHOTS) -> dict[int, int]:
    return counts_of(run(ENGINE, circuit, Request(shots, 11), noise).row(0))


def test_each_pair_of_a_wide_circuit_has_its_own_distribution() -> None:
    circuit = parts()
    result = seen(circuit, attach_noise(circuit, model()))
    for pair in range(PAIRS):
        alone = one_pair(pair)
        request = Request(0, 1, ("probabilities",))
        exact = run(DensityMatrixEngine(), alone, request, attach_noise(alone, model())).row(0)
        probs = np.zeros(4)
        probs[[*probabilities(exact)]] = [*probabilities(exact).values()]
        array = np.zeros(4)
        for outcome, count in result.items():
            a, b = outcome >> (QUBITS - 1 - pair) & 1, outcome >> pair & 1
            array[a | b << 1] += count
        assert (np.abs(array - SHOTS * probs) < 5.0 * np.sqrt(SHOTS * probs + 1.0)).all()


def test_different_pairs_are_independent() -> None:
    circuit = parts()
    result = seen(circuit, attach_noise(circuit, model()))
    bits = np.array([[outcome >> k & 1 for k in range(QUBITS)] for outcome in result])
    weights = np.array(list(result.values()))
    centered = bits - np.average(bits, axis=0, weights=weights)
    for one, two in ((0, 1), (3, 7), (PAIRS, PAIRS + 1)):
        covariance = np.average(centered[:, one] * centered[:, two], weights=weights)
        assert abs(covariance) < 5.0 * 0.25 / np.sqrt(SHOTS)


def test_counts_do_not_depend_on_how_shots_are_cut() -> None:
    circuit = parts()
    noise = attach_noise(circuit, model())
    assert seen(circuit, noise, 500) == seen(circuit, noise, 500)
    assert sum(seen(circuit, noise, 500).values()) == 500


def test_channel_of_two_parts_joins_them() -> None:
    circuit = parts()
    apart = attach_noise(circuit, model())
    joined = attach_noise(circuit, model(crosstalk_pairs=((0, 1), (2, 3))))
    assert noise_profile(apart, circuit, ("counts",)).widest == 2
    assert noise_profile(joined, circuit, ("counts",)).widest == 4
    assert sum(seen(circuit, joined, 200).values()) == 200


def test_memory_of_a_wide_circuit_has_the_counts_of_its_parts() -> None:
    circuit = parts()
    noise = attach_noise(circuit, model())
    result = run(ENGINE, circuit, Request(500, 11, ("memory", "counts")), noise).row(0)
    width = (QUBITS + 7) // 8
    rows = [result.memory[k : k + width] for k in range(0, len(result.memory), width)]
    drawn = Counter(int.from_bytes(row, "little") for row in rows)
    assert drawn == counts_of(result) == seen(circuit, noise, 500)


def test_joint_distribution_of_two_parts_is_exact() -> None:
    number = 4
    arrays = Arrays(number, number)
    for pair in ((0, 1), (2, 3)):
        arrays.add("ry", [pair[0]], (), [0.8]).add("cx", list(pair))
    circuit = arrays.measure(range(number)).circuit()
    noise = attach_noise(circuit, DeviceModel(number, gate_error=0.05, readout=(0.05, 0.1)))
    expected = Exact(circuit, noise).probs
    result = seen(circuit, noise)
    for outcome, p in expected.items():
        assert abs(result.get(outcome, 0) - SHOTS * p) < 5.0 * np.sqrt(SHOTS * p + 1.0)


def test_width_of_a_part_decides_what_fits() -> None:
    card = builtin_card("densitymatrix")
    circuit = parts()
    noise = noise_profile(attach_noise(circuit, model()), circuit, ("counts",))
    changed = msgspec.structs.replace(profile(circuit, ("counts",)), noise=noise)
    for outputs in (("counts",), ("memory",), ("counts", "memory")):
        noise = noise_profile(attach_noise(circuit, model()), circuit, outputs)
        changed = msgspec.structs.replace(profile(circuit, outputs), noise=noise)
        assert card.effective_profile(changed, outputs).num_qubits == 2
    assert card.effective_profile(changed, ("counts", "probabilities")).num_qubits == QUBITS
    assert builtin_card("statevector").effective_profile(changed, ("counts",)).num_qubits == QUBITS


def test_exact_probabilities_of_a_wide_circuit_are_still_refused() -> None:
    circuit = parts()
    noise = attach_noise(circuit, model())
    with pytest.raises(Unsupported, match=f"{QUBITS} qubits"):
        run(ENGINE, circuit, Request(0, 1, ("probabilities",)), noise)


@pytest.mark.parametrize("first", ["counts", "probabilities"])
def test_results_of_one_plan_do_not_depend_on_earlier_requests(first: str) -> None:
    circuit = Arrays(6, 6)
    for pair in (0, 2, 4):
        circuit.add("h", [pair]).add("cx", [pair, pair + 1])
    noise = attach_noise(circuit.measure(range(6)).circuit(), DeviceModel(6, gate_error=0.03))
    plan = ENGINE.plan(circuit.circuit(), noise, RunOptions())
    results = {}
    for output in sorted(("counts", "probabilities"), key=lambda name: name != first):
        request = Request(shots=500, seed=11, outputs=(output,))
        for used in (plan, ENGINE.plan(circuit.circuit(), noise, RunOptions())):
            result = ENGINE.run(used, circuit.circuit(), request, RunOptions(), RunControl()).row(0)
            assert result == results.setdefault(output, result)

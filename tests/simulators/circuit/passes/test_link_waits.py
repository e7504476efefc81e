"""Waits for links in circuits: idle channels averaged over random times, and latencies of bits."""

import math

import numpy as np
import pytest
from arrays import Arrays
from failing import fails
from msgspec.structs import replace
from noise_references import assert_counts, attached, distribution
from numpy.typing import NDArray

from noise_models import calibration as cal
from noise_models.build import build
from simulators.circuit import ir
from simulators.circuit.schedule import schedule
from simulators.errors import Unsupported
from tests.noise_models.snapshots import linked

LINK = cal.Link((1, 3), fidelity=1.0, rate_hz=1e3)
MEAN_NS = LINK.mean_wait_ns
PLAIN = {"qubit.readout": 0, "qubit.relaxation": 0, "gate": 0}


def device(*links: cal.Link, t2_us: float = 1e3, **changes: object) -> cal.CalibrationSnapshot:
    """Two modules of three qubits that relax slowly, with these links between communication qubits
    1, 2 and 3, 4."""
    base = linked()
    gates = [gate for gate in base.gates if gate.name != "rxx"]
    gates += [cal.GateCalibration("rxx", link.pair, 0.0, 0.0) for link in links]
    return replace(
        base, links=links, gates=tuple(gates),
        modules=tuple(
            replace(module, communication=qubits)
            for module, qubits in zip(base.modules, ((1, 2), (3, 4)), strict=True)
        ),
        coupling=(*(pair for pair in base.coupling if pair != (1, 3)), *(x.pair for x in links)),
        qubits=(cal.QubitCalibration(t1_us=4e3, t2_us=t2_us),) * 6, **changes,
    )  # type: ignore[arg-type]  # fmt: skip


def await_pair(arrays: Arrays, *links: cal.Link) -> Arrays:
    """Wait for pairs at once, and make them."""
    for link in links:
        for qubit in link.pair:
            arrays.add("delay", [qubit], params=[link.mean_wait_ns])
    for link in links:
        for qubit in link.pair:
            arrays.add("reset", [qubit])
    for link in links:
        arrays.add("rxx", list(link.pair), params=[math.pi / 2]).add("s", [link.pair[0]])
    return arrays


def plus(*qubits: int, size: int = 6) -> Arrays:
    arrays = Arrays(size, len(qubits))
    for qubit in qubits:
        arrays.add("h", [qubit])
    return arrays.add("barrier", list(range(size)))


def kept(arrays: Arrays, snapshot: cal.CalibrationSnapshot, *qubits: int) -> NDArray[np.float64]:
    """X of each of these qubits at the end."""
    arrays.add("barrier", list(range(6)))
    for bit, qubit in enumerate(qubits):
        arrays.add("h", [qubit]).add("measure", [qubit], [bit])
    circuit = arrays.circuit()
    found = distribution(circuit, attached(circuit, snapshot, PLAIN))
    return np.array([
        sum(p * (1 - 2 * (k >> bit & 1)) for k, p in enumerate(found.tolist()))
        for bit in range(len(qubits))
    ])  # fmt: skip


def test_waiting_qubits_keep_the_mean_over_the_waits() -> None:
    x = kept(await_pair(plus(0, 5), LINK), device(LINK), 0, 5)
    assert x == pytest.approx([0.5, 0.5], abs=1e-6)  # the mean wait is T2
    # Without links the same delays are idle times of one length.
    without = replace(device(LINK), links=(), modules=(), gates=linked().gates)
    assert kept(await_pair(plus(0, 5), LINK), without, 0, 5) == pytest.approx([math.exp(-1)] * 2)


def test_a_delay_of_another_calibration_stands_for_the_present_wait() -> None:
    faster = replace(LINK, rate_hz=4e3)  # the circuit has the mean wait of LINK
    x = kept(await_pair(plus(0), LINK), device(faster), 0)
    assert x[0] == pytest.approx(1.0 / 1.25, abs=1e-6)


def test_populations_relax_by_the_mean_too() -> None:
    arrays = Arrays(6, 1).add("x", [0]).add("barrier", [0, 1, 2, 3, 4, 5])
    circuit = await_pair(arrays, LINK).add("barrier", [0, 1, 3]).add("measure", [0], [0]).circuit()
    found = distribution(circuit, attached(circuit, device(LINK), PLAIN))
    assert found[1] == pytest.approx(1.0 / (1.0 + MEAN_NS / 4e6), abs=1e-6)


def test_the_pair_does_not_age_while_it_is_awaited() -> None:
    circuit = await_pair(Arrays(6, 2), LINK).add("measure", [1], [0]).add("measure", [3], [1])
    found = distribution(circuit.circuit(), attached(circuit.circuit(), device(LINK), PLAIN))
    assert found == pytest.approx([0.5, 0.0, 0.0, 0.5], abs=1e-9)


def test_two_links_that_are_awaited_at_once_take_the_later_one() -> None:
    other = cal.Link((2, 4), fidelity=1.0, rate_hz=2e3)
    x = kept(await_pair(plus(0), LINK, other), device(LINK, other), 0)
    waits = np.random.default_rng(5).exponential((MEAN_NS, other.mean_wait_ns), (40_000, 2))
    drawn = np.exp(-waits.max(axis=1) / 1e6)
    assert abs(x[0] - drawn.mean()) < 3.0 * drawn.std() / 200.0
    # Awaited one after the other, they are independent.
    arrays = await_pair(plus(0), LINK).add("barrier", list(range(6)))
    x = kept(await_pair(arrays, other), device(LINK, other), 0)
    assert x[0] == pytest.approx(1.0 / 2.0 / 1.5, abs=1e-6)


def test_a_part_of_a_wait_is_the_same_part_of_the_random_one() -> None:
    arrays = plus(0)
    arrays.add("delay", [0], params=[0.25 * MEAN_NS]).add("z", [0])
    arrays.add("delay", [0], params=[0.75 * MEAN_NS])
    x = kept(await_pair(arrays, LINK), device(LINK), 0)
    assert x[0] == pytest.approx(-1.0 / 1.25 / 1.75, abs=1e-5)


def test_trajectories_follow_the_mean() -> None:
    circuit = await_pair(plus(0), LINK).add("barrier", list(range(6))).add("h", [0])
    noise = attached(circuit.add("measure", [0], [0]).circuit(), device(LINK), PLAIN)
    wanted = np.array([0.75, 0.25])
    assert_counts("statevector", circuit.circuit(), noise, wanted)


def test_options_of_the_wait_and_of_idle_time_are_apart() -> None:
    arrays = await_pair(plus(0), LINK).add("barrier", list(range(6)))
    arrays.add("delay", [0], params=[MEAN_NS]).add("h", [0]).add("measure", [0], [0])
    circuit = arrays.circuit()
    for options, x in (
        ({}, 0.5 * math.exp(-1)),
        ({"link.wait": 0}, math.exp(-1)),
        ({"qubit.idle": 0}, 0.5),
        ({"link.wait": 2}, math.exp(-1) / 3),
        ({"idle": False}, math.exp(-1)),  # a delay is no idle time
    ):
        found = distribution(circuit, attached(circuit, device(LINK), {**PLAIN, **options}))
        assert found[0] - found[1] == pytest.approx(x, abs=1e-5), options


def test_noise_without_an_average_is_refused_by_name() -> None:
    circuit = await_pair(plus(0), LINK).add("h", [0]).add("measure", [0], [0]).circuit()
    star = tuple(replace(each, t2_star_us=500.0) for each in device(LINK).qubits)
    coupled = (cal.ZZCoupling((0, 1), 10.0),)
    leaking = tuple(
        replace(each, leakage=1e-3) if each.name == "cz" else each for each in device(LINK).gates
    )
    for changes, option in (
        ({"qubits": star}, "qubit.quasistatic"),
        ({"zz": coupled}, "gate.crosstalk"),
        ({"gates": leaking}, "gate.leakage"),
    ):
        noisy = replace(device(LINK), **changes)
        error = fails(Unsupported, "link of qubits .1, 3.", attached, circuit, noisy)
        assert option in error.hint
        attached(circuit, noisy, {option: 0})
    # Without a random wait they act as ever.
    attached(circuit, replace(device(replace(LINK, rate_hz=None)), zz=coupled))


def test_a_link_makes_pairs_of_reset_qubits_alone() -> None:
    arrays = Arrays(6, 0).add("h", [1]).add("rxx", [1, 3], params=[math.pi / 2])
    error = fails(Unsupported, "qubit 1 was not reset", attached, arrays.circuit(), device(LINK))
    assert "reset both" in error.hint
    fresh = Arrays(6, 0).add("rxx", [1, 3], params=[math.pi / 2]).circuit()
    attached(fresh, device(LINK))


def test_a_bit_from_another_module_comes_by_its_links() -> None:
    """Module a has qubits 0 to 2, b has 3 to 5; a link takes 5 us, and a module 500 ns."""
    known = build(device(replace(LINK, latency_ns=5e3))).network

    def start(*targets: int, origin: int = 0) -> list[float]:
        arrays = Arrays(6, 1).add("measure", [origin], [0])
        for target in targets:
            arrays.begin((ir.CLBIT, 0, 0)).add("x", [target]).add("end")
        circuit = arrays.circuit()
        names = [circuit.table.names[row] for row in circuit.ops.tolist()]
        durations = np.array([{"measure": 1e3}.get(name, 0.0) for name in names])
        found = schedule(circuit, durations, "asap", feed_forward_ns=500.0, network=known)
        return [float(found.start_ns[k]) for k, name in enumerate(names) if name == "if"]

    assert start(1) == [1.5e3]
    assert start(4) == [6e3]
    assert start(1, origin=5) == [6e3]
    assert start(1, 4) == [1.5e3, 6e3]
    assert start(4, 5) == [6e3, 6e3]

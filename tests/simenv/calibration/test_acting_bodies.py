"""Unknowns of a fit are held at the calibration where too few circuit bodies speak about them, and
a fit acts on circuits like those that it was judged on."""

import msgspec
import numpy as np
import pytest

from noise_models import library
from noise_models.calibration import FitScope
from simenv.calibration import accept
from simenv.calibration.fit.acting_bodies import LEAST_BODIES
from simenv.calibration.fit.attempt import FitBase
from simenv.calibration.fit.solve import Prior
from simenv.calibration.plausibility import implausible_values
from simenv.client.circuits import load
from simulators.circuit.analysis import fit_scope
from simulators.circuit.ir import Circuit
from testbed import drawn_devices as drawn

EVERY = Prior(0.1, 0.3, angle=0.1, angle_common=0.1, joint=0.02, joint_own=0.02)
FACTORS = {"relaxation", "error 1", "error 2"}


def base_of(bodies: int) -> FitBase:
    """Counts of all preparations of four qubits, and of random circuits of so many bodies, each
    measured in several bases."""
    random = np.random.default_rng(3)
    device = drawn.device(random, 4)
    sources = drawn.preparations(4)
    for number in range(bodies):
        sources += drawn.in_bases(random, 4, 3, number)
    data = drawn.counts_of(device, sources, 2_000, random)
    return FitBase.of("snapshot", device, data)


def test_what_one_body_shows_is_not_fitted_whatever_preparations_there_are() -> None:
    base = base_of(1)
    columns = base.problem.columns(EVERY).columns
    kinds = {kind for kind, _ in columns}
    assert len({each.body for each in base.problem.observations}) > LEAST_BODIES
    assert not FACTORS & kinds, columns
    assert not any("cz" in kind for kind in kinds)
    assert ("p10", (1,)) in columns


def test_a_pair_has_unknowns_of_its_own_from_ten_bodies_on() -> None:
    few, many = (set(base_of(count).problem.columns(EVERY).columns) for count in (4, 16))
    assert {kind for kind, _ in few} >= FACTORS
    assert not {each for each in few if len(each[1]) == 2 and "joint" not in each[0]}
    assert ("error 2", (0, 1)) in many
    assert ("ZZ cz", (0, 1)) in many


def test_a_loss_on_circuits_with_gates_is_no_gain_whatever_preparations_say() -> None:
    before, gain = np.full(20, 0.9), np.array([0.02] * 18 + [-0.01] * 2)
    has_gates = [False] * 18 + [True] * 2
    bodies = [str(k) for k in range(20)]
    runs = np.ones(20, np.int64)
    assert accept.gain(before + gain, before, runs, bodies).is_used
    found = accept.gain(before + gain, before, runs, bodies, has_gates=has_gates)
    assert not found.is_used
    assert "circuits with gates on several qubits that were left out lose" in found.lack
    assert "circuits with gates on several qubits -0.01000" in found.text


@pytest.mark.parametrize(
    ("mean", "spread", "loses"),
    [(-1e-3, 1e-2, False), (-1e-2, 1e-2, True), (-1e-2, 1e-4, True), (-1e-6, 0.0, False)],
)
def test_a_loss_with_gates_is_one_beyond_its_interval(
    mean: float, spread: float, loses: bool
) -> None:
    """A fit of the readout alone changes twenty circuits with gates by chance."""
    gain = np.array([0.02] * 20 + [mean - spread, mean + spread] * 10)
    before, bodies, runs = np.full(40, 0.9), [str(k) for k in range(40)], np.ones(40, np.int64)
    has_gates = [False] * 20 + [True] * 20
    found = accept.gain(before + gain, before, runs, bodies, has_gates=has_gates)
    assert found.loses_with_gates is loses


def circuit(text: str) -> Circuit:
    head = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[5]; creg c[2]; '
    program = load(f"{head}{text} measure q[0] -> c[0]; measure q[1] -> c[1];").program
    return Circuit.from_program(program)


def test_the_scope_of_a_fit_has_depth_duration_and_numbers_of_gates() -> None:
    lima = library.load("lima")
    seen = circuit("sx q[0]; cx q[0],q[1]; cx q[0],q[1]; sx q[1];")
    size = fit_scope.CircuitSize.of(seen, lima)
    assert (size.depth, dict(size.gates)["cx"]) == (4, 2)
    cx_ns = next(g.duration_ns for g in lima.gates if (g.name, g.qubits) == ("cx", (0, 1)))
    assert size.duration_ns > 2.0 * cx_ns
    scope = FitScope(
        "lima", (0, 1), 12, 2, 2, one_qubit_gates=8, delay_ns=1e9,
        depth=size.depth, duration_ns=size.duration_ns, gates=size.gates,
    )  # fmt: skip
    fitted = msgspec.structs.replace(lima, fitted=scope, outside=lima)
    assert fit_scope.in_force(fitted, seen) is fitted
    for text, named in (
        ("sx q[0]; cx q[0],q[1]; cx q[0],q[1]; cx q[0],q[1]; cx q[0],q[1]; sx q[1];", "4 two-q"),
        ("sx q[0]; sx q[0]; sx q[0]; sx q[0]; sx q[0]; cx q[0],q[1]; sx q[1];", "depth 7"),
        ("sx q[0]; cx q[0],q[1]; cx q[1],q[0];", "" if cx_ns else "duration"),
        ("cz q[0],q[1];", "1 cz"),
    ):
        found = fit_scope.acting(fitted, circuit(text))
        assert bool(found.outside) is (found.document is lima) is bool(named), found.outside
        assert named in ", ".join(found.outside)


def test_values_of_qubits_that_no_circuit_uses_are_not_judged() -> None:
    """T2 above 2 T1 acts as 2 T1: a fit that states what acts changes nothing."""
    random = np.random.default_rng(5)
    device = drawn.device(random, 3)
    dead = msgspec.structs.replace(device.qubits[2], t1_us=7.7, t2_us=332.0)
    before = msgspec.structs.replace(device, qubits=(*device.qubits[:2], dead))
    clipped = msgspec.structs.replace(dead, t2_us=15.4, p10=0.4)
    after = msgspec.structs.replace(before, qubits=(*before.qubits[:2], clipped))
    assert implausible_values(before, after, {0, 1}) == ()
    (text,) = implausible_values(before, after, {0, 1, 2})
    assert text.startswith("p10 of qubit 2")


@pytest.mark.parametrize("is_true", [True, False])
def test_counts_of_a_device_with_a_dead_unused_qubit_are_fitted(is_true: bool) -> None:
    from simenv.calibration.fit.calibrate import calibrate

    random = np.random.default_rng(9)
    device = drawn.device(random, 4)
    dead = msgspec.structs.replace(device.qubits[3], t1_us=7.7, t2_us=332.0)
    device = msgspec.structs.replace(device, qubits=(*device.qubits[:3], dead))
    truth = device if is_true else drawn.scaled(device, 2.0)
    data = drawn.counts_of(truth, drawn.circuits(random, 3, 12), 2_000, random)
    fitted = calibrate(data, device, "fitted")
    assert bool(fitted.share) is not is_true
    if fitted.share:
        assert fitted.snapshot.qubits[3] == dead
        assert fitted.snapshot.outside == device

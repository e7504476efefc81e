"""A noise model has the measured errors; each component is scaled, removed or replaced alone."""

import json
import math

import numpy as np
import pytest
from msgspec.structs import replace

from noise_models import calibration, channel
from noise_models.build import build
from noise_models.calibration import IBM_PROPERTIES, IBM_ZZ_STRENGTH, GateCalibration
from noise_models.channel import Channel
from noise_models.document_model import MOST_CHANNELS
from noise_models.gate_errors import pair_errors
from noise_models.options import COMPONENTS, NoiseOptions
from noise_models.snapshot import check, dump, from_values
from noise_models.strict_json import NoiseError
from tests.noise_models.snapshots import transmons

SNAPSHOT = transmons()
check(SNAPSHOT)


def model(**options: object):  # type: ignore[no-untyped-def]
    named = {name.replace("__", "."): value for name, value in options.items()}
    return build(SNAPSHOT, NoiseOptions.parse(named))


def only(name: str, qubits: tuple[int, ...], **options: object) -> Channel:
    """The one channel after a gate."""
    (value,) = model(**options).after_gate(name, qubits)
    assert value.qubits == qubits
    return value.channel


@pytest.mark.parametrize(
    ("name", "qubits"), [("sx", (0,)), ("sx", (2,)), ("cz", (0, 1)), ("cx", (0, 1))]
)
def test_channel_of_a_gate_has_the_measured_infidelity(name: str, qubits: tuple[int, ...]) -> None:
    gate = next(gate for gate in SNAPSHOT.gates if (gate.name, gate.qubits) == (name, qubits))
    result = only(name, qubits)
    assert result.infidelity == pytest.approx(gate.error, rel=1e-12)
    assert result.cptp_error < 1e-14


def test_relaxation_above_the_measured_error_stays() -> None:
    result = only("cz", (1, 2))
    alone = channel.tensor(
        channel.relaxation(300.0, 80.0, 160.0, 0.02), channel.relaxation(300.0, 60.0, 30.0, 0.02)
    )
    assert alone.infidelity > 1e-3
    assert np.abs(result.ptm - alone.ptm).max() < 1e-15


def test_error_is_limited_to_that_of_the_least_fidelity() -> None:
    gate = GateCalibration("cz", (0, 1), 1.0, 300.0)
    broken = replace(SNAPSHOT, gates=(gate,))
    (value,) = build(broken).after_gate("cz", (0, 1))
    assert value.channel.infidelity == pytest.approx(0.8, abs=1e-3)
    assert value.channel.cptp_error < 1e-12


def test_gate_on_reversed_qubits_has_the_reversed_channel() -> None:
    assert np.array_equal(only("cz", (1, 0)).ptm, only("cz", (0, 1)).reversed().ptm)


def test_gates_without_calibration_have_no_noise() -> None:
    result = model()
    assert result.after_gate("rz", (0,)) == result.after_gate("h", (0,)) == ()
    assert result.after_gate("ccx", (0, 1, 2)) == ()


def test_over_rotation_turns_about_the_axis_of_the_gate() -> None:
    turned = only("sx", (0,), gate__depolarizing=0, qubit__relaxation=0)
    x = channel.paulis(1)[1]
    expected = math.cos(0.005) * np.eye(2) - 1j * math.sin(0.005) * x
    assert np.abs(turned.ptm - channel.from_unitary(expected).ptm).max() < 1e-15
    turned = only("cx", (0, 1), gate__depolarizing=0, qubit__relaxation=0)
    zx = np.kron(x, np.diag([1.0, -1.0]))  # X on the second qubit, Z on the first
    expected = math.cos(0.025) * np.eye(4) - 1j * math.sin(0.025) * zx
    assert np.abs(turned.ptm - channel.from_unitary(expected).ptm).max() < 1e-15


def test_components_of_a_gate_are_scaled_alone() -> None:
    parts = [
        only("cz", (0, 1), gate__coherent=0, qubit__relaxation=0),
        only("cz", (0, 1), gate__depolarizing=0, qubit__relaxation=0),
        only("cz", (0, 1), gate__depolarizing=0, gate__coherent=0),
    ]
    depolarizing, coherent, relaxed = parts
    result = coherent.then(depolarizing).then(relaxed)
    assert np.abs(only("cz", (0, 1)).ptm - result.ptm).max() < 1e-15
    half = only("cz", (0, 1), gate__depolarizing=0.5, gate__coherent=0, qubit__relaxation=0)
    assert half.infidelity == pytest.approx(depolarizing.infidelity / 2, rel=1e-12)
    assert (
        model(gate__depolarizing=0, gate__coherent=0, qubit__relaxation=0).after_gate("cz", (0, 1))
        == ()
    )


def test_idle_qubits_relax_to_thermal_equilibrium() -> None:
    result = model().idle(1, 500.0)
    expected = channel.relaxation(500.0, 80.0, 160.0, 0.02)  # T2 is limited to 2 T1
    assert np.array_equal(result.ptm, expected.ptm)
    cold = model(qubit__thermal=0).idle(1, 500.0)
    assert np.array_equal(cold.ptm, channel.relaxation(500.0, 80.0, 160.0).ptm)
    assert model(qubit__idle=0).idle(1, 500.0) is None
    twice = model(qubit__idle=2).idle(1, 500.0)
    assert np.abs(twice.ptm - expected.ptm @ expected.ptm).max() < 1e-15


def test_crosstalk_is_a_controlled_phase_of_the_coupling() -> None:
    result = model()
    assert result.crosstalk_pairs == ((0, 1),)
    turned = result.crosstalk((0, 1), 1000.0)
    phase = np.exp(-2j * math.pi * 40e3 * 1e-6)
    expected = channel.from_unitary(np.diag([1.0, 1.0, 1.0, phase]))
    assert np.abs(turned.ptm - expected.ptm).max() < 1e-15
    assert model(gate__crosstalk=0).crosstalk_pairs == ()
    assert model(qubit__idle=0).has_idle_noise
    assert not model(qubit__idle=0, gate__crosstalk=0).has_idle_noise
    assert model(gate__crosstalk=0).has_idle_noise


def test_preparation_and_reset_leave_the_excited_state() -> None:
    result = model(qubit__reset=2)
    assert result.preparation(0).pauli_probabilities[1] == pytest.approx(0.004)
    assert result.after_reset(0).pauli_probabilities[1] == pytest.approx(0.01)
    assert model(qubit__preparation=0).preparation(0) is None
    assert model(qubit__reset=0).after_reset(0) is None


def test_qubits_without_preparation_error_start_in_equilibrium() -> None:
    qubit = replace(SNAPSHOT.qubits[0], preparation_error=None)
    changed = replace(SNAPSHOT, qubits=(qubit, *SNAPSHOT.qubits[1:]))
    assert build(changed).preparation(0).pauli_probabilities[1] == pytest.approx(0.02)  # type: ignore[union-attr]
    assert build(changed, NoiseOptions.parse({"qubit.thermal": 0})).preparation(0) is None


def test_readout_is_asymmetric_and_scaled() -> None:
    result = model().readout()
    assert (result.p01.tolist(), result.p10.tolist()) == ([0.01] * 3, [0.03] * 3)
    (group,) = result.groups
    assert np.allclose(group.confusion, SNAPSHOT.correlated_readout[0].confusion, atol=1e-15)
    twice = model(qubit__readout=2, qubit__correlated_readout=0).readout()
    assert np.allclose(twice.p10, 0.06)
    assert twice.groups == ()
    assert model(qubit__readout=0).readout() is None
    outcome = model(qubit__readout=100).readout()
    assert outcome.p10.max() == 1.0
    assert np.allclose(outcome.groups[0].confusion.sum(axis=0), 1.0)
    assert outcome.groups[0].confusion.min() >= 0.0


def test_half_of_the_correlation_is_between_both_confusions() -> None:
    half = model(qubit__correlated_readout=0.5).readout()
    apart = np.array([[0.99, 0.03], [0.01, 0.97]])
    together = np.array(SNAPSHOT.correlated_readout[0].confusion)
    assert np.allclose(half.groups[0].confusion, (np.kron(apart, apart) + together) / 2)


def test_values_replace_those_of_every_qubit() -> None:
    result = model(qubit__t1_us=50, qubit__t2_us=70, qubit__excited=0)
    assert np.array_equal(result.idle(2, 100.0).ptm, channel.relaxation(100.0, 50.0, 70.0).ptm)
    result = model(gate__error_2q=0.03, gate__over_rotation_rad=0, gate__zz_khz=7)
    assert result.after_gate("cz", (1, 2))[0].channel.infidelity == pytest.approx(0.03)
    assert result.after_gate("sx", (1,))[0].channel.infidelity == pytest.approx(8e-4)
    assert result.after_gate("rz", (1,)) == ()
    assert model(qubit__p01=0.2).readout().p01.tolist() == [0.2] * 3


def test_durations_are_those_of_the_snapshot() -> None:
    result = model()
    assert result.duration_ns("cz", (0, 1)) == result.duration_ns("cz", (1, 0)) == 300.0
    assert result.duration_ns("measure", (1,)) == 800.0
    assert (result.duration_ns("reset", (1,)), result.duration_ns("h", (1,))) == (900.0, 0.0)


def test_noise_off_has_no_channels() -> None:
    result = build(SNAPSHOT, NoiseOptions.parse("off"))
    assert result.readout() is None
    assert not result.has_idle_noise
    for qubit in range(3):
        assert (
            result.preparation(qubit)
            is result.after_reset(qubit)
            is result.idle(qubit, 9.0)
            is None
        )
    for gate in SNAPSHOT.gates:
        assert result.after_gate(gate.name, gate.qubits) == ()


def test_digest_names_snapshot_and_options() -> None:
    digests = {model(**{name.replace(".", "__"): 0.5}).digest for name in COMPONENTS}
    digests |= {model().digest, model(recipe="aer").digest, model(idle=False).digest}
    other = replace(SNAPSHOT, name="other")
    digests.add(build(other).digest)
    assert len(digests) == len(COMPONENTS) + 4
    assert all(len(each) == 32 for each in digests)
    assert model(all=1.0).digest == model().digest == build(transmons()).digest


def test_replaced_interaction_holds_for_every_coupled_pair() -> None:
    result = model(gate__zz_khz=7)
    assert result.crosstalk_pairs == ((0, 1), (1, 2))
    turned = result.crosstalk((1, 2), 100.0)
    expected = np.diag([1.0, 1.0, 1.0, np.exp(-2j * math.pi * 7e3 * 1e-7)])
    assert np.abs(turned.ptm - channel.from_unitary(expected).ptm).max() < 1e-15


def test_zz_rates_of_ibm_act_with_a_factor_that_can_be_replaced() -> None:
    ibm = replace(SNAPSHOT, source_format=IBM_PROPERTIES)
    assert (build(SNAPSHOT).crosstalk_pairs, SNAPSHOT.zz_factor) == (((0, 1),), 1.0)
    assert ibm.zz_factor == IBM_ZZ_STRENGTH
    half = build(ibm, NoiseOptions.parse({"gate.zz_strength": 0.5})).crosstalk((0, 1), 200.0)
    assert np.abs(half.ptm - build(SNAPSHOT).crosstalk((0, 1), 100.0).ptm).max() < 1e-15
    stored = replace(ibm, zz_strength=1.0)
    assert build(stored).crosstalk_pairs == ((0, 1),)
    assert from_values(json.loads(dump(stored))) == stored


def test_replaced_value_without_a_gate_is_refused() -> None:
    bare = replace(SNAPSHOT, gates=SNAPSHOT.gates[:6])
    build(bare, NoiseOptions.parse({"gate.error_1q": 8e-4}))
    with pytest.raises(NoiseError, match=r"gate\.error_2q"):
        build(bare, NoiseOptions.parse({"gate.error_2q": 0.1}))


def test_channels_of_idle_qubits_that_are_kept_are_bounded() -> None:
    result = model()
    for number in range(2 * MOST_CHANNELS):
        result.idle(0, 1.0 + number)
    assert len(result._idle) <= MOST_CHANNELS


def test_idle_off_needs_no_schedule() -> None:
    result = model(idle=False)
    assert not result.has_idle_noise
    assert result.crosstalk_pairs == ()


def test_relaxation_alone_may_have_the_error_of_a_gate_on_three_qubits() -> None:
    assert pair_errors(1e-4, [channel.relaxation(900.0, 90.0, 70.0)] * 3) == 0.0


def test_measured_qubit_relaxes_during_its_readout() -> None:
    (located,) = model().after_gate("measure", (0,))
    duration = model().duration_ns("measure", (0,))
    qubit = transmons().qubits[0]
    decay = math.exp(-duration / (1e3 * qubit.t1_us))
    assert duration > 0.0
    assert located.channel.ptm[3, 3] == pytest.approx(decay)
    assert model(recipe="aer").after_gate("measure", (0,)) == ()
    assert model(**{"qubit.relaxation": 0.0}).after_gate("measure", (0,)) == ()


def test_gate_on_three_qubits_has_its_calibrated_error() -> None:
    """The Pauli errors on pairs and the relaxation compose to the average gate fidelity."""
    error, duration_ns = 0.05, 300.0
    snapshot = calibration.CalibrationSnapshot(
        "three",
        3,
        native_gates=(calibration.NativeGate("ccx", 3),),
        qubits=(calibration.QubitCalibration(t1_us=80.0, t2_us=60.0),) * 3,
        gates=(calibration.GateCalibration("ccx", (0, 1, 2), error, duration_ns),),
    )
    found = build(snapshot).after_gate("ccx", (0, 1, 2))
    assert [each.qubits for each in found] == [(0, 1), (0, 2), (1, 2), (0,), (1,), (2,)]
    whole = np.eye(64)
    for each in found:
        size = len(each.qubits)
        placed = each.channel.ptm.reshape((4,) * (2 * size))
        axes = [2 - qubit for qubit in reversed(each.qubits)]
        table = np.tensordot(placed, whole.reshape((4,) * 6), (range(size, 2 * size), axes))
        whole = np.moveaxis(table, range(size), axes).reshape(64, 64)
    assert (8.0 - np.trace(whole) / 8.0) / 9.0 == pytest.approx(error, abs=1e-9)

"""Certificates of emulated devices: they pass, and changed devices fail with the culprit named."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from changed_devices import changed_qubit, scaled_errors
from msgspec.structs import replace

from noise_models import library, snapshot
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    MeasurementCrosstalk,
    PauliGenerator,
    PauliRotation,
    QubitCalibration,
    T1Jumps,
)
from noise_models.confusion import independent_confusion
from simenv.calibration.certify import (
    Certificate,
    ClaimComparison,
    ClaimVerdict,
    certify,
    compared,
    recovered,
)
from simenv.client.client import Client
from testbed import altered_devices
from tests.simenv.calibration.test_pairs import flipped_together

CLAIMED = "superconducting-lattice"
QUBITS = (0, 1, 2)
PAIR, SHORT, MISREAD = (1, 2), 0, 2


def worse_pair(claimed: CalibrationSnapshot) -> CalibrationSnapshot:
    """One pair with an error that is 25 % larger."""
    return scaled_errors(claimed, 1.25, lambda gate: set(gate.qubits) == set(PAIR))


def shorter_t1(claimed: CalibrationSnapshot) -> CalibrationSnapshot:
    """One T1 that is 15 % shorter."""
    return changed_qubit(claimed, SHORT, t1_us=0.85 * (claimed.qubits[SHORT].t1_us or 0.0))


def misread(claimed: CalibrationSnapshot) -> CalibrationSnapshot:
    """One readout probability that is 3 points larger."""
    p10 = 0.03 + (claimed.qubits[MISREAD].p10 or 0.0)
    return changed_qubit(claimed, MISREAD, p10=p10, readout_error=None)


CONTROLS: dict[Callable[[CalibrationSnapshot], CalibrationSnapshot], set[tuple[str, tuple]]] = {
    worse_pair: {("error_2q", PAIR)},
    shorter_t1: {("t1_us", (SHORT,))},
    misread: {("p10", (MISREAD,))},
}


def stored(home: Path, name: str, values: CalibrationSnapshot) -> str:
    (home / "devices" / f"{name}.json").write_bytes(snapshot.dump(values))
    return name


def culprits(found: Certificate) -> set[tuple[str, tuple[int, ...]]]:
    return {(each.quantity, each.qubits) for each in found.culprits}


def culprits_of(rows: Sequence[ClaimComparison]) -> set[tuple[str, tuple[int, ...]]]:
    return {(row.quantity, row.qubits) for row in rows if row.verdict is ClaimVerdict.OUTSIDE}


def test_device_that_is_as_claimed_is_certified(client: Client) -> None:
    result = certify(client, CLAIMED, library.load(CLAIMED), qubits=QUBITS, seed=1)
    assert result.passed, (result.culprits, result.unresolved)
    (other,) = result.untested
    assert (other.gate, other.by_parts) == ("id", True)
    compared = {each.quantity for each in result.comparisons if each.claimed is not None}
    assert compared == {
        "t1_us", "t2_us", "t2_ramsey_us", "p01", "p10", "error_1q", "error_half", "error_2q",
        "zz_khz", "zz_angle_rad", "z_angle_rad", "preparation_error", "reset_error", "excited",
        "error_other", "turn_angle_rad", "axis_angle_rad", "gate_time_ns",
    }  # fmt: skip
    assert any("rotations of cz about other axes" in text for text in result.blind)


def test_coherent_angles_resets_and_durations_that_differ_are_named(
    client: Client, home: Path
) -> None:
    """At unchanged errors: each alters what no error of a gate shows."""
    claims = library.load(CLAIMED)
    changed, named = claims, list[set[tuple[str, tuple[int, ...]]]]()
    for kind, line in (
        ("cz turns about ZZ", (0, 1, 2)),
        ("sx turns too far", (0, 1, 2)),
        ("reset leaves 5 % in 1", (1, 0, 2)),
        ("cz three times as long", (2, 1, 0)),
    ):
        changed, expected = altered_devices.KINDS[kind](changed, line)
        named.append({(quantity, tuple(sorted(place))) for quantity, place in expected})
    result = certify(client, stored(home, "altered", changed), claims, qubits=QUBITS, seed=3)
    found = {(quantity, tuple(sorted(place))) for quantity, place in culprits(result)}
    for expected in named:
        assert expected & found, (expected, found)


def test_all_culprits_are_named_and_no_others(client: Client, home: Path) -> None:
    claims = library.load(CLAIMED)
    changed = claims
    for change in CONTROLS:
        changed = change(changed)
    result = certify(client, stored(home, "changed", changed), claims, qubits=QUBITS, seed=2)
    assert culprits(result) == set().union(*CONTROLS.values())


def test_claims_below_the_limit_of_relaxation_are_named(client: Client) -> None:
    """All two-qubit errors are claimed at a tenth: the claim that is compared is the limit."""
    claims = scaled_errors(library.load(CLAIMED), 0.1, lambda gate: gate.name == "cz")
    result = certify(client, CLAIMED, claims, qubits=QUBITS, seed=5)
    pairs = {each.qubits for each in result.comparisons if each.quantity == "error_2q"}
    named = {each.qubits for each in (*result.culprits, *result.contradicted)}
    assert len(pairs) == 2
    assert {tuple(sorted(each)) for each in named} >= {tuple(sorted(each)) for each in pairs}
    assert {each.quantity for each in result.contradicted} == {"error_2q"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "qubits"), [("trapped-ions", range(8)), ("neutral-atoms", (0, 1, 2, 8, 9, 10))]
)
def test_other_technology_is_certified(client: Client, name: str, qubits: tuple[int, ...]) -> None:
    result = certify(client, name, library.load(name), qubits=list(qubits), seed=4)
    assert result.passed, (result.culprits, result.unresolved)


def test_a_device_that_claims_gates_without_errors_is_certified(client: Client, home: Path) -> None:
    claimed = library.load(CLAIMED)
    ideal = CalibrationSnapshot(
        name="faultless",
        num_qubits=1,
        native_gates=claimed.native_gates,
        qubits=(QubitCalibration(p01=0.0, p10=0.0),),
        gates=tuple(GateCalibration(name, (0,), 0.0) for name in ("rz", "sx", "x")),
    )
    result = certify(client, stored(home, "faultless", ideal), ideal)
    assert result.passed
    measured = {each.quantity for each in result.comparisons if each.claimed is not None}
    assert {"error_1q", "error_half"} <= measured


class Certified:
    """A device that passes with its own claims. `rows`: recovered values by quantity and qubits, of
    one gate if it is named; `again`: the calibration that was recovered."""

    def __init__(
        self, client: Client, home: Path, claims: CalibrationSnapshot, on: Sequence[int], seed: int
    ) -> None:
        self.name = stored(home, f"certified-{claims.digest.hex()[:8]}", claims)
        self.result = certify(client, self.name, claims, qubits=on, seed=seed)
        assert self.result.passed, (self.result.culprits, self.result.unresolved)
        self.device = client.device(self.name)
        self.again = recovered(claims, self.result.measured, 0.0, "again")

    def rows(self, gate: str = "") -> dict[tuple[str, tuple[int, ...]], float | None]:
        found = (each for each in self.result.comparisons if gate in ("", each.gate))
        return {(each.quantity, each.qubits): each.recovered for each in found}

    def outside(self, wrong: CalibrationSnapshot) -> set[tuple[str, tuple[int, ...]]]:
        """What other claims would fail by."""
        return culprits_of(compared(self.device, self.result.measured, wrong))


def test_t2_of_an_echo_and_t2_star_are_both_certified(client: Client, home: Path) -> None:
    """The detuning of a shot shortens Ramsey experiments alone."""
    claims = library.load(CLAIMED)
    for qubit, part in ((0, 0.3), (2, 0.6)):
        claims = changed_qubit(claims, qubit, t2_star_us=part * (claims.qubits[qubit].t2_us or 0.0))
    done = Certified(client, home, claims, (0, 2), 6)
    star_us, t2_us = (done.rows()[name, (0,)] for name in ("t2_ramsey_us", "t2_us"))
    assert star_us == pytest.approx(0.3 * t2_us, rel=0.1)
    assert done.again.qubits[0].t2_star_us == star_us
    markovian = changed_qubit(claims, 0, t2_star_us=None)
    wrong = certify(client, done.name, markovian, qubits=(0,), seed=7)
    assert culprits(wrong) == {("t2_ramsey_us", (0,))}


def test_the_t1_of_a_jump_is_certified(client: Client, home: Path) -> None:
    """The T1 in force is low; without the jump, the claims have the culprits that it makes."""
    claims = changed_qubit(library.load(CLAIMED), 0, t1_jumps=T1Jumps(2.0, 600.0, 0.15, low=True))
    low_us = claims.qubits[0].in_force.t1_us
    done = Certified(client, home, claims, (0,), 9)
    t1_us = done.rows()["t1_us", (0,)]
    assert t1_us == pytest.approx(low_us, rel=0.05)
    assert done.device.qubits[0].t1_us == pytest.approx(low_us)
    again = done.again.qubits[0]
    assert (again.t1_us, again.t1_jumps) == (t1_us, None), "the measured T1 contains it"
    assert done.outside(library.load(CLAIMED)) >= {("t1_us", (0,)), ("t2_us", (0,))}


def test_memory_errors_of_ions_are_recovered_beside_the_errors_of_their_gates(
    client: Client, home: Path
) -> None:
    claims = ions = library.load("trapped-ions")
    for qubit, error in ((0, 4e-3), (1, 6e-3), (2, 3e-3), (3, 5e-3)):
        claims = changed_qubit(claims, qubit, memory_error=error)
    done = Certified(client, home, claims, (0, 1, 2), 8)
    assert done.rows()["memory_error", (1,)] == pytest.approx(6e-3, rel=0.1)
    assert done.again.qubits[2].memory_error == done.rows()["memory_error", (2,)]
    gate = next(each for each in done.again.gates if each.qubits == (0, 1))
    stated = next(each for each in ions.gates if each.name == gate.name and not each.qubits)
    assert gate.error == pytest.approx(stated.error, rel=0.25), "without the memory errors"
    assert ("error_2q", (0, 1)) in done.outside(ions)
    assert ("memory_error", (1,)) in done.outside(changed_qubit(claims, 1, memory_error=9e-3))


def test_what_measurements_do_is_recovered(client: Client, home: Path) -> None:
    terms = MeasurementCrosstalk((0, 1), 0.02, 0.06), MeasurementCrosstalk((), 0.008)
    claims = replace(library.load(CLAIMED), dynamic=True, measurement_crosstalk=terms)
    for qubit, down, up in ((0, 0.08, 0.02), (2, 0.05, None)):
        claims = changed_qubit(claims, qubit, measure_decay=down, measure_excitation=up)
    done = Certified(client, home, claims, (0, 1), 11)
    rows = done.rows()
    assert rows["measure_decay", (0,)] == pytest.approx(0.08, abs=0.008)
    assert rows["measure_excitation", (0,)] == pytest.approx(0.02, abs=0.006)
    assert rows["measurement_crosstalk", (0, 1)] == pytest.approx(0.02, rel=0.1)
    assert rows["measurement_angle_rad", (0, 1)] == pytest.approx(0.06, rel=0.1)
    assert rows["measurement_crosstalk", (1, 0)] == pytest.approx(0.008, abs=0.001)
    assert done.again.qubits[0].measure_decay == rows["measure_decay", (0,)]
    angle_rad = done.again.measurement_crosstalk[1].angle_rad
    assert angle_rad == rows["measurement_angle_rad", (0, 1)]
    wrong = replace(
        changed_qubit(claims, 0, measure_decay=0.12, measure_excitation=0.02),
        measurement_crosstalk=(MeasurementCrosstalk((0, 1), 0.03, 0.03),),
    )
    assert done.outside(wrong) >= {
        ("measure_decay", (0,)), ("measurement_crosstalk", (0, 1)),
        ("measurement_angle_rad", (0, 1)),
    }  # fmt: skip


def test_populations_and_joint_flips_of_three_qubits_are_recovered(
    client: Client, home: Path
) -> None:
    """A term of the device that the claims lack, or have twice, is named by its own rows alone."""
    claims = library.load(CLAIMED)
    flips = [claims.qubits[qubit].confusion for qubit in QUBITS]
    confusion = independent_confusion(np.array(flips))
    index = np.arange(8)
    for mask, p in ((3, 0.015), (7, 0.02)):
        confusion = (1.0 - p) * confusion + p * confusion[index ^ mask]
    group = CorrelatedReadout(QUBITS, tuple(map(tuple, confusion.tolist())))
    claims = replace(claims, correlated_readout=(group,))
    for qubit, excited, reset in ((0, 0.02, 0.01), (1, 0.01, 0.02), (2, 0.005, 0.005)):
        claims = changed_qubit(claims, qubit, excited=excited, reset_error=reset)
    done = Certified(client, home, claims, QUBITS, 14)
    values, again = done.rows(), done.again
    assert values["joint_flip", QUBITS] == pytest.approx(0.02, abs=0.002)
    assert values["joint_flip", (0, 1)] == pytest.approx(0.015, abs=0.002)
    assert values["joint_flip", (0, 2)] == pytest.approx(0.0, abs=0.002)
    assert values["excited", (0,)] == pytest.approx(0.02, abs=0.003)
    np.testing.assert_allclose(again.correlated_readout[0].confusion, confusion, atol=0.02)
    assert again.qubits[1].reset_error == values["reset_error", (1,)]
    for wrong, rows in (
        (changed_qubit(claims, 0, excited=0.0), {("excited", (0,))}),
        (changed_qubit(claims, 0, excited=0.04), {("excited", (0,))}),
        (changed_qubit(claims, 1, reset_error=0.0), {("reset_error", (1,))}),
        (changed_qubit(claims, 2, preparation_error=0.02), {("preparation_error", (2,))}),
        (replace(claims, correlated_readout=()), {("joint_flip", (0, 1)), ("joint_flip", QUBITS)}),
    ):
        assert done.outside(wrong) - {
            ("p01", (2,)), ("p10", (2,)),  # they contain errors of the preparation
        } == rows  # fmt: skip


ROTATED = (("ZZ", 0.08), ("IZ", 0.06), ("ZI", -0.03))


def coherent(
    claimed: CalibrationSnapshot, angles: tuple[tuple[str, float], ...] = ROTATED
) -> CalibrationSnapshot:
    """Device whose gates on pairs turn by angles of their own, the smaller qubit first; their
    errors contain that."""

    def changed(gate: GateCalibration) -> GateCalibration:
        if len(gate.qubits) != 2:
            return gate
        step = 1 if gate.qubits[0] < gate.qubits[1] else -1
        turns = tuple(PauliRotation(name[::step], angle) for name, angle in angles)
        error = (gate.error or 0.0) + 0.002
        return replace(gate, rotations=turns, error=error, over_rotation_rad=None)

    return replace(claimed, gates=tuple(map(changed, claimed.gates)))


def test_rotations_of_gates_and_joint_flips_are_recovered(client: Client, home: Path) -> None:
    """Angles about ZZ and each Z by the phase that grows with the number of gates; a pair whose
    records are flipped together, also where it is not coupled."""
    claims = flipped_together(coherent(library.load(CLAIMED)), (0, 2))
    done = Certified(client, home, claims, QUBITS, 8)
    assert {each.quantity for each in done.result.unresolved} == {"error_2q"}
    assert all("rotates" in each.reason for each in done.result.unresolved)
    assert done.rows()["zz_angle_rad", (1, 2)] == pytest.approx(0.08, abs=0.004)
    assert done.rows()["joint_flip", (0, 2)] == pytest.approx(0.02, abs=0.003)
    (group,) = done.again.correlated_readout
    assert (group.qubits, group.joint_flip) == ((0, 2), pytest.approx(0.02, abs=0.003))
    for gate in done.again.gates:
        if gate.qubits == PAIR:
            (stated,) = [each for each in claims.gates if each.qubits == PAIR]
            assert gate.error == stated.error, "not the one that interleaved benchmarking sees"
            found = {each.pauli: each.angle_rad for each in gate.rotations}
            assert found == pytest.approx(dict(ROTATED), abs=0.004)
    other = coherent(claims, (("ZZ", 0.05), ("IZ", 0.06), ("ZI", -0.03)))
    assert ("zz_angle_rad", PAIR) in done.outside(other)


def test_decays_by_a_layer_are_certified_in_place_of_the_error_of_its_gate(
    client: Client, home: Path
) -> None:
    rates = {"XI": 2e-3, "IZ": 3e-3, "ZZ": 4e-3, "XY": 1e-3, "YI": 2e-3}
    generators = tuple(
        PauliGenerator(name.replace("I", ""), tuple(k for k in (0, 1) if name[k] != "I"), rate)
        for name, rate in rates.items()
    )
    layer = LayerCalibration((LayerGate("cz", (0, 1)),), (0, 1), generators)
    claims = replace(library.load(CLAIMED), layers=(layer,))
    done = Certified(client, home, claims, (0, 1), 11)
    compared_rows = done.result.comparisons
    decays = [each for each in compared_rows if each.quantity == "layer_decay"]
    assert len(decays) == 15
    assert all(each.claimed for each in decays)
    (gate,) = [each for each in compared_rows if each.quantity == "error_2q"]
    assert gate.claimed is None, "the layer acts in place of the gate"
    total = sum(each.rate for each in done.again.layers[0].generators)
    assert total == pytest.approx(sum(rates.values()), rel=0.1)
    wrong = tuple(replace(each, rate=1.4 * each.rate) for each in generators)
    layers = (replace(layer, generators=wrong),)
    outside = done.outside(replace(claims, layers=layers))
    assert {quantity for quantity, _ in outside} == {"layer_decay"}


def leaking(acts: Callable[[GateCalibration], bool], **values: float) -> CalibrationSnapshot:
    """Device whose gates have these values, where `acts` holds."""
    plain = library.load(CLAIMED)
    gates = tuple(replace(g, **values) if acts(g) else g for g in plain.gates)
    return replace(plain, gates=gates)


def test_leakage_and_seepage_of_gates_are_recovered(client: Client, home: Path) -> None:
    def claimed(leakage: float, seepage: float) -> CalibrationSnapshot:
        values = {"error": 3e-3, "leakage": leakage, "seepage": seepage}
        device = leaking(lambda gate: gate.name in ("sx", "x"), **values)
        return changed_qubit(device, 1, leaked_readout=0.9)

    done = Certified(client, home, claimed(2e-3, 0.01), (1,), 12)
    for name in ("x", "sx"):
        rows = done.rows(name)
        assert rows["leakage", (1,)] == pytest.approx(2e-3, rel=0.1)
        assert rows["seepage", (1,)] == pytest.approx(0.01, rel=0.2)
    gate = next(each for each in done.again.gates if (each.name, each.qubits) == ("sx", (1,)))
    assert (gate.leakage, gate.error) == (rows["leakage", (1,)], pytest.approx(3e-3, rel=0.1))
    assert done.outside(claimed(3e-3, 0.02)) >= {("leakage", (1,)), ("seepage", (1,))}


def test_leakage_of_gates_on_two_qubits_is_recovered(client: Client, home: Path) -> None:
    """A device that leaks more than claimed is not certified, and the pair is named."""

    def claimed(leakage: float) -> CalibrationSnapshot:
        values = {"error": 8e-3, "leakage": leakage, "seepage": 0.02}
        return leaking(lambda gate: set(gate.qubits) == set(PAIR), **values)

    claims = claimed(2e-3)
    done = Certified(client, home, claims, PAIR, 13)
    rows = done.rows()
    assert rows["leakage_2q", PAIR] == pytest.approx(2e-3, rel=0.1)
    assert rows["seepage_2q", PAIR] == pytest.approx(0.02, abs=0.006)
    gate, stated = (
        next(each for each in device.gates if (each.name, each.qubits) == ("cz", PAIR))
        for device in (done.again, claims)
    )
    assert gate.leakage == rows["leakage_2q", PAIR]
    assert gate.error == pytest.approx(stated.error, rel=0.1)
    for wrong in (1e-3, 4e-3):
        assert done.outside(claimed(wrong)) == {("leakage_2q", PAIR)}

"""T2* beside T2: the detuning of a shot in snapshots, models, limits and relations."""

import math

import msgspec
import pytest

from noise_models import document
from noise_models.build import build
from noise_models.calibration import QubitCalibration
from noise_models.limits import limited
from noise_models.options import NoiseOptions
from noise_models.relations import compare, compose
from noise_models.snapshot import clamps, dump, load
from noise_models.strict_json import NoiseError, SnapshotError
from tests.noise_models.snapshots import transmons

STAR = (40.0, 20.0, 50.0)  # the last one is above T2
SNAPSHOT = msgspec.structs.replace(
    transmons(),
    qubits=tuple(
        msgspec.structs.replace(each, t2_star_us=star)
        for each, star in zip(transmons().qubits, STAR, strict=True)
    ),
)


def model(**options: object):  # type: ignore[no-untyped-def]
    return build(
        SNAPSHOT, NoiseOptions.parse({k.replace("__", "."): v for k, v in options.items()})
    )


def test_the_envelope_with_t2_is_1_over_e_at_t2_star() -> None:
    for qubit, star_us in ((0, 40.0), (1, 20.0)):
        echo_us = SNAPSHOT.qubits[qubit].t2_limited_us
        assert echo_us is not None
        deviation = 1e3 * model().detuning(qubit)
        left = math.exp(-star_us / echo_us - 0.5 * (deviation * star_us) ** 2)
        assert left == pytest.approx(math.exp(-1.0))
    assert model().detuning(2) == 0.0
    assert QubitCalibration(t1_us=50.0, t2_star_us=30.0).detuning_rad_us == pytest.approx(
        math.sqrt(2.0 * (1.0 - 0.3)) / 30.0
    ), "without T2 it is 2 T1"


def test_a_snapshot_keeps_t2_star_and_states_what_acts() -> None:
    assert load(dump(SNAPSHOT)) == SNAPSHOT
    assert dict(clamps(SNAPSHOT))["qubits[2].t2_star_us"].startswith("T2* = 50 us is above T2")
    for wrong in (0.0, -1.0, math.inf, 1e-300, 9e-4):
        qubit = msgspec.structs.replace(SNAPSHOT.qubits[0], t2_star_us=wrong)
        values = msgspec.structs.replace(SNAPSHOT, qubits=(qubit, *SNAPSHOT.qubits[1:]))
        with pytest.raises(SnapshotError, match=r"qubits\[0\]\.t2_star_us"):
            dump(values)


def test_factor_and_value_of_the_detuning() -> None:
    assert model(qubit__quasistatic=0.0).detuning(0) == 0.0
    assert model(qubit=0.0).detuning(0) == 0.0
    assert model(qubit__quasistatic=2.0).detuning(0) == pytest.approx(2.0 * model().detuning(0))
    assert model(qubit__t2_star_us=10.0).detuning(2) > 0.0
    assert model(qubit__quasistatic=0.0).digest != model().digest
    assert model(qubit__t2_star_us=1e-3).detuning(0) > 0.0
    with pytest.raises(NoiseError, match=r"qubit\.t2_star_us = 2e-08") as caught:
        model(qubit__t2_star_us=2e-8)
    assert caught.value.hint == "microseconds, at least 0.001"
    with pytest.raises(NoiseError, match="quasistatic"):
        model(recipe="aer", qubit__quasistatic=0.5)
    assert build(SNAPSHOT, NoiseOptions.parse("aer")).detuning(0) == 0.0


def test_values_and_factors_without_effect_are_named() -> None:
    (text,) = limited(model(qubit__t2_star_us=100.0))
    assert text.startswith("qubit.t2_star_us: T2* is not below T2 for qubit 2")
    (text,) = limited(model(qubit__t2_us=10.0))
    assert text.startswith("qubit.t2_us: T2* is not below T2 for qubit 0 and 2 more")
    (text,) = limited(build(transmons(), NoiseOptions.parse({"qubit.quasistatic": 2})))
    assert "qubit.t2_star_us gives the device such noise" in text


def test_the_mean_over_detunings_counts_among_the_known_parts_of_a_gate_error() -> None:
    gate = next(gate for gate in SNAPSHOT.gates if gate.name == "cx")
    assert model().gates.rest(gate, (0, 1)) < build(transmons()).gates.rest(gate, (0, 1))
    assert model(qubit__quasistatic=0).gates.rest(gate, (0, 1)) == model().gates.rest(gate, (0, 1))


def test_detunings_of_composed_models_add_as_independent_ones() -> None:
    composed = compose(model(), model(qubit__quasistatic=2.0))
    assert composed.detuning(0) == pytest.approx(math.sqrt(5.0) * model().detuning(0))
    rows = compare(document.load(dump(SNAPSHOT)), document.load(dump(transmons())))
    assert {row.qubits for row in rows if row.kind == "detuning"} == {(0,), (1,)}

"""Leakage and seepage of gates in snapshots, models, limits and relations."""

import msgspec
import pytest

from noise_models.build import NOT_AER, build
from noise_models.calibration import GateCalibration, leaked_infidelity
from noise_models.limits import limited
from noise_models.options import COMPONENTS, NoiseOptions
from noise_models.relations import compose
from noise_models.snapshot import clamps, dump, load
from noise_models.strict_json import NoiseError, SnapshotError
from tests.noise_models.snapshots import transmons

SNAPSHOT = msgspec.structs.replace(
    transmons(),
    gates=tuple(
        msgspec.structs.replace(each, leakage=2e-3, seepage=0.1) if each.name == "cx" else each
        for each in transmons().gates
    ),
)


def model(**options: object):  # type: ignore[no-untyped-def]
    return build(
        SNAPSHOT, NoiseOptions.parse({k.replace("__", "."): v for k, v in options.items()})
    )


def test_the_leakage_of_a_gate_is_the_mean_over_the_computational_states() -> None:
    p, s = model().leakage("cx", (0, 1))
    states = [1.0 - (1.0 - p * a) * (1.0 - p * b) for a in (0, 1) for b in (0, 1)]
    assert sum(states) / 4 == pytest.approx(2e-3)
    assert s == 0.1
    assert model().leakage("sx", (0,)) == (0.0, 0.0)
    assert GateCalibration("sx", leakage=1e-3).leaks_from_one(1) == pytest.approx(2e-3)


def test_a_snapshot_keeps_leakage_and_refuses_what_is_no_probability() -> None:
    assert load(dump(SNAPSHOT)) == SNAPSHOT
    for field in ("leakage", "seepage"):
        gate = msgspec.structs.replace(SNAPSHOT.gates[0], **{field: 1.5})
        with pytest.raises(SnapshotError, match=rf"gates\[0\]\.{field}"):
            dump(msgspec.structs.replace(SNAPSHOT, gates=(gate, *SNAPSHOT.gates[1:])))
    qubit = msgspec.structs.replace(SNAPSHOT.qubits[0], leaked_readout=-0.1)
    with pytest.raises(SnapshotError, match=r"qubits\[0\]\.leaked_readout"):
        dump(msgspec.structs.replace(SNAPSHOT, qubits=(qubit, *SNAPSHOT.qubits[1:])))
    number, gate = next((k, g) for k, g in enumerate(SNAPSHOT.gates) if g.leakage)
    wide = msgspec.structs.replace(gate, leakage=0.9)
    gates = (*SNAPSHOT.gates[:number], wide, *SNAPSHOT.gates[number + 1 :])
    text = dict(clamps(msgspec.structs.replace(SNAPSHOT, gates=gates)))[f"gates[{number}].leakage"]
    assert "above 0.75" in text
    beyond = msgspec.structs.replace(gate, leakage=0.1)
    gates = (*SNAPSHOT.gates[:number], beyond, *SNAPSHOT.gates[number + 1 :])
    text = dict(clamps(msgspec.structs.replace(SNAPSHOT, gates=gates)))[f"gates[{number}].leakage"]
    assert "above the error of cx on [0, 1], 0.02; used: leakage, no depolarizing error" in text
    assert f"gates[{number}].leakage" not in dict(clamps(SNAPSHOT))


def test_factor_and_values_of_leakage() -> None:
    p, _ = model().leakage("cx", (0, 1))
    assert not model(gate__leakage=0.0).leaks
    assert model(gate__leakage=0.0).leakage("cx", (0, 1)) == (0.0, 0.0)
    assert model(gate__leakage=3.0).leakage("cx", (0, 1))[0] == pytest.approx(3.0 * p)
    assert model(gate__leakage_1q=1e-3).leakage("sx", (0,))[0] == pytest.approx(2e-3)
    assert model(gate__seepage=0.4).leakage("cx", (0, 1))[1] == 0.4
    assert model(qubit__leaked_readout=0.3).leaked_readout(0) == 0.3
    assert model().leaked_readout(0) == 1.0
    assert model(gate__leakage=0.0).digest != model().digest
    with pytest.raises(NoiseError, match=r"gate\.leakage"):
        model(recipe="aer", gate__leakage=0.5)
    assert not build(SNAPSHOT, NoiseOptions.parse("aer")).leaks


@pytest.mark.parametrize("recipe", ["aer", "aer-properties"])
def test_what_a_recipe_does_not_have_can_be_taken_out(recipe: str) -> None:
    plain = model(recipe=recipe)
    for component in COMPONENTS:
        without = build(SNAPSHOT, NoiseOptions.parse({"recipe": recipe, component: 0.0}))
        if component in NOT_AER:
            for name, qubits in (("sx", (0,)), ("cx", (0, 1))):
                pairs = zip(
                    without.after_gate(name, qubits), plain.after_gate(name, qubits), strict=True
                )
                assert all((a.channel.ptm == b.channel.ptm).all() for a, b in pairs)
    with pytest.raises(NoiseError, match=r"gate\.zz_khz"):
        build(SNAPSHOT, NoiseOptions.parse({"recipe": recipe, "gate.zz_khz": 0.0}))


def test_factors_without_effect_and_beyond_the_limit_are_named() -> None:
    (text,) = limited(build(transmons(), NoiseOptions.parse({"gate.leakage": 2})))
    assert "gate.leakage_1q and gate.leakage_2q gives the device such noise" in text
    (text,) = limited(model(gate__leakage=1e4))
    assert text.startswith("gate.leakage * 10000 is above the physical limit for cx")


def test_leakage_is_a_known_part_of_a_gate_error() -> None:
    gate = next(gate for gate in SNAPSHOT.gates if gate.name == "cx")
    assert leaked_infidelity(gate, 2) == pytest.approx(2e-3, rel=0.3)
    plain = build(transmons())
    assert model().gates.rest(gate, (0, 1)) < plain.gates.rest(gate, (0, 1)) + 1e-12
    assert model().gates.infidelity(gate, (0, 1)) > plain.gates.infidelity(
        msgspec.structs.replace(gate, leakage=None), (0, 1)
    )


def test_leakage_of_composed_models_is_that_of_one_after_the_other() -> None:
    p, s = model().leakage("cx", (0, 1))
    both = compose(model(), model())
    assert both.leaks
    assert both.leakage("cx", (0, 1)) == pytest.approx((1 - (1 - p) ** 2, 1 - (1 - s) ** 2))
    assert compose(build(transmons()), model(qubit__leaked_readout=0.2)).leaked_readout(0) == 0.2

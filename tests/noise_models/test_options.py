"""Options of noise, and limits of what a device may describe."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from noise_models import library
from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from noise_models.document import from_values, model
from noise_models.limits import limited
from noise_models.options import COMPONENTS, GROUPS, VALUES, NoiseOptions
from noise_models.strict_json import NoiseError
from tests.noise_models.snapshots import transmons


def test_words_are_short_forms() -> None:
    assert NoiseOptions.parse("on") == NoiseOptions() == NoiseOptions.parse({})
    assert NoiseOptions.parse("off").wire() == (("all", 0.0),)
    assert NoiseOptions.parse("aer").wire() == (("recipe.aer", 1.0),)
    assert NoiseOptions.parse({"recipe": "aer", "idle": False}).wire() == (
        ("recipe.aer", 1.0),
        ("recipe.idle", 0.0),
    )


def test_factors_of_groups_multiply() -> None:
    options = NoiseOptions.parse({"all": 2, "gate": 0.5, "gate.coherent": 3, "qubit.idle": 0})
    assert (options.factor("gate.coherent"), options.factor("gate.depolarizing")) == (3.0, 1.0)
    assert (options.factor("qubit.thermal"), options.factor("qubit.idle")) == (2.0, 0.0)


@given(
    st.dictionaries(st.sampled_from(COMPONENTS + GROUPS), st.floats(0, 10)),
    st.dictionaries(st.sampled_from(sorted(VALUES)), st.floats(0.1, 1)),
    st.sampled_from(["simenv", "aer", "aer-properties"]),
    st.booleans(),
)
def test_wire_form_is_canonical(
    factors: dict[str, float], values: dict[str, float], recipe: str, idle: bool
) -> None:
    mapping = {**factors, **values, "recipe": recipe, "idle": idle}
    options = NoiseOptions.parse(mapping)
    assert NoiseOptions.parse(options.wire()) == options
    assert NoiseOptions.parse(dict(reversed(mapping.items()))).wire() == options.wire()
    assert NoiseOptions.parse(options.wire()[::-1]) == options
    for name in COMPONENTS:
        names = ("all", name.split(".")[0], name)
        expected = 1.0
        for each in names:
            expected *= factors.get(each, 1.0)
        assert options.factor(name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("loud", "loud"),
        ({"gate.depolarising": 1}, "did you mean gate.depolarizing"),
        ({"gate": -1}, "gate"),
        ({"gate": float("nan")}, "gate"),
        ({"gate": float("inf")}, "gate"),
        ({"gate": 10**400}, "gate"),
        ({"all": 1e308}, "a number from 0 to 1e+09"),
        ({"gate": "0.5"}, "gate"),
        ({"gate": True}, "gate"),
        ({"qubit.idle": False}, "qubit.idle"),
        ({"qubit.p01": 1.5}, "qubit.p01"),
        ({"qubit.t1_us": 0}, "qubit.t1_us"),
        ({"recipe": "best"}, "best"),
        ({"recipe.aer": 0.5}, "recipe.aer"),
        ({"recipe.best": 1.0}, "best"),
        ({"idle": 2}, "idle"),
        ([("gate", 1.0), ("gate", 1.0)], "twice"),
        ([("gate", 1.0, 2.0)], "pairs"),
        ({3: 1.0}, "pairs"),
        ({"idle": False, "recipe.idle": 1.0}, "'idle' is given twice"),
        ({"recipe": "aer", "recipe.aer-properties": 1.0}, "aer and aer-properties"),
        ({"recipe.idle": 2.0}, "option idle = 2.0"),
        ({"qubit.t1_us": 0}, "qubit.t1_us = 0"),
    ],
)
def test_wrong_options_are_refused_by_name(value: object, text: str) -> None:
    with pytest.raises(NoiseError) as caught:
        NoiseOptions.parse(value)  # type: ignore[arg-type]
    assert text in caught.value.message + caught.value.hint
    assert caught.value.hint


SNAPSHOT = CalibrationSnapshot(
    name="two",
    num_qubits=2,
    native_gates=(NativeGate("sx", 1), NativeGate("cz", 2)),
    all_to_all=True,
    qubits=(
        QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.01, p10=0.02, excited=0.03),
        QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.3, p10=0.4, reset_error=0.2),
    ),
    gates=(
        GateCalibration("sx", error=1e-3, duration_ns=30.0),
        GateCalibration("cz", (0, 1), error=0.3, duration_ns=60.0),
        GateCalibration("cz", (1, 0), error=1.0),  # does not work
    ),
    correlated_readout=(
        CorrelatedReadout((0, 1), ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))),
    ),
)


def texts(snapshot: CalibrationSnapshot = SNAPSHOT, **factors: float) -> tuple[str, ...]:
    named = {name.replace("_", ".", 1): value for name, value in factors.items()}
    return limited(build(snapshot, NoiseOptions.parse(named)))


@pytest.mark.parametrize(
    ("factors", "component", "place"),
    [
        ({"gate_depolarizing": 3.0}, "gate.depolarizing * 3", "for cz on 0, 1;"),
        ({"gate": 1e9}, "gate.depolarizing * 1e+09", "for sx on all qubits and 1 more;"),
        ({"qubit_readout": 3.0}, "qubit.readout * 3", "for qubit 1;"),
        ({"qubit_thermal": 40.0}, "qubit.thermal * 40", "for qubit 0;"),
        ({"qubit_reset": 6.0}, "qubit.reset * 6", "for qubit 1;"),
        ({"qubit_preparation": 40.0}, "qubit.preparation * 40", "for qubit 0;"),
        ({"qubit_correlated_readout": 2.0}, "qubit.correlated_readout * 2", "acts as 1"),
    ],
)
def test_component_whose_factor_is_limited_is_named_with_its_place(
    factors: dict[str, float], component: str, place: str
) -> None:
    (text,) = texts(**factors)
    assert text.startswith(component)
    assert place in text


def test_replaced_times_with_t2_above_its_limit_are_named() -> None:
    (text,) = texts(qubit_t2_us=201.0)
    assert text == "qubit.t2_us: T2 is above 2 T1 for qubit 0 and 1 more; 2 T1 acts there"
    assert len(texts(qubit_t1_us=39.0)) == 1
    assert texts(qubit_t2_us=200.0) == texts(qubit_t1_us=40.0) == ()


def test_replaced_gate_errors_below_relaxation_are_named_with_gate_and_both_numbers() -> None:
    (text,) = texts(gate_error_2q=1e-4)
    built = build(SNAPSHOT, NoiseOptions.parse({"gate.error_2q": 1e-4}))
    (channel,) = built.after_gate("cz", (0, 1))
    assert text == (
        f"gate.error_2q = 0.0001 is below {channel.channel.infidelity:.3g}, the error by relaxation"
        " and coherent error alone, for cz on 0, 1; no depolarizing error is added there"
    )
    (text,) = texts(gate_error_1q=0.0)
    assert "gate.error_1q = 0 is below" in text
    assert "for sx on all qubits;" in text
    assert len(texts(gate_error_1q=0.0, gate_error_2q=0.0)) == 2
    assert texts(gate_error_1q=1e-3, gate_error_2q=0.01) == ()


def test_gates_with_errors_below_relaxation_are_counted_and_the_worst_is_named() -> None:
    gates = (
        GateCalibration("cz", (0, 1), error=0.3, duration_ns=60.0),
        GateCalibration("cz", (1, 0), error=0.3, duration_ns=90.0),
    )
    (text,) = texts(msgspec.structs.replace(SNAPSHOT, gates=gates), gate_error_2q=1e-5)
    assert "for cz on 1, 0, and for 1 more;" in text


def test_factors_within_limits_have_no_text() -> None:
    assert texts() == ()
    assert texts(gate_depolarizing=2.0, qubit_readout=2, qubit_reset=5.0, qubit_thermal=33.0) == ()
    assert (texts(all=0.5), texts(library.load("superconducting-lattice"), all=2.0)) == ((), ())


def test_limit_is_that_of_the_channel() -> None:
    """The factor below the one that is named still changes the channel."""
    channel = {
        factor: build(SNAPSHOT, NoiseOptions.parse({"gate.depolarizing": factor}))
        .after_gate("cz", (0, 1))[0]
        .channel.infidelity
        for factor in (2.4, 2.5, 2.9, 3.5)
    }
    assert channel[2.4] < channel[2.5]
    named = [bool(texts(gate_depolarizing=factor)) for factor in channel]
    least = next(factor for factor, is_named in zip(channel, named, strict=True) if is_named)
    assert named == [factor >= least for factor in channel]
    assert channel[least] == pytest.approx(channel[3.5])


def test_channels_of_the_caller_have_no_limits() -> None:
    document = from_values({"kind": "channels", "name": "mine", "readout": [{"p01": 0.1}]})
    assert limited(model(document)) == ()


@pytest.mark.parametrize(
    ("component", "values"),
    [
        ("gate.coherent", {"gate.over_rotation_rad": 0.01}),
        ("gate.crosstalk", {"gate.zz_khz": 50.0}),
        ("qubit.thermal", {"qubit.excited": 0.01}),
        ("qubit.preparation", {"qubit.preparation_error": 0.01}),
        ("qubit.reset", {"qubit.reset_error": 0.01}),
        ("qubit.readout", {"qubit.p01": 0.01}),
        ("qubit.correlated_readout", {}),
    ],
)
def test_factor_of_noise_that_a_device_lacks_is_named_with_the_values_that_give_it(
    component: str, values: dict[str, float]
) -> None:
    plain = msgspec.structs.replace(
        SNAPSHOT,
        qubits=(QubitCalibration(t1_us=100.0), QubitCalibration(t1_us=100.0)),
        coupling=((0, 1),),
        all_to_all=False,
        gates=SNAPSHOT.gates[:2],
        correlated_readout=(),
    )
    (text,) = limited(build(plain, NoiseOptions.parse({component: 3.0})))
    assert text.startswith(f"{component} * 3 changes nothing: the calibration has no such noise")
    assert all(name in text for name in values)
    for factors in ({component: 0.0}, {"all": 3.0}):
        assert not any("nothing" in x for x in limited(build(plain, NoiseOptions.parse(factors))))
    if values:
        assert not limited(build(plain, NoiseOptions.parse({component: 3.0, **values})))


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"gate.depolarizing": 3.0}, ["gate.depolarizing * 3 changes nothing"]),
        ({"qubit.idle": 2.0}, ["qubit.idle * 2 changes nothing"]),
        ({"gate": 3.0, "qubit": 0.0}, ["gate * 3 changes nothing"]),
        ({"all": 0.5}, ["all * 0.5 changes nothing"]),
        ({"qubit.t1_us": 30.0}, ["qubit.t1_us acts during delays of a circuit alone"]),
        ({"qubit": 2.0, "qubit.p01": 0.1}, []),
        ({"all": 0.0}, []),
    ],
)
def test_options_without_effect_on_a_device_without_noise_are_named(
    options: dict[str, float], texts: list[str]
) -> None:
    shown = limited(build(library.load("ideal"), NoiseOptions.parse(options)))
    assert len(shown) == len(texts)
    assert all(each.startswith(text) for each, text in zip(shown, texts, strict=True))
    assert not any("gate.error" in each for each in shown)  # the device has no gate with noise


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gate.seepage": 0.1}, "gate.seepage changes nothing: no gate leaks"),
        ({"qubit.leaked_readout": 0.5}, "qubit.leaked_readout changes nothing: no gate leaks"),
        (
            {"qubit.memory_error": 0.01, "idle": False},
            "qubit.memory_error changes nothing: the option idle is False",
        ),
        (
            {"gate.zz_khz": 10.0, "idle": False},
            "gate.zz_khz changes nothing: the option idle is False",
        ),
        ({"qubit.idle": 2.0, "idle": False}, "qubit.idle changes nothing: the option idle"),
        ({"qubit.memory_error": 0.9}, "qubit.memory_error = 0.9 is above 1/3; complete dephasing"),
        (
            {"qubit.measurement_crosstalk_error": 0.9},
            "qubit.measurement_crosstalk_error = 0.9 is above 1/3; complete dephasing",
        ),
        (
            {"qubit.measure_decay": 1e-9},
            "qubit.measure_decay = 1e-09 is below what relaxation during the readout does, for"
            " qubit 0 and 2 more; relaxation alone acts there",
        ),
        (
            {"qubit.measure_excitation": 1e-9},
            "qubit.measure_excitation = 1e-09 is below what relaxation during the readout does",
        ),
        (
            {"gate.leakage_2q": 0.1},
            "gate.leakage_2q = 0.1 alone has an infidelity of 0.101, above the error 0.02 of cx on"
            " 0, 1, and for 2 more; no depolarizing error is added there",
        ),
        ({"gate.leakage_1q": 0.1}, "gate.leakage_1q = 0.1 alone has an infidelity of"),
        ({"qubit.leaked_t1_us": 5.0}, "qubit.leaked_t1_us changes nothing: no gate leaks; gate."),
        (
            {"qubit.readout_decided": 0.5, "qubit.p10": 1e-6},
            "qubit.readout_decided = 0.5: relaxation before the decision has more errors than p01"
            " or p10 of qubit 0 and 2 more; relaxation alone acts there",
        ),
        (
            {"qubit.readout_decided": 0.5, "qubit.relaxation": 0.0},
            "qubit.readout_decided = 0.5 changes nothing: no qubit relaxes during a readout",
        ),
    ],
)
def test_one_text_names_what_an_option_does_not_do(options: dict[str, float], text: str) -> None:
    (found,) = limited(build(transmons(), NoiseOptions.parse(options)))
    assert found.startswith(text)


@pytest.mark.parametrize(
    "options",
    [
        {"gate.seepage": 0.1, "gate.leakage_2q": 1e-4},
        {"qubit.memory_error": 1.0 / 3.0},
        {"qubit.measurement_crosstalk_error": 1.0 / 3.0},
        {"qubit.measurement_crosstalk_error": 0.1, "idle": False},
        {"qubit.measure_decay": 0.2, "qubit.measure_excitation": 0.1},
        {"qubit.memory_error": 0.9, "qubit.memory": 0.0},
        {"qubit.readout_decided": 0.5, "qubit.p01": 0.1, "qubit.p10": 0.2},
    ],
)
def test_options_that_act_have_no_text(options: dict[str, float]) -> None:
    assert limited(build(transmons(), NoiseOptions.parse(options))) == ()

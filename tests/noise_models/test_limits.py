"""Values of options that do not act as their numbers say are named."""

import pytest

from noise_models.build import build
from noise_models.limits import limited
from noise_models.options import NoiseOptions
from tests.noise_models.snapshots import transmons


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

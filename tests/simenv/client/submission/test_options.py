"""Options that mean something, and refusals of those that do not."""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing import fails

from simenv.cli.tasks.circuit_input import FIELDS
from simenv.client.client import Client
from simenv.client.submission import options
from simenv.client.submission.prepare import prepare_many, prepare_one
from simenv.errors import ConfigError, OptionError
from simenv.frontends import qpi
from simenv.model import TaskOptions
from simenv.model.options import OF_PULSES, OF_STIM, BatchOptions, SubmitOptions, check_options
from simenv.model.task_rules import checked_key


def chosen(**changes: Any) -> options.CheckedOptions:
    return options.checked_options(changes)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("shots", -1), ("shots", float("nan")), ("shots", 2**31), ("shots", 1.5), ("shots", True),
        ("shots", "10"), ("outputs", ("count",)), ("outputs", ()), ("engine", "../x"),
        ("engine", ""), ("precision", "half"), ("pool", "Main;rm"), ("pool", "a" * 65),
        ("priority", 0.5), ("priority", 10**7), ("queue_timeout_s", 0),
        ("queue_timeout_s", -1.0), ("run_timeout_s", float("inf")), ("run_timeout_s", float("nan")),
        ("run_timeout_s", "1"), ("name", "two\nlines"), ("name", "\x1b[31m"),
        ("prefer", "Hardware"), ("prefer", ["a b"]), ("prefer", [f"q{k}" for k in range(17)]),
        ("outputs", 5), ("outputs", [["counts"]]), ("prefer", 5), ("qubit_mapping", 5),
        ("qubit_mapping", {0: 1}), ("qubit_mapping", "01"), ("qubit_mapping", [0.0]),
        ("partition", 5), ("partition", [1]),
        ("options", 5), ("options", ["bond"]),
        ("ranks", 0), ("ranks", 3), ("ranks", 8192), ("ranks", 2.0), ("ranks", True),
    ],
)  # fmt: skip
def test_invalid_option_values_are_refused(option: str, value: object) -> None:
    fails(OptionError, option.removesuffix("s"), chosen, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("outputs", ("bogus",)), ("outputs", ()), ("precision", "half"), ("priority", 10**7),
        ("queue_timeout_s", -1.0), ("run_timeout_s", 1e12), ("ranks", 3), ("ranks", 8192),
        ("prefer", tuple(f"pool{k}" for k in range(17))),
    ],
)  # fmt: skip
def test_client_and_service_refuse_an_option_with_one_text(option: str, value: Any) -> None:
    in_client = fails(OptionError, "", chosen, **{option: value})
    in_service = fails(OptionError, "", check_options, TaskOptions(**{option: value}))
    assert str(in_client) == str(in_service)


@pytest.mark.parametrize(
    ("method", "of"),
    [("submit", SubmitOptions), ("run", SubmitOptions), ("submit_many", BatchOptions)],
)
def test_signature_shows_each_option_with_its_default(method: str, of: Any) -> None:
    shown = inspect.signature(getattr(Client, method)).parameters
    table = {name: each.default for name, each in shown.items() if each.kind is each.KEYWORD_ONLY}
    assert (table.keys(), table["shots"]) == (of.__optional_keys__, 1024)
    assert (table["outputs"], table["noise"]) == (("counts",), "auto")


def test_unknown_option_is_refused_by_name() -> None:
    fails(TypeError, "no option parameter_values", prepare_many, [], {"parameter_values": [1.0]})
    fails(TypeError, "no option shot; did you mean `shots`", prepare_one, "", {"shot": 1})


def test_values_of_options_are_normalised() -> None:
    assert chosen(ranks=np.int64(4)).task_options(measures=True, observables=None).ranks == 4
    assert chosen(ranks=None).task_options(measures=True, observables=None).ranks == 0
    assert chosen(shots=np.int64(7)).shots == 7
    assert options.checked_seed(np.uint64(2**64 - 1), None) == 2**64 - 1
    assert chosen(outputs="probabilities").task.outputs == ("probabilities",)
    assert chosen(outputs=["counts", "counts"]).task.outputs == ("counts",)


@pytest.mark.parametrize(
    ("changes", "measures", "observed", "outputs"),
    [
        ({}, True, False, ("counts",)),
        ({}, True, True, ("counts", "expectation")),
        ({}, False, True, ("expectation",)),
        ({"shots": None}, True, True, ("expectation",)),
        ({"outputs": ("expectation",)}, True, True, ("expectation",)),
        ({"shots": None, "outputs": ("probabilities",)}, True, False, ("probabilities",)),
    ],
)
def test_default_outputs_follow_from_measurements_shots_and_observables(
    changes: dict[str, Any], measures: bool, observed: bool, outputs: tuple[str, ...]
) -> None:
    assert chosen(**changes).outputs(measures, observed) == outputs


def test_options_that_contradict_the_run_are_refused() -> None:
    fails(OptionError, "probabilities", chosen(shots=None).outputs, measures=True, observed=False)
    with pytest.raises(OptionError, match="observables"):
        chosen(outputs=("expectation",)).outputs(measures=True, observed=False)
    fails(OptionError, "engine", chosen, engine=["auto"])
    assert chosen(shots=1).shots == 1
    fails(OptionError, "shots=True", chosen, shots=True)


@pytest.mark.parametrize("shots", [0, 0.0, None, np.int64(0)])
def test_shots_zero_and_none_are_exact(shots: object) -> None:
    assert chosen(shots=shots, outputs=("probabilities",)).shots == 0


@pytest.mark.parametrize("shots", [1e6, np.float64(1e6), np.int32(10**6)])
def test_shots_may_be_float_with_integer_value(shots: object) -> None:
    assert chosen(shots=shots).shots == 1_000_000


@pytest.mark.parametrize("key", ["", "~mine", "x" * 257, 7, None])
def test_invalid_keys_are_refused(key: object) -> None:
    fails(OptionError, "", checked_key, key)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "7"])
def test_invalid_seeds_are_refused(seed: Any) -> None:
    fails(OptionError, "seed", options.checked_seed, seed, None)


def test_seeds_are_drawn_once_or_as_given() -> None:
    drawn = {options.checked_seed(None, None) for _ in range(100)}
    assert len(drawn) == 100
    assert max(drawn) < 2**53
    assert options.checked_seed(None, "sweep-17") == options.checked_seed(None, "sweep-17")
    assert options.item_seeds(None, 3, "sweep-17") == options.item_seeds(None, 3, "sweep-17")
    assert options.checked_seed(None, "sweep-17") != options.checked_seed(None, "sweep-18")
    assert options.item_seeds([3, 1, 2], 3, None) == [3, 1, 2]
    assert options.sweep_seeds(np.array([3, 1]), 2, None) == [3, 1]
    fails(OptionError, "2 seeds for 3 tasks", options.item_seeds, [1, 2], 3, None)
    fails(OptionError, r"seed\[1\]=-1", options.item_seeds, [1, -1], 2, None)


def test_seeds_of_items_are_fixed_and_distinct() -> None:
    assert len({seed for base in range(50) for seed in options.item_seeds(base, 50, None)}) == 2_500
    assert options.item_seeds(7, 2, None) == [6_560_375_150_073_525, 7_235_829_850_334_302]
    assert options.item_seeds(7, 5, None)[:3] == options.item_seeds(7, 3, None)
    assert options.sweep_seeds(7, 3, None) == [7, 7, 7]


def test_prefer_keeps_order_without_repeats_and_excludes_pool() -> None:
    assert chosen().task.prefer == ()
    assert chosen(prefer="hardware").task_options(True, None).prefer == ("hardware",)
    assert chosen(prefer=["qpu", "emulator", "qpu"]).task.prefer == ("qpu", "emulator")
    fails(OptionError, "prefer cannot be combined with pool", chosen, prefer="hardware", pool="qpu")


def under(named: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[str, int]:
    """Pool and reservation of a submission in a job."""
    monkeypatch.setenv("SIMENV_RESERVATION", named)
    task = prepare_one("examples/bell.qasm", changes).terms
    return task.pool, task.reservation


def test_circuits_of_a_job_run_in_its_reservation_unless_they_name_another_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = "fez_emulated:17,main:18"
    assert under(named, monkeypatch) == ("fez_emulated", 17)
    assert under(named, monkeypatch, pool="main") == ("main", 18)
    assert under(named, monkeypatch, pool="other") == ("other", 0)
    assert under(named, monkeypatch, reservation=3) == ("", 3)
    for elsewhere in ({"device": "fez"}, {"prefer": ("hardware",)}):
        assert under(named, monkeypatch, **elsewhere) == ("", 0)
    assert under("", monkeypatch) == ("", 0)
    for wrong in ("17", "main:", "main:x", "main:17,", "Main:17", "main:" + "9" * 30, "main:0"):
        fails((OptionError, ConfigError), "SIMENV_RESERVATION", under, wrong, monkeypatch)


# Options of `Client.submit` that other interfaces do not have. HTTP: see the gateway's tests.
LACKING = {
    # A trace is TRACEPARENT; circuits of stim are Python objects, sweeps have no file format.
    "command line": {"binding_index", *OF_STIM, "trace"},
    # Methods of the backend and its jobs, or other words of Qiskit, say the rest.
    "Qiskit": {
        *("after", "amplitudes", "binding_index", *OF_STIM, *OF_PULSES, "idempotency_key", "name"),
        *(
            "observables",
            "outputs",
            "parameter_values",
            "partition",
            "prefer",
            "qubit_mapping",
            "ranks",
        ),
    },
    # Tapes say what is measured, and wires which qubits.
    "PennyLane": {
        *(
            "after",
            "amplitudes",
            "binding_index",
            *OF_STIM,
            *OF_PULSES,
            "idempotency_key",
            "observables",
        ),
        *("outputs", "parameter_values", "qubit_mapping"),
    },
    # docs/guides/qpi.md lists what the library does not do.
    "C": {
        *(
            "after",
            "amplitudes",
            "binding_index",
            "compile",
            "fractional_gates",
            *OF_STIM,
            *OF_PULSES,
            "options",
            "prefer",
        ),
        *("partition", "qubit_mapping", "ranks", "trace"),
    },
}


def test_options_of_the_command_line() -> None:
    assert lacking(FIELDS) == LACKING["command line"]


def test_options_of_qiskit() -> None:
    backend = pytest.importorskip("simenv.frontends.qiskit.backend")
    of_backend = ("device", "pool", "engine", "reservation", "options", "shots", "seed")
    assert lacking((*backend._OF_RUN, *of_backend)) == LACKING["Qiskit"]


def test_options_of_pennylane() -> None:
    device = pytest.importorskip("simenv.frontends.pennylane.device")
    given = (*device._OPTIONS, "shots", "seed", "name")  # the name is `task_name` there
    assert lacking(given) == LACKING["PennyLane"]


def test_options_of_c() -> None:
    text = (Path(qpi.__file__).parent / "include" / "simenv_qpi.h").read_text()
    fields = text.partition("typedef struct qpi_options {")[2].partition("}")[0]
    fields = re.sub(r"/\*.*?\*/", "", fields, flags=re.DOTALL)
    names = set(re.findall(r"(\w+);", fields)) | {"pool", "parameter_values"}  # `device`, arguments
    assert lacking(name.removeprefix("single_") for name in names) == LACKING["C"]


def lacking(names: Iterable[str]) -> set[str]:
    return set(SubmitOptions.__optional_keys__ - set(names))

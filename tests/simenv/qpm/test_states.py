"""States and admission of the QPM contract."""

import enum
import inspect
from pathlib import Path

import msgspec
import pytest

from simenv.client.qpm import admission, execution, provider, scheduler, telemetry
from simenv.client.qpm.provider import QPM
from simenv.client.qpm.telemetry import ControlBinding
from simenv.model import FINAL_STATES, AdmissionReason, ReservationState, TaskInfo, TaskState
from simenv.qpm import contract, methods
from simenv.qpm.answers import STATE_CODES, reason_text
from simenv.qpm.contract import BINDINGS
from simenv.qpm.envelopes import OUTCOMES, STATE_MAP, Lifecycle, Outcome, under_way

DOCS = Path(__file__).parents[3] / "docs" / "guides" / "qpm.md"


def methods_of(binding: str) -> dict[str, methods.Arguments]:
    return {**methods.REVISION2[binding], **methods.EXTENSIONS.get(binding, {})}


def test_each_task_state_has_lifecycle_outcome_and_consistent_rc() -> None:
    assert (set(STATE_MAP), set(OUTCOMES)) == (set(TaskState), set(Lifecycle))
    for state, stand in STATE_MAP.items():
        assert (stand.rc is not None) == (state in FINAL_STATES)
        assert (stand.already is not None) == (state in FINAL_STATES)
        assert (stand.rc == 0) == (state is TaskState.DONE) == (stand.outcome is Outcome.COMPLETED)
        assert (stand.reason is not None) == (stand.rc not in (0, None))
    failures = [stand.rc for stand in STATE_MAP.values() if stand.rc]
    assert len(set(failures)) == len(failures)


def test_state_table_in_docs_matches_code() -> None:
    text = DOCS.read_text()
    for state, stand in STATE_MAP.items():
        lifecycle, outcome = f"`{stand.lifecycle}`", f"`{stand.outcome}`"
        content = "raises `DEFwInProgress`" if stand.rc is None else f"record, `rc` {stand.rc}"
        assert f"| {state} | {lifecycle} | {outcome} |" in text
        row = next(line for line in text.splitlines() if line.startswith(f"| {state} |"))
        assert content in row
    waiting = TaskInfo("t-1", "", "main", TaskState.QUEUED, 1, 0.0, 2, 200, "", "")
    for value, changed in (
        ("QUEUED, parked", {"parked": 1}),
        ("QUEUED, with a worker", {"worker": "main-0"}),
    ):
        lifecycle = under_way(msgspec.structs.replace(waiting, **changed))
        output = f"| {value} | `{lifecycle}` | `{OUTCOMES[lifecycle]}` | raises `DEFwInProgress` |"
        assert output in text


def test_states_reasons_and_bindings_are_of_the_contract() -> None:
    assert [STATE_CODES[state] for state in ReservationState] == [1, 2, 3, 4, 5]
    assert [reason_text(code) for code in (0, 1, 7)] == ["accepted", "accepted", "reason-7"]
    assert [binding.binding_name for binding in BINDINGS] == [
        "execution", "admission", "admission-policy", "scheduler", "telemetry", "control",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("promise", "binding"),
    [
        (methods_of("execution"), execution.ExecutionBinding),
        (methods_of("admission"), admission.AdmissionBinding),
        (methods_of("admission-policy"), scheduler.PolicyBinding),
        (methods_of("scheduler"), scheduler.SchedulerBinding),
        (methods_of("telemetry"), telemetry.TelemetryBinding),
        (methods_of("control"), ControlBinding),
        ({**methods.REVISION1, **methods.EXTENSIONS1}, provider.SingleQPM),
    ],
)
def test_bindings_are_of_contract(promise: dict[str, methods.Arguments], binding: type) -> None:
    assert set(promise) == {name for name in vars(binding) if not name.startswith("_")}
    for name, arguments in promise.items():
        _, *parameters = inspect.signature(getattr(binding, name)).parameters.values()
        named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert tuple((p.name, p.default) for p in named) == arguments, name


def test_methods_and_errors_have_unique_names() -> None:
    table: dict[str, type] = {}
    for base in QPM.__bases__:
        for name in vars(base):
            if not name.startswith("__"):
                assert table.setdefault(name, base) is base, name
    kinds = [contract.QPMError, *contract.QPMError.__subclasses__()]
    names = {kind.defw_name for kind in kinds}
    assert len(names) == len(kinds)
    assert all(name.startswith("DEFw") for name in names)


def test_reason_has_plain_number_even_if_enum_text_is_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that initialised Python twice."""
    monkeypatch.setattr(enum.IntEnum, "__str__", enum.Enum.__repr__)
    monkeypatch.setattr(enum.IntEnum, "__format__", lambda self, _: repr(self))
    assert f"{AdmissionReason.DEVICE_NOT_FOUND}".startswith("<")
    assert reason_text(AdmissionReason.DEVICE_NOT_FOUND) == "reason-2"
    assert reason_text(AdmissionReason.ACCEPTED) == "accepted"

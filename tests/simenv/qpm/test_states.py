"""Every task state of ours has one place in both revisions, and the papers say the same."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from simenv.client.qpm import QPM, execution, single, telemetry
from simenv.client.qpm.control import ControlBinding
from simenv.model import FINAL_STATES, TaskState
from simenv.qpm import bindings, errors
from simenv.qpm.states import OUTCOMES, STANDS, Lifecycle, Outcome

DOCS = Path(__file__).parents[3] / "docs" / "qpm.md"


def test_a_state_is_nothing_to_a_host() -> None:
    assert set(STANDS) == set(TaskState)
    assert set(OUTCOMES) == set(Lifecycle)
    for state, stand in STANDS.items():
        assert (stand.rc is not None) == (state in FINAL_STATES)
        assert (stand.already is not None) == (state in FINAL_STATES)
        assert (stand.rc == 0) == (state is TaskState.DONE) == (stand.outcome is Outcome.COMPLETED)
        assert (stand.reason is not None) == (stand.rc not in (0, None))
    failures = [stand.rc for stand in STANDS.values() if stand.rc]
    assert len(set(failures)) == len(failures)


def test_the_docs_tell_another_story() -> None:
    text = DOCS.read_text()
    for state, stand in STANDS.items():
        lifecycle, outcome = f"`{stand.lifecycle}`", f"`{stand.outcome}`"
        seen = "raises `DEFwInProgress`" if stand.rc is None else f"record, `rc` {stand.rc}"
        assert f"| {state} | {lifecycle} | {outcome} |" in text
        row = next(line for line in text.splitlines() if line.startswith(f"| {state} |"))
        assert seen in row


@pytest.mark.parametrize(
    ("promise", "kept"),
    [
        (bindings.Execution, execution.ExecutionBinding),
        (bindings.Telemetry, telemetry.TelemetryBinding),
        (bindings.Control, ControlBinding),
        (bindings.SingleClass, single.SingleQPM),
    ],
)
def test_a_method_is_missing_or_called_differently(promise: type, kept: type) -> None:
    names = [name for name in vars(promise) if not name.startswith("_")]
    assert names == [name for name in vars(kept) if not name.startswith("_")]
    for name in names:
        promised = inspect.signature(getattr(promise, name)).parameters
        assert list(inspect.signature(getattr(kept, name)).parameters) == list(promised)


def test_two_bindings_give_one_name_to_different_things() -> None:
    seen: dict[str, type] = {}
    for base in QPM.__bases__:
        for name in vars(base):
            if not name.startswith("__"):
                assert seen.setdefault(name, base) is base, name


def test_an_error_has_no_name_at_the_host() -> None:
    kinds = [errors.QPMError, *errors.QPMError.__subclasses__()]
    names = {kind.defw_name for kind in kinds}
    assert len(names) == len(kinds)
    assert all(name.startswith("DEFw") for name in names)

"""Purity of the scheduler, whose state only its own modules change."""

from __future__ import annotations

import ast
import inspect
import typing
from pathlib import Path

import pytest
from source_trees import parsed

from simenv.scheduler.core import Action
from simenv.scheduler.scheduler import Scheduler

ROOT = Path(__file__).parents[2] / "simenv"
STATE_NAMES = {"state", "_state", "scheduler", "_scheduler", "_ledger", "ledger"}
IMPURE = {"importlib", "logging", "os", "pathlib"}


def chain(node: ast.AST) -> list[str]:
    """The names of a chain of attributes and subscripts: `a.b[c].d` gives a, b, d."""
    names: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        names.append(node.id)
    return names[::-1]


def assigned(tree: ast.AST) -> list[ast.expr]:
    """The targets of all assignments and deletions."""
    targets: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.Delete):
            targets += node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets.append(node.target)
    nested = [t.elts if isinstance(t, ast.Tuple | ast.List) else [t] for t in targets]
    return [target for each in nested for target in each]


def writes_to_state(tree: ast.AST) -> list[int]:
    """Lines that assign to an attribute or item of the scheduler's state or of its parts."""
    return [
        target.lineno
        for target in assigned(tree)
        if set(chain(target)[:-1] if isinstance(target, ast.Attribute) else chain(target))
        & STATE_NAMES
        and not isinstance(target, ast.Name)
    ]


def test_the_service_never_assigns_to_the_schedulers_state() -> None:
    names = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "service").rglob("*.py")
        for line in writes_to_state(parsed(path))
    }
    assert not names, f"these belong into an event of `Scheduler`: {sorted(names)}"


@pytest.mark.parametrize(
    "line",
    [
        "self.state.draining = True",
        "state.pools[name].machine_qubits = 3",
        "self._state.ended[state] -= 1",
        "changes, state.controls.changes = state.controls.changes, {}",
        "del scheduler.state.tasks[1]",
    ],
)
def test_assignments_to_the_state_are_seen(line: str) -> None:
    assert writes_to_state(ast.parse(line))


@pytest.mark.parametrize("line", ["self.state = scheduler.state", "state = 1", "rows[0].state = 1"])
def test_other_assignments_are_allowed(line: str) -> None:
    assert not writes_to_state(ast.parse(line))


def is_actions(kind: object) -> bool:
    """Is it a list of actions, of all kinds or of some?"""
    (item,) = typing.get_args(kind) if typing.get_origin(kind) is list else (None,)
    return item is not None and (item == Action or item in typing.get_args(Action))


# Events from which no action follows: they return whether something changed, or what did.
WITHOUT_ACTIONS = {
    *("worker_joined", "set_device_state", "set_max_inflight", "set_queue_policy", "set_profile"),
    *("set_admission_policy", "renew_reservation"),
}


@pytest.mark.parametrize(
    "method",
    [name for name in vars(Scheduler) if not name.startswith("_") and name not in WITHOUT_ACTIONS],
)
def test_every_event_returns_actions(method: str) -> None:
    event = getattr(Scheduler, method)
    assert inspect.isfunction(event), f"{method} is no event: read it from `Scheduler.state`"
    returned = typing.get_type_hints(event)["return"]
    if typing.get_origin(returned) is tuple:
        returned = typing.get_args(returned)[-1]
    assert is_actions(returned), f"{method} returns no actions"


def test_modules_of_the_scheduler_have_no_io() -> None:
    table = {}
    for path in (ROOT / "scheduler").rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        if names & IMPURE:
            table[str(path.relative_to(ROOT))] = sorted(names & IMPURE)
    assert not table

"""Commands that run when events happen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from failing import fails
from live import environment
from waiting import until

from simenv import config
from simenv.config.model import HookSettings
from simenv.errors import ConfigError
from simenv.model import Event
from simenv.scheduler.core import RecordEvent
from simenv.service import hooks
from simenv.service.hooks import EventHooks

LOST = Event(7, 1.5, "node.lost", "n1", "no answer")


class Ticking:
    """Hooks of one environment, and the events that they have made."""

    def __init__(self, **settings: object) -> None:
        checked = config.convert({"hooks": settings}).hooks
        self.hooks = EventHooks("here", checked, os.environ)
        self.events: list[RecordEvent] = []
        self._now_s = 0.0

    def tick(self) -> None:
        self._now_s += hooks.LOOK_S
        self.events += self.hooks.tick(self._now_s)

    def is_idle(self) -> bool:
        self.tick()
        return not (self.hooks._waiting or self.hooks._running)

    def finish(self) -> list[tuple[str, str, str]]:
        until(self.is_idle, 60.0)
        return [(each.kind, each.subject, each.message) for each in self.events]


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[EventHooks] = []
    start = EventHooks.__init__

    def noted(self: EventHooks, *args: object) -> None:
        start(self, *args)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(EventHooks, "__init__", noted)
    yield
    for each in made:
        each.close()


def test_command_gets_event_as_json_and_variables(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f'cat > {out}; echo " $SIMENV_EVENT_KIND $SIMENV_EVENT_SUBJECT" >> {out}'
    ticking = Ticking(on={"node.*": ["sh", "-c", script], "worker.lost": "false"})
    ticking.hooks.notify(LOST)
    assert ticking.finish() == []
    text, _, variables = out.read_text().rpartition("} ")
    assert json.loads(text + "}") == {
        "environment": "here", "kind": "node.lost", "subject": "n1", "message": "no answer",
        "time_s": 1.5,
    }  # fmt: skip
    assert variables == "node.lost n1\n"


def test_secrets_do_not_reach_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "secret")
    ticking = Ticking(on={"node.lost": ["sh", "-c", f"env > {tmp_path}/out"]})
    ticking.hooks.notify(LOST)
    assert ticking.finish() == []
    assert "secret" not in (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("false", "it ended with exit code 1"),
        ("/no/such/program", "it is no program on this node"),
        ("sleep 60", "it did not end within timeout_s = 1"),
    ],
)
def test_failed_command_is_an_event_that_starts_no_command(command: str, message: str) -> None:
    ticking = Ticking(on={"*": command}, timeout_s=1.0)
    ticking.hooks.notify(LOST)
    assert ticking.finish() == [("hook.failed", "*", message)]
    ticking.hooks.notify(Event(8, 1.5, "hook.failed", "*", message))
    assert ticking.is_idle()


def test_command_that_cannot_run_is_a_warning_before_an_event_needs_it() -> None:
    commands = {"disk.full": "/no/such/program --now", "node.*": "true"}
    problem = "the hook of disk.full cannot run: /no/such/program is no program"
    assert Ticking(on=commands).hooks.problems() == [problem]


def test_texts_of_an_event_end_no_service_and_block_no_loop(tmp_path: Path) -> None:
    script = f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; cat > {tmp_path}/out"
    ticking = Ticking(on={"node.*": ["sh", "-c", script]})
    ticking.hooks.notify(Event(7, 1.5, "node.lost", "\U0001f600" * 16_000, "a\0b\nc"))
    ticking.tick()  # and does not wait until the command reads
    (tmp_path / "go").touch()
    assert ticking.finish() == []
    assert json.loads((tmp_path / "out").read_text())["message"] == "a b c"


def test_flood_of_events_is_bounded_and_counted() -> None:
    ticking = Ticking(on={"task.*": "true"})
    extra = 5
    for number in range(hooks.MAX_WAITING + extra):
        ticking.hooks.notify(Event(number, 1.5, "task.failed", f"t-{number}", ""))
    ticking.tick()
    assert len(ticking.hooks._running) == hooks.MAX_RUNNING
    ticking.hooks._waiting.clear()
    assert [kind for kind, *_ in ticking.finish()] == ["hook.dropped"]
    assert ticking.events[0].message.startswith(f"{extra} events")


def test_commands_end_with_the_service(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    ticking = Ticking(on={"node.lost": ["sh", "-c", f"echo $$ > {started}; sleep 600"]})
    ticking.hooks.notify(LOST)
    ticking.tick()
    until(lambda: started.exists() and started.read_text().endswith("\n"), 60.0)
    ticking.hooks.close()
    until(lambda: not psutil.pid_exists(int(started.read_text())), 60.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"on": {"node.lost": ""}}, {"on": {"Node Lost": "true"}}, {"on": {"node.lost": 'sh -c "'}},
        {"on": {"node.lost": "true"}, "timeout_s": 0.0},
        {"on": {f"kind.{'x' * number}": "true" for number in range(1, 40)}}, {"when": {}},
    ],
)  # fmt: skip
def test_wrong_table_is_refused(settings: dict[str, object]) -> None:
    fails(ConfigError, "hooks", config.convert, {"hooks": settings})


def test_service_runs_the_command_of_an_event(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hook = HookSettings({"node.drained": ("sh", "-c", f"cat > {out}.new; mv {out}.new {out}")})
    with environment(hooks=hook) as live, live.client() as client:
        (node,) = client.nodes()
        client.drain(node, "disk")
        until(out.exists, 60.0)
        event = json.loads(out.read_text())
        assert (event["kind"], event["environment"]) == ("node.drained", live.name)
        assert time.time() - event["time_s"] < 600.0

"""`log`, `trace` and `events` against a real environment, and after its restart."""

import csv
import io
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import live
import pytest
from shell import Shell

from simenv.cli.tasks import history
from simenv.cli.tasks.history import _event_blocks
from simenv.model import Timing
from simenv.wire.messages.history import LogRow, Spent

EXAMPLES = Path(__file__).parents[4] / "examples"
BELL = str(EXAMPLES / "bell.qasm")
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "trap", "engine": "fault", "min": 0, "max": 1},
]
HEAD = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1];'
POISON = HEAD + "rx(1000006) q[0]; measure q->c;"
SLOW = HEAD + "rx(1000005) q[0]; rx(60) q[0]; measure q->c;"


def rows(shell: Shell, *words: str) -> list[Any]:
    return shell("history", *words, "--json", code=0).objects


def test_log_row_holds_task_options_worker_and_timing(shell: Shell) -> None:
    before = time.time()
    entries = ("--shots", "77", "--seed", "5", "--task-name", "logged", "--wait", "--json")
    result = shell("submit", BELL, *entries).object
    row = rows(shell)[-1]
    assert tuple(row) == LogRow.__struct_fields__
    assert tuple(row["timing"]) == Timing.__struct_fields__
    assert (row["id"], row["name"], row["state"]) == (result["task"], "logged", "DONE")
    assert (row["shots"], row["seed"], row["num_qubits"], row["bindings"]) == (77, 5, 2, 1)
    assert (row["worker"], row["node"]) == (result["worker"], result["node"])
    assert before - 1 < row["submitted_s"] < row["ended_s"] < time.time() + 1
    timing = row["timing"]
    parts = [timing[f"{part}_us"] for part in ("decode", "plan", "engine", "encode")]
    assert min(parts) >= 0
    assert 0 < sum(parts) <= timing["run_us"]


def test_newest_rows_are_the_default_range(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        shell("submit", BELL, "--wait")
    every = rows(shell)
    monkeypatch.setattr(history, "NEWEST", 2)
    shown = shell("history", "--json")
    assert shown.objects == every[-2:]
    assert shown.err == "the newest 2 are shown; --limit N or --since 30d shows more\n"
    assert rows(shell, "--since", "30d") == rows(shell, "--limit", "1000") == every
    newest = shell("events", "--json")
    assert len(newest.objects) == 2
    assert newest.err == "the newest 2 are shown; --since 1d shows more\n"
    assert shell("events", "--since", "0", "--json").objects[-2:] == newest.objects


def test_owner_pool_and_until_select_rows(shell: Shell) -> None:
    shell("submit", BELL, "--wait")
    shell("submit", BELL, "--wait", "--pool", "trap", "--engine", "fault")
    every = rows(shell)
    trapped = [row for row in every if row["pool"] == "trap"]
    assert 0 < len(trapped) < len(every)
    assert rows(shell, "--pool", "trap") == trapped
    assert rows(shell, "--pool", "trap", "--limit", "1") == trapped[-1:]
    assert (rows(shell, "--owner", "-"), rows(shell, "--owner", "ana")) == (every, [])
    between_s = (every[-2]["submitted_s"] + every[-1]["submitted_s"]) / 2
    last = datetime.fromtimestamp(between_s).astimezone().isoformat()
    assert rows(shell, "--until", last) == every[:-1]
    assert rows(shell, "--until", last, "--limit", "1") == every[-2:-1]
    assert shell("history", "--until", "tomorrow").code == 2


def test_event_times_have_a_date(shell: Shell) -> None:
    shell("submit", BELL, "--wait")
    times = shell("events", "-o", "time").out.splitlines()[1:]
    assert times
    assert all(datetime.fromisoformat(each).year >= 2024 for each in times)


def test_log_columns_and_csv_agree_with_json_rows(shell: Shell) -> None:
    shell("submit", BELL, "--wait")
    entries = ("-o", "task,shots,state,run_ms,submitted")
    plain = [line.split("\t") for line in shell("history", *entries).out.splitlines()]
    assert plain == list(csv.reader(io.StringIO(shell("history", *entries, "--csv").out)))
    assert plain[0] == ["TASK", "SHOTS", "STATE", "RUN_MS", "SUBMITTED"]
    result = rows(shell)
    assert [line[0] for line in plain[1:]] == [row["id"] for row in result]
    assert float(plain[-1][3]) == pytest.approx(result[-1]["timing"]["run_us"] / 1000)
    assert shell("history", "--csv", "--json").code == 2
    assert shell("history", "-o", "colour").code == 2


def test_log_selects_rows_by_state_and_time(shell: Shell, tmp_path: Path) -> None:
    shell("submit", BELL, "--wait")
    file = tmp_path / "slow.qasm"
    file.write_text(SLOW)
    slow = shell("submit", str(file), "--engine", "fault", "--json").object["task"]
    shell("cancel", slow)
    shell("result", slow)
    (row,) = [row for row in rows(shell, "--state", "CANCELLED") if row["id"] == slow]
    assert row["state"] == "CANCELLED"
    assert row["reason"].startswith("cancelled: ")
    assert slow not in [row["id"] for row in rows(shell, "--state", "DONE", "--state", "FAILED")]
    assert len(rows(shell, "--since", "1h")) == len(rows(shell))
    time.sleep(0.01)  # the next command's "now" is another millisecond
    assert rows(shell, "--since", "0.001s") == []
    assert shell("history", "--since", "yesterday").code == 2
    reversed_ = ("--since", "5m", "--until", "10m")
    for words in (("history",), ("history", "--csv"), ("history", "--series", "queue")):
        answer = shell(*words, *reversed_)
        assert (answer.code, answer.out) == (2, "")
        assert "is later than until" in answer.err
    for command in ("history", "queue", "profile", "events"):
        assert "is in the future" in shell(command, "--since", "2999-01-01").err
    assert shell("history", "--state", "SLEEPING").code == 2


def test_events_are_ordered_and_selected(environment: live.Live, shell: Shell) -> None:
    objects = shell("events", "--json").objects
    entries = [event["seq"] for event in objects]
    assert entries == sorted(set(entries))
    part = shell("events", "--json", "--since", str(entries[1])).objects
    assert [event["seq"] for event in part] == entries[2:]
    workers = shell("events", "--json", "--kind", "worker.*").objects
    assert workers == [event for event in objects if event["kind"].startswith("worker.")]
    assert shell("events", "--json", "--since", "1h").objects == objects
    assert shell("events", "--since", "never").code == 2
    with environment.client() as client:
        middle = objects[len(objects) // 2]
        before = client.history.events_before(middle["time_s"])
        earlier = [event["seq"] for event in objects if event["time_s"] < middle["time_s"]]
        assert before == (earlier[-1] if earlier else 0)


def test_follow_is_complete(environment: live.Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FOLLOW_S", 0.01)
    with environment.client() as client:
        items = [event.seq for event in client.events()]
        followed = _event_blocks(client, items[0], None)
        assert [event.seq for event in next(followed)] == items[1:]
        assert client.submit(POISON, engine="fault").exception(60) is not None
        now = [event.seq for event in client.events()]
        entries = list(items)
        while entries[-1] < now[-1]:
            entries += [event.seq for event in next(followed)]
        assert entries[: len(now)] == now


def test_trace_gives_reason_of_each_lost_attempt(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "poison.qasm"
    file.write_text(POISON)
    task = shell("submit", str(file), "--engine", "fault", "--json").object["task"]
    assert shell("result", task).code == 1
    outcome = shell("trace", task, "--json").object
    assert (outcome["task"]["state"], outcome["task"]["attempts"]) == ("FAILED", 3)
    assert len(outcome["lost"]) == 2
    assert all("was lost: exit 70" in lost["reason"] for lost in outcome["lost"])
    assert [stage["stage"] for stage in outcome["stages"]] == ["queued"]
    assert shell("trace", task).out.count("LOST     ") == 2


def test_trace_stages_cover_task_time_without_gaps(shell: Shell) -> None:
    task = shell("submit", BELL, "--shots", "5", "--seed", "9", "--wait", "--json").object["task"]
    outcome = shell("trace", task, "--json").object
    names = ["queued", "sent", "decode", "plan", "engine", "encode", "returned"]
    assert [stage["stage"] for stage in outcome["stages"]] == names
    at_ms = 0.0
    for stage in outcome["stages"]:
        assert stage["at_ms"] == pytest.approx(at_ms)
        at_ms += stage["took_ms"]
    ended = outcome["task"]["ended_s"] - outcome["task"]["submitted_s"]
    assert at_ms == pytest.approx(1e3 * ended, abs=0.01)
    assert outcome["route"].startswith("auto: ")
    output = shell("trace", task).out
    for each in (f"TASK     {task}", "2 qubits", "5 shots, seed 9", "statevector: auto"):
        assert each in output
    assert (shell("trace", "t-zzzzz").code, shell("trace", "nonsense").code) == (4, 4)
    assert json.loads(shell("trace", "t-zzzzz", "--json").out)["error"]["code"] == "not_found"


def test_log_holds_client_time_on_first_task_of_message(environment: live.Live) -> None:
    with environment.client() as client:
        app_s = time.time()
        for _ in range(3):
            for task in client.submit_many([BELL, BELL], shots=10):
                task.result(30)
        item = [row.spent for row in client.history.tasks(app_s - 1)][-6:]
    assert item[1::2] == [Spent()] * 3, "told with a message's first task only"
    assert all(each.packed_us > 0 for each in item[::2])
    assert [each.results for each in item[::2]] == [0, 2, 2]
    assert all(each.accepted_us > 0 for each in item[2::2])


def test_queue_of_last_hour_lists_same_tasks_as_whole_queue(shell: Shell) -> None:
    task = shell("submit", BELL, "--wait", "--json").object["task"]
    objects = shell("queue", "--done", "--json").objects
    hour = shell("queue", "--done", "--since", "1h", "--json").objects
    assert sorted(info["id"] for info in objects) == sorted(info["id"] for info in hour)
    assert (hour[0]["id"], tuple(hour[0])) == (task, tuple(objects[0]))
    few = shell("queue", "--done", "--since", "1h", "--limit", "1")
    assert (few.out.count("\n"), "1 of" in few.err) == (2, True)
    assert (shell("queue", "--since", "1h").code, shell("queue", "--since", "soon").code) == (0, 2)

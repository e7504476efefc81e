"""Programs that `simenv exec` starts, and its screen."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import live
import msgspec
import pytest
from failing import fails
from shell import Shell

from simenv.cli import app, environment, execute
from simenv.cli.profiling import report_of
from simenv.model import Event, NodeInfo, PoolInfo, ServiceInfo, TaskState

BELL = Path(__file__).parents[4] / "examples" / "bell.qasm"
SUBMITS = f"""
import simenv
with simenv.connect() as env:
    print(env.name, env.run({str(BELL)!r}, shots=10, seed=1).shots)
"""
RESERVES = """
import simenv
simenv.connect().reserve()
"""
LEAVES = f"""
import simenv
env = simenv.connect()
env.submit_many([{str(BELL)!r}] * 3, shots=1000, seed=1)
raise SystemExit(9)
"""


def test_application_connects_to_run_and_is_logged(environment: live.Live, shell: Shell) -> None:
    result = shell("exec", "--run-name", "mine", "--", sys.executable, "-c", SUBMITS)
    assert (result.code, result.out) == (0, f"{environment.name} 10\n")
    (row,) = shell("history", "--run-name", "mine", "--json").objects
    assert (row["app"], row["state"]) == ("mine", "DONE")
    assert shell("history", "--run-name", "last", "--json").objects == [row]
    assert shell("history", "--run-name", "other", "--json").objects == []


def test_each_run_has_its_own_application_id(shell: Shell) -> None:
    for _ in range(2):
        shell("exec", "--", sys.executable, "-c", SUBMITS)
    apps = [row["app"] for row in shell("history", "--json").objects[-2:]]
    assert len(set(apps)) == 2
    assert all(app.startswith("run-") for app in apps)


def test_accepted_tasks_outlive_their_application(environment: live.Live, shell: Shell) -> None:
    assert shell("exec", "--run-name", "leaver", "--", sys.executable, "-c", LEAVES).code == 9
    with environment.client() as client:
        tasks = [client.task(row.id) for row in client.history.tasks(run_name="leaver")]
        assert [task.wait(timeout_s=60) for task in tasks] == [TaskState.DONE] * 3


def test_reservations_end_with_their_application(environment: live.Live, shell: Shell) -> None:
    with environment.client() as client:
        result = client.reserve()
        assert shell("exec", "--run-name", "holder", "--", sys.executable, "-c", RESERVES).code == 0
        states = {info.id: info.state for info in client.reservations()}
        assert states == {result.id: "active", result.id + 1: "released"}
        result.release()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--", "no-such-command-here"), 127),
        (("--", str(BELL)), 126),
        (("--run-name", "Not A Name", "--", "true"), 2),
        (("true",), 2),  # where it begins cannot be told: --json might be its own
        ((), 2),
    ],
)
def test_invalid_command_has_its_exit_code(shell: Shell, words: tuple[str, ...], code: int) -> None:
    assert shell("exec", *words).code == code


def test_arguments_after_double_dash_belong_to_command(shell: Shell) -> None:
    code = "import sys; print(sys.argv[1:])"
    result = shell("exec", "--", sys.executable, "-c", code, "--json", "--name", "x", "--", "-h")
    assert (result.code, result.out) == (0, "['--json', '--name', 'x', '--', '-h']\n")


def test_perf_by_application_or_time(environment: live.Live, shell: Shell, tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "import simenv\n"
        f"text = open({str(BELL)!r}).read()\n"
        "with simenv.connect() as env:\n"
        "    for step in range(2):\n"
        "        for task in env.submit_many([text] * 20, shots=100, seed=step):\n"
        "            task.result()\n"
    )
    assert shell("exec", "--run-name", "profiled", "--", sys.executable, str(program)).code == 0
    report = shell("profile", "--json").object
    profile = report["profile"]
    assert (profile["app"], profile["tasks"], profile["messages"]) == ("profiled", 40, 2)
    assert sum(stage["share"] for stage in profile["stages"]) == pytest.approx(1)
    codes = [finding["code"] for finding in report["findings"]]
    assert codes[0] == "largest"
    assert "bindings" in codes
    with environment.client() as client:
        assert report_of(client, "profiled").profile.wall_s == profile["wall_s"]
    output = shell("profile", "--run-name", "profiled").out
    assert (
        f"- the largest stage is {max(profile['stages'], key=lambda s: s['wall_s'])['name']}"
        in output
    )
    assert "send them as bindings" in output
    assert shell("profile", "--since", "1h", "--json").object["profile"]["tasks"] >= 40
    assert shell("profile", "--run-name", "nobody").code == 4
    assert shell("profile", "--run-name", "profiled", "--since", "1h").code == 2


def test_no_such_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def started(workers: int) -> object:
        raise AssertionError("an environment was started")

    monkeypatch.setattr(execute, "started", started)
    monkeypatch.setattr(execute, "client_of", lambda *_: None)
    assert app.run(["exec", "--", "no-such-command-here"]) == 127
    assert "no-such-command-here: No such file or directory" in capsys.readouterr().err


PARENT = (
    "import os, sys; from simenv.cli import execute;"
    "sys.exit(execute.run_child(sys.argv[1:], {**os.environ, 'TOLD': 'yes'}))"
)
WAITER = (
    "import signal, sys\n"
    "def caught(number, frame):\n"
    "    sys.exit(40 + number)\n"
    "signal.signal(signal.SIG{0}, caught)\n"
    "print('ready', flush=True)\n"
    "signal.pause()\n"
)


@contextmanager
def parent(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1"])
def test_signals_are_forwarded_to_command(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    with parent(sys.executable, "-c", WAITER.format(name)) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(20) == 40 + number


def test_exit_code_of_command_or_its_signal_is_returned() -> None:
    assert execute.run_child([sys.executable, "-c", "raise SystemExit(42)"], os.environ) == 42
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert execute.run_child([sys.executable, "-c", code], os.environ) == 128 + signal.SIGKILL
    fails(FileNotFoundError, "", execute.run_child, ["no-such-command-here"], os.environ)


def test_command_inherits_stdin_and_environment() -> None:
    code = "import os, sys; print(sys.stdin.read().upper() + os.environ['TOLD'])"
    with parent(sys.executable, "-c", code) as process:
        out, _ = process.communicate("words ", timeout=20)
        assert (out, process.returncode) == ("WORDS yes\n", 0)


def test_sigpipe_ends_command_and_signal_mask_is_restored() -> None:
    assert execute.run_child(["sh", "-c", "kill -PIPE $$"], os.environ) == 128 + signal.SIGPIPE
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    execute.run_child(["true"], os.environ)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


UP_S = 100.0


def node(name: str, state: str = "up", reason: str = "") -> NodeInfo:
    return NodeInfo(name, state, reason, 2, 1, 2**30, 0, 1, 1)


def pool(name: str, reason: str = "", state: str = "up") -> PoolInfo:
    return PoolInfo(name, "any", 1, 2, 1, 0, state, reason)


def info(**changes: Any) -> ServiceInfo:
    plain = ServiceInfo(
        "lab", "0.1.0", 17, "n1", 1, UP_S, "accepted", 5, 1, 10_231, 3, 0, 0, 0, 4, 14.0, 8, 3,
        2**34, 29, 2**27, 0.5, (pool("main"),), (),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def event(kind: str, age_s: float, subject: str = "n2") -> Event:
    return Event(1, time.time() - age_s, kind, subject, "it\x1b[31m was")


def line(word: str, lines: list[str]) -> str:
    (value,) = (each for each in lines if each.startswith(word))
    return value


def test_status_counts_nodes_by_state_and_shows_time_left() -> None:
    entries = (node("n1"), node("n2", "lost", "silent"), node("n3", "drained", "fan"), node("n4"))
    result = line("NODES", environment.lines(info(nodes=entries, allocation="Slurm job 17"), []))
    assert result == "NODES    2 up, 1 drained, 1 lost   slots 3/8 used   Slurm job 17"
    limited = info(end_s=time.time() + 3600.4, max_ranks=8, nodes=(node("n1"),))
    assert environment.nodes(limited).endswith("workers of up to 8 ranks   ends in 1:00:00")


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        ([("node.lost", 5.0)], ["node.lost"]),
        ([("node.lost", UP_S + 50)], []),  # before this service began
        ([("allocation.found", 99.0), ("launcher.chosen", 99.0), ("dvm.started", 98.0)], []),
        (
            [("dvm.started", 98.0), ("dvm.lost", 9.0), ("dvm.started", 8.0)],
            ["dvm.lost", "dvm.started"],
        ),
        ([("worker.lost", 9.0 - k) for k in range(9)], ["worker.lost"] * 5),
    ],
)
def test_status_shows_recent_events(events: list[tuple[str, float]], kinds: list[str]) -> None:
    outcome = info()
    result = environment.recent_events([event(kind, age_s) for kind, age_s in events], outcome)
    assert [each.kind for each in result] == kinds
    entries = [each for each in environment.lines(outcome, result) if each.startswith("EVENT")]
    assert [each.split()[2] for each in entries] == kinds
    assert "\x1b" not in "".join(entries)


def test_each_warning_is_shown_once() -> None:
    pools = (pool("main", "out of memory", "degraded"), pool("big", "no node is free now"))
    result = info(pools=pools, warnings=("pool main is degraded: out of memory",))
    warned = [each.split("     ")[1] for each in environment.lines(result, []) if "WARN" in each]
    assert warned == ["pool main is degraded: out of memory", "pool big: no node is free now"]


def test_node_names_are_folded_with_slot_count() -> None:
    assert environment.machines(info()) == ""
    assert environment.machines(info(nodes=(node("n1"), node("n2")))) == "n[1-2], 8 slots"

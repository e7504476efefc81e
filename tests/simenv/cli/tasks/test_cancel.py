"""Tasks on the command line: input, waiting, amplitudes, cancellation."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live
from qiskit import QuantumCircuit
from shell import Shell

import simenv
from simenv.cli.tasks import cancel
from simenv.cli.tasks.waiting import answer_progress, kernel_progress
from simenv.client.keys import issue_key
from simenv.client.tasks import progress
from simenv.model import TaskState
from simulators.compiler.kernel_time import booked
from simulators.fault import engine as fault

POOLS = [{"name": "main", "engine": "fault", "min": 1, "max": 1}]
OPTIONS = {"listen": "tcp://127.0.0.1:0"}


def slow() -> QuantumCircuit:
    """Ten minutes unless it is cancelled."""
    circuit = QuantumCircuit(1, 1)
    circuit.rx(fault.FAULT_BASE + fault.SLOW, 0)
    circuit.rx(600.0, 0)
    circuit.measure(0, 0)
    return circuit


@pytest.fixture
def env(environment: Live) -> Iterator[simenv.Client]:
    with environment.client() as client:
        yield client
        client.cancel([info.id for info in client.queue()[1]])


def submit(env: simenv.Client, count: int) -> list[str]:
    return [env.submit(slow(), engine="fault").id for _ in range(count)]


def test_cancel_all_ends_every_task(env: simenv.Client, shell: Shell) -> None:
    tasks = submit(env, 4)
    result = shell("cancel", "--all")
    assert result.code == 0, result.err
    for task in tasks:
        assert env.task(task).wait(timeout_s=60) is TaskState.CANCELLED
    assert shell("cancel", "--all").out == "no task matches\n"


def test_cancel_by_state_leaves_running_tasks(env: simenv.Client, shell: Shell) -> None:
    running, *waiting = submit(env, 3)
    while env.task(running).state is not TaskState.RUNNING:
        pass
    result = shell("cancel", "--state", "QUEUED", "--json")
    assert {row["task"] for row in result.objects} == set(waiting)
    assert env.task(running).state is TaskState.RUNNING


def test_cancel_by_app_leaves_tasks_of_other_apps(
    env: simenv.Client, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    [other] = submit(env, 1)
    monkeypatch.setenv("SIMENV_APP", "sweep")
    task = submit(env, 2)
    result = shell("cancel", "--run-name", "sweep", "--json")
    assert {row["task"] for row in result.objects} == set(task)
    assert env.task(other).state in (TaskState.QUEUED, TaskState.RUNNING)


def test_cancel_by_user_leaves_tasks_of_other_owners(
    env: simenv.Client, shell: Shell, tmp_path: Path
) -> None:
    [value] = submit(env, 1)
    issue_key(env.keys, "ana", "client", tmp_path / "ana.simenv")
    with simenv.connect(service=tmp_path / "ana.simenv") as ana:
        hers = submit(ana, 2)
    result = shell("cancel", "--user", "ana", "--json")
    assert {row["task"] for row in result.objects} == set(hers)
    result = shell("cancel", "--user", "-", "--json")
    assert value in {row["task"] for row in result.objects}


def test_cancel_all_covers_queue_longer_than_one_answer(
    env: simenv.Client, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = submit(env, 3)
    monkeypatch.setattr(cancel, "LISTED", 2)
    result = shell("cancel", "--all", "--json")
    assert {row["task"] for row in result.objects} >= set(tasks)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs ids of tasks, or one of --all"),
        (("t-1", "--all"), "needs ids of tasks, or one of --all"),
        (("--state", "DONE"), "--state DONE: tasks in it have ended"),
    ],
)
def test_contradictory_options_of_cancel_are_refused(
    words: tuple[str, ...], message: str, shell: Shell
) -> None:
    result = shell("cancel", *words)
    assert (result.code, message in result.err) == (2, True)


LIMIT_S = 30.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def await_text(stream: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.05)


def test_compilation_is_shown_while_it_lasts_and_taken_away_afterwards() -> None:
    stream = Terminal()
    with kernel_progress(stream):
        with booked():
            await_text(stream, "compiling kernels, once on this machine, 0:0")
        await_text(stream, "\x1b[K")
    assert stream.getvalue().endswith("\r\x1b[K")


def test_line_is_taken_away_after_an_error() -> None:
    stream = Terminal()

    def failing() -> None:
        with kernel_progress(stream), booked():
            await_text(stream, "compiling kernels")
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        failing()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_nothing_is_written_where_nobody_sees_it_or_nothing_is_compiled() -> None:
    pipe, idle = io.StringIO(), Terminal()
    with kernel_progress(pipe), booked():
        time.sleep(1.5)
    with kernel_progress(idle):
        time.sleep(0.5)
    assert pipe.getvalue() == idle.getvalue() == ""


def test_log_says_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_S", 0.3)
    pipe = io.StringIO()
    with kernel_progress(pipe), booked():
        await_text(pipe, "compiling kernels, once on this machine, 0:0")
    assert pipe.getvalue().endswith("\n")
    assert "\r" not in pipe.getvalue()


def test_wait_for_the_service_is_shown_from_the_first_second_on() -> None:
    stream = Terminal()
    with answer_progress(stream):
        await_text(stream, "the first of its kind waits for kernels, 0:0")
    assert stream.getvalue().endswith("\r\x1b[K")
    quick = Terminal()
    with answer_progress(quick):
        pass
    assert quick.getvalue() == ""


HEAD = 'OPENQASM 2.0; include "qelib1.inc";\n'
WIDTH = 60
STRINGS = ("0" * WIDTH, "01" * (WIDTH // 2))


@pytest.fixture
def bell(tmp_path: Path) -> str:
    file = tmp_path / "bell.qasm"
    file.write_text(f"{HEAD}qreg q[3]; h q[0]; cx q[0],q[2]; z q[2];\n")
    return str(file)


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """A graph state of a ladder."""
    pairs = [(k, k + 1) for k in range(WIDTH - 1)] + [(k, k + 9) for k in range(0, WIDTH - 9, 3)]
    gates = [f"h q[{k}];" for k in range(WIDTH)] + [f"cp(0.4) q[{a}],q[{b}];" for a, b in pairs]
    file = tmp_path / "wide.qasm"
    file.write_text(f"{HEAD}qreg q[{WIDTH}]; {' '.join(gates)}\n")
    return str(file)


@pytest.mark.parametrize("command", ["submit", "simulate"])
def test_amplitudes_are_printed_in_their_order(shell: Shell, bell: str, command: str) -> None:
    words = ["--amplitude", "101", "--amplitude", "000", "--amplitude", "111"]
    words += ["--wait"] if command == "submit" else []
    result = shell(command, bell, *words)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert [line.partition(" = ")[0] for line in lines] == ["101", "000", "111"]
    assert lines[0].startswith("101 = -0.707106781187 ")
    printed = shell(command, bell, *words, "--json").object
    assert list(printed["amplitudes"]) == ["101", "000", "111"]
    assert printed["amplitudes"]["101"] == pytest.approx([-(0.5**0.5), 0.0])
    assert printed["counts"] is None


def test_wide_circuit_has_amplitudes(shell: Shell, wide: str) -> None:
    pytest.importorskip("cotengra")
    words = [word for text in STRINGS for word in ("--amplitude", text)]
    printed = [
        shell("submit", wide, *words, "--engine", engine, "--wait", "--json").object["amplitudes"]
        for engine in ("contraction", "mps")
    ]
    scale = 2.0 ** (WIDTH / 2)
    for text in STRINGS:
        one, other = ([scale * part for part in each[text]] for each in printed)
        assert one == pytest.approx(other, abs=1e-10)
    assert printed[0][STRINGS[0]] == pytest.approx([1 / scale, 0.0])


def test_explain_considers_engines_with_amplitudes(shell: Shell, bell: str) -> None:
    rows = shell("explain", bell, "--amplitude", "101", "--json").object
    assert rows["engine"] == "statevector"
    others = {each["engine"]: each["why"] for each in rows["engines"]}
    assert "no output 'amplitudes'" in others["stabilizer"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--amplitude", "10"), "'10' has 2 bits, the circuit 3"),
        (("--amplitude", "1 0"), "'1 0' is not made of 0 and 1"),
        (("--amplitude", "101", "--amplitude", "101"), "'101' is there twice"),
        (("--output", "amplitudes"), "--output"),
    ],
)
def test_wrong_strings_are_refused(
    shell: Shell, bell: str, words: tuple[str, ...], text: str
) -> None:
    result = shell("submit", bell, *words)
    assert result.code == 2
    assert text in result.err


def test_plan_does_not_depend_on_amplitudes(shell: Shell, bell: str) -> None:
    result = shell("explain", bell, "--plan", "--amplitude", "101")
    assert result.code == 2
    assert "--plan and --amplitude" in result.err


BELL = str(Path(__file__).parents[4] / "examples" / "bell.qasm")


@pytest.mark.parametrize(("text", "shots"), [("1e3", 1000), ("64", 64), ("2.5e2", 250)])
def test_shots_are_read_in_scientific_notation(shell: Shell, text: str, shots: int) -> None:
    result = shell("submit", BELL, "--shots", text, "--wait", "--json")
    assert result.code == 0, result.err
    assert result.object["shots"] == sum(result.object["counts"].values()) == shots


@pytest.mark.parametrize("text", ["1.5", "-1", "many", "1e999", "nan", ""])
def test_shots_that_are_not_integer_are_refused(shell: Shell, text: str) -> None:
    result = shell("submit", BELL, "--shots", text, "--wait")
    assert result.code == 2
    assert "--shots" in result.err
    assert "such as 1024 or 1e6" in result.err


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",), ("explain",)])
@pytest.mark.parametrize(
    ("mapping", "texts"),
    [
        ("5,x", ["--qubit-mapping '5,x'", "such as 5,4,3"]),
        ("", ["--qubit-mapping ''", "such as 5,4,3"]),
        ("5,5", ["--qubit-mapping 5, 5", "each qubit of the device once"]),
        ("-1,2", ["--qubit-mapping -1", "a whole number from 0"]),
        ("5", ["--qubit-mapping 5 for 2 qubits", "one qubit of the 27 of device superconduct"]),
        ("5,99", ["--qubit-mapping 5, 99 for 2 qubits", "one qubit of the 27 of device supercond"]),
    ],
)
def test_wrong_qubit_mapping_is_refused_by_name(
    shell: Shell, command: tuple[str, ...], mapping: str, texts: list[str]
) -> None:
    for mode in ("auto", "always", "never"):
        words = [*command, BELL, "--device", "superconducting-lattice", "--compile", mode]
        result = shell(*words, "--qubit-mapping", mapping)
        assert result.code == 2, result.err
        assert all(text in " ".join(result.err.split()) for text in texts), result.err


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_qubit_mapping_is_the_initial_layout(shell: Shell, command: tuple[str, ...]) -> None:
    words = [*command, BELL, "--device", "superconducting-lattice", "--qubit-mapping", "7,6"]
    result = shell(*words, "--json")
    assert result.code == 0, result.err
    assert result.object["initial_layout"] == [7, 6]


def test_qubit_mapping_needs_an_emulated_device(shell: Shell) -> None:
    result = shell("simulate", BELL, "--qubit-mapping", "7,6")
    assert "--qubit-mapping needs an emulated device" in result.err
    assert "--device NAME" in result.err
    assert "leave --qubit-mapping out" in result.err
    result = shell("explain", BELL, "--plan", "--qubit-mapping", "7,6", "--compile", "always")
    assert "--plan and --compile, --qubit-mapping" in result.err


@pytest.mark.parametrize(
    ("noise", "texts"),
    [
        ("", ["--noise ''", "COMPONENT=FACTOR"]),
        ("gate=1,gate=2", ["'gate' is given twice"]),
        ("recipe=", ["'recipe=' is not COMPONENT=FACTOR"]),
        ("gate.depolarizing", ["unknown noise 'gate.depolarizing'", "factors of components"]),
        ("OFF", ["unknown noise 'OFF'", "on, off, a recipe (simenv, aer, aer-properties)"]),
        ("idle=2", ["noise option idle = 2.0", "True or False"]),
    ],
)
def test_wrong_noise_is_refused_by_name(shell: Shell, noise: str, texts: list[str]) -> None:
    result = shell("simulate", BELL, "--device", "superconducting-lattice", "--noise", noise)
    assert result.code == 2
    assert all(text in result.err for text in texts), result.err


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--device", ""], ["--device ''", "a-z, then up to 63"]),
        (
            ["--device", "trapped-ions", "--prefer", "emulator"],
            ["--prefer", "--device trapped-ions"],
        ),
        (["--device", "trapped-ions", "--compile", "never"], ["--compile auto compiles for them"]),
    ],
)
def test_refusals_of_devices_name_options_of_the_command_line(
    shell: Shell, words: list[str], texts: list[str]
) -> None:
    result = shell("submit", BELL, *words)
    assert result.code in (2, 3)
    assert all(text in result.err for text in texts), result.err

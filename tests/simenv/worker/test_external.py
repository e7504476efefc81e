"""Processes of external simulators: what they are given, how they fail, how they end."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from failing import fails
from waiting import until

from simenv.worker.external import ExternalProgram
from simulators.engine import RunControl
from simulators.errors import BadAnswer, MachineFailed, MachineRefused, Stopped
from simulators.external.engine import ProgramCall

CALL = ProgramCall("OPENQASM 2.0;\n", 7, 5, 3)


def _script(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def _run(folder: Path, text: str, words: str = "{circuit} {shots} {seed} {ranks}") -> str:
    program = ExternalProgram(f"{_script(folder, text)} {words}", folder / "scratch")
    return program.output(CALL, RunControl())


def test_process_gets_circuit_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_KEY", "secret")
    text = 'cat "$1"; echo $2 $3 $4 $OMP_NUM_THREADS [$SIMENV_KEY]'
    assert _run(tmp_path, text) == "OPENQASM 2.0;\n7 5 3 3 []\n"


@pytest.mark.parametrize(
    ("words", "takes_seed"),
    [("{circuit} {shots} --seed={seed}", True), ("{circuit} {shots} {{seed}}", False)],
)
def test_command_without_a_seed_is_known(tmp_path: Path, words: str, takes_seed: bool) -> None:
    assert ExternalProgram(f"program {words}", tmp_path).takes_seed == takes_seed


def test_words_with_spaces_stay_one_argument(tmp_path: Path) -> None:
    assert _run(tmp_path, 'echo "$#:$1"', "'a b={shots}' {circuit}") == "2:a b=7\n"


def test_failure_has_code_and_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fails(MachineFailed, "3: too many qubits", _run, tmp_path, "echo too many qubits >&2; exit 3")
    fails(MachineFailed, "signal 11", _run, tmp_path, "kill -SEGV $$")
    assert _run(tmp_path, "echo a warning >&2; echo done") == "done\n"
    assert "program: a warning" in capfd.readouterr().err  # the worker's log


def test_a_missing_program_is_refused_with_a_hint(tmp_path: Path) -> None:
    program = ExternalProgram("no-such-program {circuit} {shots}", tmp_path / "scratch")
    error = fails(MachineRefused, "'no-such-program' is not on", program.output, CALL, RunControl())
    assert "load its module" in error.hint


def test_endless_output_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a process left in another group, which writes until the folder is gone."""
    monkeypatch.setattr("simenv.worker.external.MAX_BYTES", 10_000)
    monkeypatch.setattr("simenv.worker.external._LOGGED_BYTES", 100)
    for text in ("yes", "head -c 20000 /dev/zero", "exec yes >&2"):
        fails(BadAnswer, "more than 10000 bytes", _run, tmp_path, text)
    program, output = ExternalProgram("run", tmp_path / "scratch"), tmp_path / "stdout"
    output.write_bytes(b"1" * 10_000)
    with output.open("rb") as out:
        assert len(program._text(out)) == 10_000
    output.write_bytes(b"1" * 10_001)
    with output.open("rb") as out:
        fails(BadAnswer, "more than 10000 bytes", program._text, out)


def test_a_stop_ends_the_process_and_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = ExternalProgram(
        f"{_script(tmp_path, f'sleep 600 & echo $! >{note}; wait')} {{circuit}} {{shots}}",
        tmp_path / "scratch",
    )
    control = RunControl()

    def stop() -> None:
        until(lambda: note.exists() and note.read_text().strip())
        control.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    fails(Stopped, "", program.output, CALL, control)
    thread.join()
    _wait_gone(int(note.read_text()))


WORKER = """
import sys
from pathlib import Path
from simenv.worker.external import ExternalProgram
from simulators.engine import RunControl
from simulators.external.engine import ProgramCall
ExternalProgram(sys.argv[1], Path(sys.argv[2])).output(ProgramCall("", 1, 1, 1), RunControl())
"""


def test_a_process_does_not_outlive_its_worker(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    command = f"{_script(tmp_path, f'echo $$ >{note}; exec sleep 600')} {{circuit}} {{shots}}"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, command, str(tmp_path / "scratch")])
    until(lambda: note.exists() and note.read_text().strip())
    worker.kill()
    worker.wait()
    _wait_gone(int(note.read_text()))


def _wait_gone(pid: int) -> None:
    def gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    until(gone, message=f"process {pid} lives on")


def test_no_file_is_left_nor_those_of_a_killed_worker(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "old").write_text("of a worker that was killed")
    assert _run(tmp_path, "echo x >note; pwd").startswith(str(scratch))
    assert os.listdir(scratch) == []


def test_progress_on_stderr_is_that_of_the_task(tmp_path: Path) -> None:
    progress = ("0 of 400 shots", "120 of 400 shots", "x of 4")
    lines = ["loading", *(f"progress: {each}" for each in progress)]
    text = f"printf '%s\\n' {' '.join(map(repr, lines))} >&2; echo done"
    program, control = ExternalProgram(_script(tmp_path, text), tmp_path / "scratch"), RunControl()
    assert program.output(CALL, control) == "done\n"
    assert control.progress == ("shots", 120, 400, 0.3, 0.0)

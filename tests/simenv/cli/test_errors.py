"""How an error leaves: words of the command line, exit code, object, no traceback unasked."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from failing import fails
from interpreter import python

import simenv
from simenv import errors
from simenv.cli.app import Settings, hoist, run, run_guarded
from simenv.cli.tasks.circuit_input import NAMES, errors_for_command_line
from simenv.errors import OptionError, with_names


def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TaskFailedError("it failed"), 1),
        (errors.OptionError("no such thing"), 2),
        (errors.InfeasibleError("too wide", hint="a smaller one"), 3),
        (errors.NotFoundError("none"), 4),
        (errors.NoServiceError("nobody"), 5),
        (errors.TimedOutError("late"), 124),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file", "x.qasm"), 1),
        (ZeroDivisionError("a fault of ours"), 1),
    ],
)
def test_each_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(lambda: failing(error), as_json=False, debug=False) == code
    assert "Traceback" not in capsys.readouterr().err


def test_error_shows_message_location_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.ProgramError("unknown gate 'foo'", hint="define it", line=3, column=1)
    error.add_note("at bad.qasm:3:1   foo q[0];")
    assert run_guarded(lambda: failing(error), as_json=True, debug=False) == 2
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        "error: unknown gate 'foo'",
        "  at bad.qasm:3:1   foo q[0];",
        "  define it",
    ]
    caught = json.loads(output.out.splitlines()[-1])["error"]
    assert (caught["code"], caught["line"], caught["column"]) == ("program", 3, 1)


def test_controls_are_escaped_and_debug_shows_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    run_guarded(
        lambda: failing(errors.NotFoundError("no \x1b[31mpool")), as_json=False, debug=False
    )
    assert capsys.readouterr().err == "error: no \\x1b[31mpool\n"
    run_guarded(lambda: failing(errors.NotFoundError("none")), as_json=False, debug=True)
    assert "Traceback" in capsys.readouterr().err


def test_error_of_batch_names_index_of_each_bad_item(capsys: pytest.CaptureFixture[str]) -> None:
    item = errors.ProgramError("bad", index=3)
    run_guarded(
        lambda: failing(errors.BatchRefusedError("1 of 5", (item,))), as_json=True, debug=False
    )
    assert [each["index"] for each in json.loads(capsys.readouterr().out)["error"]["errors"]] == [3]


@pytest.mark.parametrize(
    "line", [["statu"], ["submit"], ["--nonsense"], ["submit", "x", "--shots", "many"]]
)
def test_mistyped_line_is_usage_error(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("  see: simenv")


@pytest.mark.parametrize(
    "line",
    [
        ["queue", "--watch", "-1"],
        ["status", "--watch", "nan"],
        ["result", "t-1", "--timeout", "nan"],
        ["status", "--name"],
        ["submit", "bell.qasm", "--json", "--name"],
    ],
)
def test_bad_option_is_usage_error(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 2
    assert capsys.readouterr().err.startswith("error: ")


def entry(stdout: int) -> subprocess.CompletedProcess[bytes]:
    """The console script's function in a process of its own, writing at once."""
    code = "from simenv.cli.entry import main; main()"
    argv = [sys.executable, "-u", "-c", code, "--version", "--json"]
    return subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, check=False)


def test_closed_pipe_or_full_disk_shows_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = entry(writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    with open("/dev/full", "wb") as full:
        done = entry(full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"error: OSError: [Errno 28] No space left on device\n"


def test_file_that_cannot_be_used_is_named_without_the_exception(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/home/ana/bell.qasm")

    assert run_guarded(refused, as_json=False, debug=False) == 1
    assert capsys.readouterr().err == "error: /home/ana/bell.qasm: Permission denied\n"


def test_interrupt_during_import_ends_with_exit_code_130_silently() -> None:
    code = """
import sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "simenv.cli.app":
            raise KeyboardInterrupt
from simenv.cli.entry import main
sys.meta_path.insert(0, Interrupt())
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_help_is_printed_with_and_without_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert (run([]), run(["--help"]), run(["submit", "--help"])) == (0, 0, 0)
    assert capsys.readouterr().out.count("Usage: simenv") == 3


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("shots=None is exact: there are no counts", "--shots 0 is exact: there are no counts"),
        (
            "counts need shots; shots=None (exact) gives none",
            "counts need shots; --shots 0 (exact) gives none",
        ),
        (
            "give shots=N, or ask for outputs=('probabilities',)",
            "give --shots N, or ask for --output probabilities",
        ),
        (
            'or ask for outputs=("statevector",), or give observables=',
            "or ask for --output statevector, or give --observable",
        ),
        ("give parameter_values= for each", "give --param NAME=VALUE for each"),
        ("amplitudes=['01', ...]; qubit_mapping=[5, 4]", "--amplitude 01; --qubit-mapping 5,4"),
        (
            'options={"bond": 64}, or leave noise= out',
            "--engine-option bond=64, or leave --noise out",
        ),
        ("compile='never', or leave compile= out", "--compile never, or leave --compile out"),
        ("queue_timeout_s=-1.0", "--queue-timeout -1.0"),
        ("engine='mps'", "--engine mps"),
        ("the name=x inside stays", "the name=x inside stays"),
        ("--pool sv:engine='mps',shots=2", "--pool sv:engine='mps',shots=2"),
    ],
)
def test_python_arguments_in_messages_become_command_line_options(python: str, typed: str) -> None:
    assert with_names(python, NAMES) == typed


def test_translated_errors_keep_type_index_and_quotation_marks() -> None:
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError(option="name", value="No x", expected="shots=None is exact", index=3)
    assert (caught.value.message, caught.value.hint) == ("--task-name 'No x'", "--shots 0 is exact")
    assert caught.value.index == 3
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError("prefer='hard ware' is no pool", hint="prefer=['hardware']")
    assert caught.value.message == "--prefer 'hard ware' is no pool"
    assert caught.value.hint == "--prefer hardware"


def test_option_without_a_value_is_named() -> None:
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError("noise needs a device", hint="or leave noise= out", option="noise")
    assert str(caught.value) == "--noise needs a device\n  or leave --noise out"


def test_common_options_are_moved_before_the_command() -> None:
    line = ["status", "--json", "--name", "a", "--service=f"]
    assert hoist(line) == ["--json", "--name", "a", "--service=f", "status"]
    assert hoist(["submit", "--", "--json"]) == ["submit", "--", "--json"]
    line = ["devices", "import", "a.json", "--name", "fez", "--json", "--service=f"]
    assert hoist(line) == ["--json", "--service=f", "devices", "import", "a.json", "--name", "fez"]
    both = ["--name", "e", "devices", "import", "a", "--name=fez"]
    assert hoist(both) == both
    assert hoist(["devices", "show", "fez", "--name", "e"]) == [
        *("--name", "e", "devices", "show", "fez")
    ]


@pytest.mark.parametrize(
    "line", [["status", "--name"], ["--service", "--json", "status"], ["--name", "--", "status"]]
)
def test_common_option_without_value_is_refused(line: list[str]) -> None:
    fails(OptionError, "has no value", hoist, line)


def test_settings_are_found_by_name_file_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMENV_SERVICE", raising=False)
    assert not Settings().named
    assert Settings(name="a").named
    assert Settings(service=Path("connection.json")).named
    monkeypatch.setenv("SIMENV_SERVICE", "/tmp/connection.json")
    assert Settings().named


def typed(*words: str, **environment: str) -> str:
    """What `python -m simenv` prints for a command line."""
    done = python("-m", "simenv", *words, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_runs_as_a_module() -> None:
    assert typed("--version").strip().partition("+")[0] == simenv.__version__


@pytest.mark.parametrize("line", [(), ("submit",), ("keys", "add")])
def test_short_help_option_equals_long_one(line: tuple[str, ...]) -> None:
    assert typed(*line, "-h") == typed(*line, "--help")


def test_the_completion_script_can_be_shown() -> None:
    assert "complete_bash" in typed("--show-completion", "bash")

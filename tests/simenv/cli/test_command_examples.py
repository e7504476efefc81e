"""Examples of the help: each command has some, they run as they are typed, pages for `man` have
them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qpi_programs import skip_without_libcurl
from shell import shell_of

from simenv.cli import app
from simenv.cli.command_examples import EXAMPLES, GATEWAY, UP
from simenv.cli.manual import pages

TREE = app.command_line()


def walked(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    for name, each in getattr(command, "commands", {}).items():
        yield from walked(each, (*path, name))


COMMANDS = dict(walked(TREE))
RUN = [path for path, each in EXAMPLES.items() if each.needs in ("", UP, GATEWAY)]


def new_home(folder: Path) -> dict[str, str]:
    """The variables of a new user, whose commands are those of this installation."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("SIMENV_")}
    mine |= {"HOME": str(folder), "SIMENV_KERNELS": os.environ["SIMENV_KERNELS"]}
    return {**mine, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="h"))
    environ = new_home(folder)
    yield environ
    subprocess.run(["simenv", "down", "--all"], env=environ, check=False, capture_output=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home_of_environment() -> Iterator[dict[str, str]]:
    """A home with an environment and its gateway, for all examples that need them."""
    folder = Path(tempfile.mkdtemp(prefix="h"))
    environ = new_home(folder)
    words = ["simenv", "up", "--workers", "2", "--gateway", "127.0.0.1:0"]
    subprocess.run(words, env=environ, check=True, capture_output=True)
    yield environ
    subprocess.run(["simenv", "down"], env=environ, check=True, capture_output=True)
    shutil.rmtree(folder)


def test_each_command_has_two_or_three_examples_of_its_own() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()
    for path, examples in EXAMPLES.items():
        own = [
            line for line in examples.lines if re.search(rf"simenv (--service \S+ )?{path}\b", line)
        ]
        assert 2 <= len(own) <= 3, (path, own)
        assert len(examples.lines) <= 6, path


def test_help_ends_with_the_examples(capfd: pytest.CaptureFixture[str]) -> None:
    call = shell_of("", capfd)
    for words in (("run",), ("devices", "import"), ("queue",)):
        shown = call(*words, "--help").out
        assert shown == call("help", *words).out
        examples = EXAMPLES[" ".join(words)]
        block = "\n".join(f"    {line}" for line in examples.lines)
        assert shown.rstrip().endswith(block)
        assert f"  Examples{f', with {examples.needs}' if examples.needs else ''}:\n" in shown


def test_lines_of_examples_are_accepted_by_the_parser() -> None:
    """Of all, also of those whose programs this machine may not have."""
    for path, examples in EXAMPLES.items():
        for line in examples.lines:
            if not line.startswith(f"simenv {path} ") or set("$|<>;&") & set(line):
                continue
            words = app.hoist(shlex.split(line)[1:])
            context = TREE.make_context("simenv", words, resilient_parsing=False)
            while hasattr(context.command, "commands") and context._protected_args:
                left = [*context._protected_args, *context.args]
                name, command, rest = context.command.resolve_command(context, left)
                context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("path", RUN)
def test_examples_succeed_in_an_empty_folder(
    path: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    examples = EXAMPLES[path]
    if path.partition(" ")[0] == "qpi":
        skip_without_libcurl()
    environ = request.getfixturevalue("home_of_environment" if examples.needs else "home")
    script = "\n".join(("set -eu", *examples.lines))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


def test_no_summary_is_cut() -> None:
    for path, command in COMMANDS.items():
        assert not command.short_help.endswith("..."), path
        assert command.short_help in " ".join((command.help or "").split()), path


def test_manual_has_a_page_of_each_command(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "man1"
    result = shell_of("", capfd)("help", "man", str(folder))
    assert result.code == 0, result.err
    names = {"-".join(("simenv", *path.split())) for path in COMMANDS}
    assert {page.stem for page in folder.iterdir()} == names
    text = (folder / "simenv-run.1").read_text()
    assert "\\fB\\-\\-shots N\\fR" in text
    for line in EXAMPLES["run"].lines:
        assert line.replace("\\", "\\e").replace("-", "\\-") in text
    assert f"{len(names)} pages" in result.out


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_manual_is_valid_roff(tmp_path: Path) -> None:
    for path, page in pages(TREE):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-rLL=78n"], input=page, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert done.stderr == "", path


def test_help_of_an_unknown_command_names_a_similar_one(capfd: pytest.CaptureFixture[str]) -> None:
    call = shell_of("", capfd)
    wrong = call("help", "submt")
    assert (wrong.code, "did you mean `submit`?" in wrong.err) == (2, True)
    assert call("help", "run", "more").code == 2
    assert "simenv help man FOLDER" in call("help", "man").err
    option = call("run", "--shot", "3", "x.qasm")
    assert (option.code, "did you mean --shots?" in option.err) == (2, True)

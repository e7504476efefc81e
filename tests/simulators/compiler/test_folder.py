"""Folder of compiled kernels: chosen once, never in the installed package, of this user alone."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from other_user import skip_without_mount_namespace
from second_account import command_line

import simulators
from simenv import config
from simulators.compiler import folder

PACKAGE = Path(simulators.__file__).parent
USER = 12_345

# A thread needs a kernel while another one chooses the folder and takes long to hash the sources.
RACE = """
import sys, threading, time
from pathlib import Path
from simulators.compiler import folder, kernel, warmup
digest = kernel._digest
def slow():
    time.sleep(0.2)
    return digest()
kernel._digest = slow
first = threading.Thread(target=kernel.want, args=("noise",))
second = threading.Thread(target=warmup.prepare, args=(Path(sys.argv[1]),))
for each in (first, second) if sys.argv[2] == "need" else (second, first):
    each.start()
first.join(), second.join()
print(kernel._folder().parent)
"""
# A program that calls the simulators alone.
PLAIN = """
import warnings
warnings.simplefilter("always")
from simulators.compiler import kernel
from simulators.circuit.passes.noise_locations import insert_timed
insert_timed.load()
print(kernel._folder().parent, insert_timed.is_stored)
"""


def program(code: str, *arguments: object, user: int | None = None, **environ: str) -> str:
    """Run a program outside the source tree's folder, with these variables; return its output."""
    argv = [sys.executable, "-B", "-P", "-c", code, *map(str, arguments)]
    argv = argv if user is None else command_line(user, argv)
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE.parent), **environ}
    done = subprocess.run(argv, env=variables, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + done.stderr.strip()


def in_package() -> set[Path]:
    """All files but those that Python writes itself, of modules that it imports."""
    paths = PACKAGE.rglob("*")
    return {each for each in paths if ".pyc" not in each.name and each.name != "__pycache__"}


@pytest.mark.parametrize("earlier", ["need", "choice"])
def test_need_of_a_kernel_during_the_choice_does_not_replace_it(
    earlier: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    assert program(RACE, tmp_path / "chosen", earlier, SIMENV_HOME=str(home)) == str(
        tmp_path / "chosen"
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that everybody may write, below one that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="simenv-folder-", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o1777)
        yield path


def test_program_without_a_choice_stores_kernels_in_the_users_home(tmp_path: Path) -> None:
    before = in_package()
    assert program(PLAIN, HOME=str(tmp_path)) == f"{tmp_path}/.simenv/kernels True"
    assert program(PLAIN, HOME="/", SIMENV_HOME=str(tmp_path / "a")) == f"{tmp_path}/a/kernels True"
    assert program(PLAIN, HOME="/", SIMENV_KERNELS=str(tmp_path / "b")) == f"{tmp_path}/b True"
    assert (tmp_path / ".simenv").stat().st_mode & 0o077 == 0
    assert in_package() == before


def test_second_user_runs_kernels_after_the_installer_has(open_folder: Path) -> None:
    skip_without_mount_namespace()
    before = in_package()
    own = open_folder / "installer"
    assert program(PLAIN, SIMENV_HOME=str(own)) == f"{own}/kernels True"
    theirs = open_folder / "theirs"
    assert program(PLAIN, user=USER, SIMENV_HOME=str(theirs)) == f"{theirs}/kernels True"
    assert (theirs / "kernels").stat().st_uid == USER
    assert in_package() == before


def test_folder_of_another_user_is_not_taken(open_folder: Path) -> None:
    skip_without_mount_namespace()
    folder_of_root = open_folder / "kernels"
    folder_of_root.mkdir(mode=0o755)
    output = program(PLAIN, user=USER, SIMENV_KERNELS=str(folder_of_root))
    assert "RuntimeWarning: kernels are compiled for this process alone" in output
    assert f"{folder_of_root} belongs to another user" in output
    assert not list(folder_of_root.iterdir())


def test_folders_of_root_are_its_own_in_a_user_namespace_that_does_not_map_it(
    open_folder: Path,
) -> None:
    skip_without_mount_namespace()
    argv = ["unshare", "--user", "--map-current-user", sys.executable, "-B", "-P", "-c", PLAIN]
    own = open_folder / "own"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE.parent)}
    environ["SIMENV_KERNELS"] = str(own)
    words = command_line(USER, argv)
    done = subprocess.run(words, env=environ, cwd="/", capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip(f"user namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).strip() == f"{own} True"


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_folder_that_others_can_write_is_not_taken(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    path.mkdir()
    path.chmod(mode)
    output = program(PLAIN, SIMENV_KERNELS=str(path))
    assert f"{path} can be written by other users" in output
    assert not list(path.iterdir())


def test_default_is_the_folder_of_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in ({"SIMENV_HOME": "/a"}, {"SIMENV_KERNELS": "/b"}, {"HOME": "/c"}):
        with monkeypatch.context() as patch:
            patch.delenv("SIMENV_HOME", raising=False)
            patch.delenv("SIMENV_KERNELS", raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            assert folder.default_path() == config.kernel_cache()


def test_second_user_starts_an_environment_in_the_installers_package(open_folder: Path) -> None:
    """All kernels that a start needs are compiled anew: by another user, in a new home."""
    skip_without_mount_namespace()
    before, home = in_package(), str(open_folder / "home")
    environ = {"SIMENV_HOME": home, "TMPDIR": str(open_folder), "HOME": str(open_folder)}
    cli = "import sys; sys.argv[1:] = {}; from simenv.cli.entry import main; main()"
    name = ["--name", "theirs"]
    program(cli.format(["up", "--workers", "1", *name]), user=USER, **environ)
    try:
        qasm = open_folder / "bell.qasm"
        qasm.write_text(
            'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q; bit[2] c;\n'
            "h q[0]; cx q[0], q[1]; c = measure q;\n"
        )
        program(cli.format(["run", str(qasm), *name]), user=USER, **environ)
    finally:
        program(cli.format(["down", *name]), user=USER, **environ)
    assert Path(home, "kernels").stat().st_uid == USER
    assert in_package() == before

"""Namespaces of processes and mounts, tried by real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import until

from simenv.sandbox import private_namespaces
from simenv.sandbox.private_namespaces import command_line


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    if reason := private_namespaces.unavailable_reason():
        pytest.skip(reason)


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = command_line(folder, argv)
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -11 $$", -11), ("true", 0)])
def test_it_ends_as_the_program_does(tmp_path: Path, script: str, code: int) -> None:
    assert run(tmp_path, "sh", "-c", script).returncode == code


def test_missing_program_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "no-such-program")
    assert (done.returncode, "cannot start no-such-program" in done.stderr) == (1, True)


def test_program_sees_its_own_processes_and_knows_its_number_outside(tmp_path: Path) -> None:
    script = "import os; print(sorted(filter(str.isdigit, os.listdir('/proc')), key=int));"
    script += "print(os.environ['PID_OUTSIDE']); input()"
    argv = command_line(tmp_path, [sys.executable, "-c", script])
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "['1', '2']\n"
        inside = psutil.Process(int(process.stdout.readline()))
        assert inside.cmdline()[:2] == [sys.executable, "-c"]
        assert inside.pid in [each.pid for each in psutil.Process(process.pid).children(True)]
        process.stdin.write("\n")
    assert process.returncode == 0


def test_killed_launcher_child_takes_all_processes_along(tmp_path: Path) -> None:
    """Also those that have left their session."""
    script = "setsid sleep 600 & echo $!; sleep 600"
    argv = command_line(tmp_path, ["sh", "-c", script])
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        process.send_signal(signal.SIGKILL)
        until(lambda: not any(each.is_running() for each in children))


def test_set_user_id_program_of_the_folder_has_no_effect(tmp_path: Path) -> None:
    """Only root can make one of another user to try."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a program of another user")
    tmp_path.chmod(0o755)
    program = tmp_path / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(program, 12_345, 12_345)
    program.chmod(0o6755)
    assert subprocess.check_output([program, "-u"], text=True) == "12345\n"
    assert run(tmp_path, str(program), "-u").stdout == "0\n"


def test_hidden_folders_show_only_what_is_revealed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount without a user namespace")
    hidden = tmp_path / "hidden"
    (hidden / "own").mkdir(parents=True)
    hidden.chmod(0o700)
    (hidden / "own").chmod(0o755)
    (hidden / "own" / "file").write_text("x")
    (hidden / "one").write_text("y")
    (hidden / "one").chmod(0o644)
    (hidden / "secret").write_text("z")
    source = (
        "import os; from pathlib import Path\n"
        "from simenv.sandbox.private_namespaces import reveal, switch_user\n"
        f"h = Path({str(hidden)!r}); reveal([h / 'own', h / 'one', h / 'own' / 'file'])\n"
        "print(sorted(os.listdir(h)), (h / 'own' / 'file').read_text(), (h / 'one').read_text())\n"
        "switch_user(310_000)\n"
        "print(os.getresuid(), os.getresgid(), os.getgroups(), (h / 'one').read_text())\n"
        "try: os.setuid(0)\nexcept PermissionError: print('for good')\n"
    )
    root = Path(__file__).parents[3]
    argv = command_line(hidden / "own", [sys.executable, "-c", source])
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=root)
    assert done.stdout.splitlines() == [
        "['one', 'own'] x y", f"{(310_000,) * 3} {(310_000,) * 3} [] y", "for good",
    ], done.stderr  # fmt: skip
    assert sorted(os.listdir(hidden)) == ["one", "own", "secret"], "outside nothing has changed"

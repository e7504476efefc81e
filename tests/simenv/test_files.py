"""Private files, and processes."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from failing import fails
from interpreter import python
from other_user import UID, skip_without_second_user

from simenv import config, files
from simenv.errors import ConfigError
from simenv.process import resident_bytes

MISSING = os.strerror(errno.ENOENT)


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """That of systems where every user has a group of the same name."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("loose_umask")
def test_created_folders_are_private_at_every_level(tmp_path: Path) -> None:
    result = files.private_folder(tmp_path / "a" / "b" / "c")
    assert [mode_of(level) for level in (result, *result.parents[:2])] == [0o700] * 3


def test_folder_not_writable_by_others_is_accepted(tmp_path: Path) -> None:
    value = tmp_path / "home"
    value.mkdir(mode=0o755)
    assert files.private_folder(value) == value
    assert files.weakness(value) is None


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_folder_writable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    value = tmp_path / "home"
    value.mkdir()
    value.chmod(mode)
    error = fails(ConfigError, "can be written by others", files.private_folder, value)
    assert error.hint.startswith(f"chmod go-w {value}")


def test_parent_writable_by_others_is_refused_unless_sticky(tmp_path: Path) -> None:
    value = tmp_path / "shared" / "home"
    files.private_folder(value)
    value.parent.chmod(0o777)
    assert files.weakness(value)[0] == value.parent
    value.parent.chmod(0o1777)
    assert files.weakness(value) is None


def test_own_symbolic_link_is_followed_and_its_target_is_checked(tmp_path: Path) -> None:
    real = files.private_folder(tmp_path / "real")
    link = tmp_path / "link"
    link.symlink_to("real")
    assert files.private_folder(link) == link
    assert files.weakness(link / "none") == (link / "none", "cannot be looked at: " + MISSING)
    real.chmod(0o777)
    assert files.weakness(link) == (real, "can be written by others (mode 0777)")
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert "symbolic links" in files.weakness(loop)[1]


@pytest.mark.parametrize("what", ["folder", "link", "parent"])
def test_folder_link_or_parent_of_other_user_is_refused(tmp_path: Path, what: str) -> None:
    skip_without_second_user()
    real = files.private_folder(tmp_path / "real" / "home")
    path = real
    if what == "link":
        path = tmp_path / "planted"
        path.symlink_to(real)
        os.lchown(path, UID, UID)
    else:
        os.chown(real if what == "folder" else real.parent, UID, UID)
    fails(ConfigError, f"belongs to user {UID}", files.private_folder, path)


def test_regular_file_is_refused_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert files.weakness(tmp_path / "file") == (tmp_path / "file", "is no folder")
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    kernels.chmod(0o775)
    error = fails(ConfigError, "", config.kernel_folder, {"SIMENV_KERNELS": str(kernels)})
    assert error.hint.startswith(f"rm -r {kernels}")


def test_runtime_folder_writable_or_owned_by_others_is_not_used() -> None:
    with TemporaryDirectory(prefix="s") as name:
        runtime = Path(name)
        environ = {"XDG_RUNTIME_DIR": name}
        assert config.lasting_socket_folder(environ).parent == runtime
        runtime.chmod(0o777)
        assert config.socket_base(environ) != runtime
        if os.geteuid() == 0:
            runtime.chmod(0o700)
            os.chown(runtime, UID, UID)
            assert config.socket_base(environ) != runtime


def test_lasting_socket_folder_stays_private_and_is_used_again(loose_umask: None) -> None:
    with TemporaryDirectory(prefix="s") as name:
        Path(name).chmod(0o700)
        environ = {"XDG_RUNTIME_DIR": name}
        first = config.socket_folder(environ)
        lasting = first.parent
        assert lasting == config.lasting_socket_folder(environ)
        assert stat.S_IMODE(lasting.stat().st_mode) == 0o700
        assert config.socket_folder(environ).parent == lasting
        lasting.chmod(0o755)
        assert config.lasting_socket_folder(environ) == lasting
        assert stat.S_IMODE(lasting.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["folder", "link", "file", "open folder"])
def test_folder_taken_by_another_is_avoided(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_second_user()
    with TemporaryDirectory(prefix="s", dir="/tmp") as name:
        Path(name).chmod(0o1777)
        monkeypatch.setattr("tempfile.tempdir", name)
        taken = Path(name, f"simenv-sockets-{os.geteuid()}")
        own = Path(name, "own")
        own.mkdir()
        if kind == "link":
            taken.symlink_to(own)
        elif kind == "file":
            taken.touch()
        else:
            taken.mkdir()
            taken.chmod(0o777 if kind == "open folder" else 0o700)
        os.chown(taken, UID, UID, follow_symlinks=False)
        lasting = config.lasting_socket_folder({})
        assert lasting.parent == Path(name)
        assert lasting not in (taken, own)
        assert lasting.owner() == own.owner()
        assert stat.S_IMODE(lasting.stat().st_mode) == 0o700
        assert config.lasting_socket_folder({}) == lasting  # by its name alone, with no record
        assert list(own.iterdir()) == []


def test_runtime_folder_with_too_long_path_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(prefix="s", dir="/tmp") as name:
        deep = Path(name, "d" * 60)
        deep.mkdir(mode=0o700)
        environ = {"XDG_RUNTIME_DIR": str(deep)}
        monkeypatch.setattr("tempfile.tempdir", name)
        assert config.socket_base(environ) == Path(name)
        monkeypatch.setattr("tempfile.tempdir", str(deep))
        assert config.socket_base(environ) == Path("/tmp")


def test_socket_folder_below_open_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(prefix="s") as name:
        Path(name).chmod(0o777)
        monkeypatch.setattr("tempfile.tempdir", name)
        error = fails(ConfigError, "can be written by others", config.socket_folder, {})
        assert "TMPDIR" in error.hint
        assert list(Path(name).iterdir()) == []


def test_failed_rewrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loose_umask: None) -> None:
    path = tmp_path / "config.json"
    files.write_atomic(path, b"old", sync=True)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        fails(OSError, "full", files.write_atomic, path, b"new", sync=True)
    assert (path.read_bytes(), mode_of(path)) == (b"old", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, path = tmp_path / "victim", tmp_path / "config.json"
    victim.write_text("kept")
    monkeypatch.setattr("secrets.token_hex", lambda _: "0")
    (tmp_path / f".config.json.{os.getpid()}.0.new").symlink_to(victim)
    fails(FileExistsError, "", files.write_atomic, path, b"new")
    assert (victim.read_text(), path.exists()) == ("kept", False)


def test_two_writers_that_replace_a_file_at_once_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"first", [path])


def test_replaced_file_has_the_requested_mode_less_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    before = os.umask(0o027)
    try:
        with files.replacing(path, mode=0o666) as out:
            out.write(b"1")
    finally:
        os.umask(before)
    assert mode_of(path) == 0o640


def test_resident_bytes_are_those_of_this_process() -> None:
    assert resident_bytes() == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere psutil is needed")
def test_the_first_status_imports_no_library() -> None:
    code = "import sys; from simenv.process import resident_bytes; resident_bytes();"
    python("-c", f"{code} sys.exit('psutil' in sys.modules)")

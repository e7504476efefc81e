"""Files and trees below folders that an enemy writes."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from failing import fails
from other_user import UID

from simenv import foreign_files
from simenv.foreign_files import ForeignFileError

OWN = {os.geteuid()}


@pytest.fixture(params=["openat2", "open each"], autouse=True)
def resolution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to resolve names; kernels before 5.6 have the second alone."""
    if request.param == "open each":
        monkeypatch.setattr(foreign_files, "_has_openat2", lambda: False)
    elif not foreign_files._has_openat2():
        pytest.skip("this kernel has no openat2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = tmp_path / "folder"
    result.mkdir()
    return result


@pytest.fixture
def source(folder: Path) -> Iterator[int]:
    with foreign_files.opened(folder) as descriptor:
        yield descriptor


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "target").mkdir()
    with foreign_files.opened(tmp_path / "target") as descriptor:
        yield descriptor


def take(source: int, target: int, name: str, size_bytes: int = 4) -> None:
    foreign_files.take_file(source, name, target, size_bytes=size_bytes, owners=OWN, sync=False)


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../folder", "a/../b", "a//b", ".", "a/.", "a\0"]
)
def test_name_that_is_not_beneath_the_folder_is_refused(source: int, name: str) -> None:
    fails(ForeignFileError, "not the name", foreign_files.open_beneath, source, name, os.O_RDONLY)


def test_no_link_is_followed_at_any_level(folder: Path, tmp_path: Path, source: int) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "above").symlink_to(tmp_path)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "magic").symlink_to("/proc/self/root")
    for name in ("above/secret", "link", f"magic{tmp_path}/secret"):
        fails(OSError, "", foreign_files.open_file, folder, name)
    before = (tmp_path / "secret").stat()
    foreign_files.remove(folder, "link")
    foreign_files.remove(folder, "above/secret")
    assert (tmp_path / "secret").stat() == before
    assert not os.path.lexists(folder / "link")


def test_only_regular_files_are_opened(folder: Path) -> None:
    """A pipe would wait for its writer, and a device may do anything when it is opened."""
    os.mkfifo(folder / "pipe")
    (folder / "tree").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(folder / "socket"))
    if os.geteuid() == 0:
        os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        fails(ForeignFileError, "device is a device", foreign_files.open_file, folder, "device")
    for name, kind in (("pipe", "a pipe"), ("tree", "a folder"), ("socket", "a socket")):
        fails(ForeignFileError, f"{name} is {kind}", foreign_files.open_file, folder, name)


def test_taken_file_is_of_this_user_and_of_one_name(
    folder: Path, tmp_path: Path, source: int, target: int
) -> None:
    (folder / "0").mkdir()
    (folder / "0" / "file").write_text("data")
    (folder / "0" / "file").chmod(0o777)
    take(source, target, "0/file")
    info = (tmp_path / "target" / "0" / "file").stat()
    assert (info.st_uid, info.st_nlink, info.st_mode & 0o7777) == (os.geteuid(), 1, 0o600)
    assert list((folder / "0").iterdir()) == []
    (folder / "0" / "file").write_text("new!")
    fails(FileExistsError, "", take, source, target, "0/file")
    assert (tmp_path / "target" / "0" / "file").read_text() == "data"


def test_file_of_another_user_or_size_is_not_taken(
    folder: Path, tmp_path: Path, source: int, target: int
) -> None:
    (folder / "file").write_text("data")
    fails(ForeignFileError, "has 4 bytes, not 5", take, source, target, "file", 5)
    if os.geteuid() == 0:
        os.chown(folder / "file", UID, UID)
        fails(ForeignFileError, f"belongs to user {UID}", take, source, target, "file")
    assert list((tmp_path / "target").iterdir()) == []


def test_file_that_its_writer_holds_open_is_not_taken(
    folder: Path, tmp_path: Path, source: int, target: int
) -> None:
    """Whoever reads a file by a map of its pages dies when it is cut."""
    (folder / "file").write_text("data")
    with (folder / "file").open("a"):
        fails(ForeignFileError, "open for writing", take, source, target, "file")
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "file_system", "on_server"),
    [(errno.EAGAIN, 0x6969, True), (errno.EAGAIN, 0xFE534D42, False), (errno.EINVAL, 0, True)],
    ids=["NFSv4", "SMB", "NFSv3"],
)
def test_file_is_copied_where_leases_say_nothing_of_its_writers(
    number: int, file_system: int, on_server: bool, folder: Path, tmp_path: Path, source: int,
    target: int, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """So that one which has it open changes nothing that was taken."""

    def refuse(_descriptor: int, command: int, _argument: int) -> None:
        if command == fcntl.F_SETLEASE:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(foreign_files, "_file_system", lambda _: file_system)
    if not on_server:

        def copy(*_: object) -> int:
            raise OSError(errno.EOPNOTSUPP, "no copies on the server")

        monkeypatch.setattr(os, "copy_file_range", copy)
    (folder / "file").write_text("data")
    with (folder / "file").open("r+") as writer:
        take(source, target, "file")
        writer.write("else")
    taken = tmp_path / "target" / "file"
    assert taken.read_text() == "data"
    assert (taken.stat().st_nlink, taken.stat().st_mode & 0o7777) == (1, 0o600)
    assert list((tmp_path / "target").iterdir()) == [taken]
    assert list(folder.iterdir()) == []


def test_file_system_is_that_of_the_kernel(folder: Path) -> None:
    with Path("/proc/self/status").open() as file:
        assert foreign_files._file_system(file.fileno()) == 0x9FA0  # PROC_SUPER_MAGIC


def test_file_is_taken_where_the_file_system_has_no_hard_links(
    folder: Path, tmp_path: Path, source: int, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (folder / "file").write_text("data")
    take(source, target, "file")
    assert (tmp_path / "target" / "file").read_text() == "data"


def test_folder_that_changes_while_it_is_moved_stays_nowhere(
    folder: Path, tmp_path: Path, source: int, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced by a link between the look at it and the call that moves it."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").touch()
    (folder / "kept" / "t-1").mkdir(parents=True)
    rename = os.rename

    def swapped(*names: object, **options: int) -> None:
        monkeypatch.setattr(os, "rename", rename)
        (folder / "kept" / "t-1").rmdir()
        (folder / "kept" / "t-1").symlink_to(secret)
        rename(*names, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", swapped)
    fails(
        ForeignFileError, "changed while it was moved", foreign_files.take_folder,
        source, "kept/t-1", target, owners=OWN, max_entries=10,
    )  # fmt: skip
    assert list((tmp_path / "target" / "kept").iterdir()) == []
    assert (secret / "file").exists()


def test_folder_with_too_many_files_is_not_taken(
    folder: Path, tmp_path: Path, source: int, target: int
) -> None:
    (folder / "kept" / "t-1").mkdir(parents=True)
    for number in range(11):
        (folder / "kept" / "t-1" / str(number)).touch()
    fails(
        ForeignFileError, "more than 10 files", foreign_files.take_folder,
        source, "kept/t-1", target, owners=OWN, max_entries=10,
    )  # fmt: skip
    assert list((tmp_path / "target" / "kept").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_nothing_but_own_files_of_one_name_is_given_away(folder: Path, tmp_path: Path) -> None:
    """A walk by path would follow names that change, and give away what has a second name."""
    (tmp_path / "secret").write_text("secret")
    (folder / "linked").hardlink_to(tmp_path / "secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "tmp").mkdir()
    (folder / "tmp" / "file").touch()
    with foreign_files.opened(tmp_path) as above:
        foreign_files.give(above, "folder", UID)
    assert (tmp_path / "secret").stat().st_uid == 0
    for path in (folder, folder / "tmp", folder / "tmp" / "file"):
        assert path.stat().st_uid == UID


def nested(folder: Path, levels: int) -> None:
    """Make folders in one another, of more levels than Python calls and longer than a path."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("level", dir_fd=descriptor)
        below = os.open("level", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=descriptor))
    os.close(descriptor)


def test_a_tree_is_removed_however_deep_and_whatever_its_modes(tmp_path: Path) -> None:
    tree, beside = tmp_path / "tree", tmp_path / "beside"
    for folder in (tree, beside, tree / "closed", tree / "closed" / "below"):
        folder.mkdir()
    (beside / "file").touch()
    (tree / "link").symlink_to(beside)
    (tree / "closed").chmod(0)
    nested(tree, 1_200)
    foreign_files.remove_tree(tree)
    foreign_files.remove_tree(tmp_path / "missing")
    assert (list(tmp_path.iterdir()), (beside / "file").exists()) == ([beside], True)


def test_tree_of_many_folders_in_one_is_removed_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_files, "_BATCH", 3)
    for number in range(10):
        (tmp_path / "tree" / str(number) / "below").mkdir(parents=True)
        for name in "abcd":
            (tmp_path / "tree" / str(number) / name).touch()
    assert foreign_files.remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_link_in_place_of_a_tree_is_removed_itself(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    (tmp_path / "tree").symlink_to(tmp_path / "other")
    assert foreign_files.remove_tree(tmp_path / "tree")
    assert (tmp_path / "other" / "file").exists()


def test_size_of_a_tree_counts_its_files_and_says_when_it_cannot(tmp_path: Path) -> None:
    flat, deep = tmp_path / "flat", tmp_path / "deep"
    for folder in (flat, deep):
        folder.mkdir()
    empty = foreign_files.tree_bytes(flat)
    (flat / "file").write_bytes(bytes(10_000))
    (flat / "link").symlink_to(tmp_path)
    assert 10_000 <= foreign_files.tree_bytes(flat) - empty < 30_000
    assert foreign_files.tree_bytes(tmp_path / "missing") == 0
    nested(deep, 1_200)
    assert foreign_files.tree_bytes(deep) == foreign_files.UNMEASURABLE
    foreign_files.remove_tree(deep)


def test_size_of_a_tree_cannot_be_cheated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By many small files, one file of many names, holes, or so many files that nobody counts."""
    empty = foreign_files.tree_bytes(folder)
    for number in range(10):
        (folder / str(number)).write_bytes(b"1")
    small = foreign_files.tree_bytes(folder) - empty
    block = 512 * (folder / "0").stat().st_blocks
    assert small >= 10 * max(1, block)
    (folder / "names").write_bytes(bytes(100_000))
    once = foreign_files.tree_bytes(folder)
    for number in range(10):
        (folder / f"name-{number}").hardlink_to(folder / "names")
    assert foreign_files.tree_bytes(folder) == once
    os.truncate(folder / "0", 2**40)
    assert foreign_files.tree_bytes(folder) > 2**40
    monkeypatch.setattr(foreign_files, "MAX_ENTRIES", 20)
    assert foreign_files.tree_bytes(folder) == foreign_files.UNMEASURABLE


def test_folder_that_is_a_link_is_not_measured(folder: Path, tmp_path: Path) -> None:
    (folder / "file").write_bytes(bytes(100_000))
    (tmp_path / "link").symlink_to(folder)
    (folder / "below").symlink_to(tmp_path)
    assert foreign_files.tree_bytes(tmp_path / "link") == 0
    assert foreign_files.tree_bytes(folder) < 200_000

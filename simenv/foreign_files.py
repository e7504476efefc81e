"""Files and folders below a folder that somebody else writes: a worker, a task, another user.

Invariant: nothing outside of the folder is opened, measured, moved, given away or removed, whatever
is put into the folder meanwhile: links, pipes, devices, sockets, hard links, trees of any depth,
and names that change between two calls. A name is resolved beneath an open folder and through no
link (openat2(2)); what it leads to is pinned by a descriptor (O_PATH), checked there, and used
through the descriptor. Memory and time are bounded by the number of entries and levels.

Errors are OSError and its subclass `ForeignFileError`, whose texts name the file as given, without
the path of the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import secrets
import signal
import stat
import sys
import time
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

UNMEASURABLE = sys.maxsize  # bytes
MAX_ENTRIES = 200_000  # of a measured tree; a worker that makes more is ended
MAX_LEVELS = 64  # of a measured tree
REMOVAL_S = 60.0  # for the removal of one tree
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PINNED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPENAT2 = 437  # the number on all machines
_BENEATH = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, _NO_SYMLINKS, _NO_MAGICLINKS
_TRIES = 100  # of a resolution that the kernel asks to repeat
_BATCH = 1_000  # entries of a folder in memory
# linux/magic.h: NFS and SMB refuse a lease unless the server has delegated
# the file, whoever has it open.
_WITHOUT_VERDICT = (0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42)
_WITHOUT_COPIES = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV)
_WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class ForeignFileError(OSError):
    """What is found under a name is not what may be there."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EPERM, text)


class _OpenHow(ctypes.Structure):
    """Struct open_how of openat2(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Open a folder whose path nobody else can change. Raises OSError."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_beneath(folder: int, name: str, flags: int) -> int:
    """Open a name relative to an open folder, through no link and not out of it. Raises OSError."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ForeignFileError(f"{name[:80]!r} is not the name of a file below a folder")
    if _has_openat2():
        how = _OpenHow(flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _BENEATH)
        for _ in range(_TRIES):
            descriptor = _openat2(folder, name, how)
            if descriptor >= 0:
                return descriptor
            if descriptor not in (-errno.EAGAIN, -errno.EINTR):
                break
        raise OSError(-descriptor, os.strerror(-descriptor), name)
    return _open_each(folder, parts, flags)


def _open_each(folder: int, parts: list[str], flags: int) -> int:
    """Open the parts of a name one after the other, where the kernel has no openat2(2)."""
    level = folder
    try:
        for part in parts[:-1]:
            below = os.open(part, _PINNED | os.O_DIRECTORY, dir_fd=level)
            if level != folder:
                os.close(level)
            level = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=level)
    finally:
        if level != folder:
            os.close(level)


@functools.cache
def _has_openat2() -> bool:
    """Return whether the kernel has openat2(2), and no filter refuses it."""
    root = os.open("/", _FOLDER)
    try:
        descriptor = _openat2(root, ".", _OpenHow(_PINNED | os.O_DIRECTORY, 0, _BENEATH))
    finally:
        os.close(root)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def _openat2(folder: int, name: str, how: _OpenHow) -> int:
    """Return a descriptor, or an error number below 0."""
    arguments = (ctypes.c_long(_OPENAT2), ctypes.c_int(folder), os.fsencode(name))
    size = ctypes.c_size_t(ctypes.sizeof(how))
    result = int(_libc().syscall(*arguments, ctypes.byref(how), size))
    return result if result >= 0 else -ctypes.get_errno()


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _through(descriptor: int) -> str:
    """Path of what a descriptor pins, for calls that take none of O_PATH."""
    return f"/proc/self/fd/{descriptor}"


@contextlib.contextmanager
def _pinned(
    folder: int, name: str, owners: Collection[int] = ()
) -> Iterator[tuple[int, os.stat_result]]:
    """Yield a descriptor of a regular file, through which nothing is read, and its state. `owners`:
    users to whom it may belong, with no other name; (): to any."""
    descriptor = open_beneath(folder, name, _PINNED)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ForeignFileError(f"{name} is {_kind(info.st_mode)}, not a file")
        if owners and info.st_nlink != 1:
            raise ForeignFileError(f"{name} has {info.st_nlink} names")
        if owners and info.st_uid not in owners:
            raise ForeignFileError(f"{name} belongs to user {info.st_uid}")
        yield descriptor, info
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "something else")


def open_file(folder: Path, name: str) -> int:
    """Open a regular file beneath a folder for reading; return its descriptor. A pipe, a device or
    what a link leads to is not opened. Raises OSError."""
    with opened(folder) as root, _pinned(root, name) as (pinned, _):
        return os.open(_through(pinned), _READ)


def size_of(folder: Path, name: str) -> int:
    """Return the bytes of a regular file beneath a folder. Raises OSError."""
    with opened(folder) as root, _pinned(root, name) as (_, info):
        return info.st_size


def take_file(
    source: int, name: str, target: int, *, size_bytes: int, owners: Collection[int], sync: bool
) -> None:
    """Move a file beneath `source` to the same name beneath `target`, a folder of this process's
    own, as a file of this user that no other process has open for writing.

    The target gets another name of the pinned file, so that no change of names in `source` can put
    anything else there; a file that is there already stays. Where the file system does not tell
    whether a process has the file open for writing, the target gets a copy. `size_bytes`: of the
    file, which may have no other. `owners`: users to whom it may belong. `sync`: force file and
    folder to disk. Raises OSError; then nothing was added to `target`.
    """
    with _pinned(source, name, owners) as (pinned, info), _own_parent(target, name, sync) as parent:
        if info.st_size != size_bytes:
            raise ForeignFileError(f"{name} has {info.st_size} bytes, not {size_bytes}")
        leaf = name.rpartition("/")[2]
        _claim(pinned, info, 0o600)
        _link_or_rename(pinned, source, name, parent, leaf)
        try:
            if not _check_taken(pinned, name, size_bytes, sync=sync):
                _replace_by_copy(pinned, name, parent, size_bytes, sync=sync)
        except OSError:
            remove_entry(parent, leaf)
            raise
        if sync:
            _sync_folder(parent)


def _sync_folder(folder: int) -> None:
    descriptor = os.open(_through(folder), _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _claim(pinned: int, info: os.stat_result, mode: int) -> None:
    """Make this user the owner of what is pinned."""
    if info.st_uid != os.geteuid():
        os.chown(_through(pinned), os.geteuid(), os.getegid())
    if stat.S_IMODE(info.st_mode) != mode:
        os.chmod(_through(pinned), mode)


def _link_or_rename(pinned: int, source: int, name: str, parent: int, leaf: str) -> None:
    """Give the pinned file the name `leaf` in `parent`, and take its old name from it."""
    try:
        os.link(_through(pinned), leaf, dst_dir_fd=parent)
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        _rename(pinned, source, name, parent, leaf)
    else:
        # Else it is found to have two names.
        with contextlib.suppress(OSError), _parent(source, name) as (folder, old):
            os.unlink(old, dir_fd=folder)


def _rename(pinned: int, source: int, name: str, parent: int, leaf: str) -> None:
    """Rename a file or folder that is pinned to `leaf` in `parent`, where nobody else writes;
    whatever else has come there is removed."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), leaf)
    with _parent(source, name) as (folder, old):
        os.rename(old, leaf, src_dir_fd=folder, dst_dir_fd=parent)
    moved = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
    if not os.path.samestat(moved, os.fstat(pinned)):
        remove_entry(parent, leaf)
        raise ForeignFileError(f"{name} changed while it was moved")


def _check_taken(pinned: int, name: str, size_bytes: int, *, sync: bool) -> bool:
    """Raise OSError if a file can still be changed by whoever wrote it. Return False if the file
    system does not tell whether a process has it open for writing."""
    descriptor = os.open(_through(pinned), _READ)
    try:
        is_known = True
        try:  # a lease for readers is refused while any process has the file open for writing
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # which is ignored, if it breaks
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN and _file_system(descriptor) not in _WITHOUT_VERDICT:
                raise ForeignFileError(f"{name} is still open for writing") from error
            is_known = False
        info = os.fstat(descriptor)
        if info.st_nlink != 1:
            raise ForeignFileError(f"{name} has {info.st_nlink} names")
        if info.st_size != size_bytes:
            raise ForeignFileError(f"{name} has {info.st_size} bytes, not {size_bytes}")
        if sync and is_known:
            os.fsync(descriptor)
        return is_known
    finally:
        os.close(descriptor)


def _file_system(descriptor: int) -> int:
    """Return the number of the type of a file's file system (statfs(2)); 0 if it is unknown."""
    state = ctypes.create_string_buffer(256)  # struct statfs, whose first word is the type
    if _libc().fstatfs(descriptor, state) != 0:
        return 0
    return int(ctypes.c_ulong.from_buffer(state).value)


def _replace_by_copy(pinned: int, name: str, parent: int, size_bytes: int, *, sync: bool) -> None:
    """Put a copy of a pinned file in its place in `parent`, an own folder. Raises OSError."""
    leaf = name.rpartition("/")[2]
    mark = f".{leaf}.{secrets.token_hex(8)}.new"
    source = os.open(_through(pinned), _READ)
    try:
        copy = os.open(mark, _NEW, 0o600, dir_fd=parent)
        try:
            left = size_bytes
            while left and (count := _copied(source, copy, left)):
                left -= count
            if left:
                raise ForeignFileError(f"{name} changed while it was copied")
            if sync:
                os.fsync(copy)
            os.rename(mark, leaf, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            remove_entry(parent, mark)
            raise
        finally:
            os.close(copy)
    finally:
        os.close(source)


def _copied(source: int, target: int, most_bytes: int) -> int:
    """Copy bytes, where possible on the server; return how many. Raises OSError."""
    try:
        return os.copy_file_range(source, target, most_bytes)
    except OSError as error:
        if error.errno not in _WITHOUT_COPIES:
            raise
        return os.sendfile(target, source, None, most_bytes)


@contextlib.contextmanager
def _parent(folder: int, name: str) -> Iterator[tuple[int, str]]:
    """Yield the open folder of a name beneath `folder`, and the last part of the name."""
    above, _, leaf = name.rpartition("/")
    if not above:
        yield folder, leaf
        return
    descriptor = open_beneath(folder, above, _FOLDER)
    try:
        yield descriptor, leaf
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _own_parent(folder: int, name: str, sync: bool = False) -> Iterator[int]:
    """Yield the open folder of a name beneath an own one, which is made if it is missing."""
    above = name.rpartition("/")[0]
    if above:
        with contextlib.suppress(FileExistsError):
            os.mkdir(above, 0o700, dir_fd=folder)
            if sync:
                _sync_folder(folder)
    with _parent(folder, name) as (parent, _):
        yield parent


def take_folder(
    source: int, name: str, target: int, *, owners: Collection[int], max_entries: int
) -> None:
    """Move a folder of regular files beneath `source` to the same name beneath `target`, a folder
    of this process's own, in place of one that is there. Its files become those of this user.
    Raises OSError, also if the folder holds anything but files with one name, or more than
    `max_entries` of them; then the folder is removed."""
    leaf = name.rpartition("/")[2]
    mark = f".{leaf}.{secrets.token_hex(8)}"
    pinned = open_beneath(source, name, _PINNED | os.O_DIRECTORY)
    try:
        info = os.fstat(pinned)
        if info.st_uid not in owners:
            raise ForeignFileError(f"{name} belongs to user {info.st_uid}")
        with _own_parent(target, name) as parent:
            _rename(pinned, source, name, parent, mark)
            try:
                _claim(pinned, info, 0o700)
                _claim_files(pinned, name, owners, max_entries)
                remove_entry(parent, leaf)
                os.rename(mark, leaf, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError:
                remove_entry(parent, mark)
                raise
    finally:
        os.close(pinned)


def _claim_files(pinned: int, name: str, owners: Collection[int], max_entries: int) -> None:
    """Make this user the owner of all files in a folder; raise OSError if anything else is there or
    one of them is open for writing."""
    folder = os.open(_through(pinned), _FOLDER)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, max_entries + 1)]
        if len(names) > max_entries:
            raise ForeignFileError(f"{name} has more than {max_entries} files")
        for each in names:
            with _pinned(folder, each, owners) as (file, info):
                _claim(file, info, 0o600)
                _check_taken(file, each, info.st_size, sync=False)
    finally:
        os.close(folder)


def give_folder(source: int, name: str, target: int, user: int) -> None:
    """Move an own folder beneath `source` to the same name beneath `target`, a folder that `user`
    writes, in place of what is there; `user` becomes its owner; 0: it stays this one's. Raises
    OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name.rpartition("/")[0], 0o700, dir_fd=target)
    with _parent(source, name) as (folder, leaf), _parent(target, name) as (parent, _):
        if user:
            give(folder, leaf, user)
            if os.fstat(parent).st_uid == os.geteuid():
                os.fchown(parent, user, user)
        remove_entry(parent, leaf)
        os.rename(leaf, leaf, src_dir_fd=folder, dst_dir_fd=parent)


def give(folder: int, name: str, user: int) -> None:
    """Make a user, and the group of the same number, the owner of a folder of this process's and of
    the files and folders below it that belong to this user. Nothing else changes hands: no link,
    and no file with a second name. Raises OSError."""
    pinned = open_beneath(folder, name, _PINNED | os.O_DIRECTORY)
    try:
        for each, info in _walk(pinned):
            is_file = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
            if (is_file or stat.S_ISDIR(info.st_mode)) and info.st_uid == os.geteuid():
                os.chown(_through(each), user, user)
        os.chown(_through(pinned), user, user)
    finally:
        os.close(pinned)


def _walk(pinned: int) -> Iterator[tuple[int, os.stat_result]]:
    """Yield a descriptor and the state of all below a folder, each pinned; what leaves meanwhile is
    left out. Raises OSError where a folder cannot be listed, ForeignFileError beyond MAX_ENTRIES
    or MAX_LEVELS."""
    count = 0
    levels = [_Level(pinned)]
    try:
        while levels:
            entry = next(levels[-1].entries, None)
            if entry is None:
                levels.pop().close()
                continue
            count += 1
            if count > MAX_ENTRIES:
                raise ForeignFileError(f"more than {MAX_ENTRIES} files and folders")
            try:
                each = os.open(entry.name, _PINNED, dir_fd=levels[-1].descriptor)
            except FileNotFoundError:
                continue
            try:
                info = os.fstat(each)
                yield each, info
                if stat.S_ISDIR(info.st_mode):
                    if len(levels) >= MAX_LEVELS:
                        raise ForeignFileError(f"more than {MAX_LEVELS} levels of folders")
                    levels.append(_Level(each))
            finally:
                os.close(each)
    finally:
        for level in levels:
            level.close()


class _Level:
    """A folder that is being listed."""

    def __init__(self, pinned: int) -> None:
        self.descriptor = os.open(_through(pinned), _FOLDER)
        self.entries = os.scandir(self.descriptor)

    def close(self) -> None:
        self.entries.close()
        os.close(self.descriptor)


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all below a folder, which may change meanwhile; UNMEASURABLE if a folder
    cannot be listed, or there are more than MAX_ENTRIES or MAX_LEVELS. A file counts with its size
    or its blocks, whichever is more, and once for all of its names."""
    result, several = 0, set[tuple[int, int]]()
    try:
        with _pinned_folder(folder) as pinned:
            for _, info in _walk(pinned):
                if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                    if (info.st_dev, info.st_ino) in several:
                        continue
                    several.add((info.st_dev, info.st_ino))
                result += max(info.st_size, 512 * info.st_blocks)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError:
        return UNMEASURABLE
    return result


@contextlib.contextmanager
def _pinned_folder(folder: Path) -> Iterator[int]:
    """Yield a descriptor of a folder whose parent is this user's own. Raises OSError, also for a
    link."""
    with opened(folder.parent) as parent:
        pinned = open_beneath(parent, folder.name, _PINNED | os.O_DIRECTORY)
    try:
        yield pinned
    finally:
        os.close(pinned)


def names(folder: Path) -> list[str]:
    """Return the names in a folder whose parent is this user's own, MAX_ENTRIES at most, sorted;
    [] if it cannot be listed."""
    with (
        contextlib.suppress(OSError),
        _pinned_folder(folder) as pinned,
        os.scandir(_through(pinned)) as entries,
    ):
        return sorted(entry.name for entry in islice(entries, MAX_ENTRIES))
    return []


def remove(folder: Path, name: str) -> None:
    """Remove what has a name beneath a folder: a file, a link itself, or a tree, as far as
    possible."""
    with contextlib.suppress(OSError), opened(folder) as root, _parent(root, name) as (above, leaf):
        remove_entry(above, leaf)


def remove_tree(folder: Path) -> bool:
    """Remove a folder and all below it, however deep and whatever its modes, as far as that is
    possible within REMOVAL_S. Follows no link. Returns whether it is gone."""
    with contextlib.suppress(OSError), opened(folder.parent) as parent:
        remove_entry(parent, folder.name)
    return not os.path.lexists(folder)


def remove_entry(parent: int, name: str) -> None:
    """Remove one entry of an open folder, with all below it; see `remove_tree`."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=parent)
        return
    with contextlib.suppress(OSError):
        top = _opened_folder(parent, name)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=parent)


def _opened_folder(parent: int, name: str) -> int:
    """Open a folder that is to be removed, and let this user list and change it. Raises OSError,
    also for a link."""
    pinned = os.open(name, _PINNED | os.O_DIRECTORY, dir_fd=parent)
    try:
        if stat.S_IMODE(os.fstat(pinned).st_mode) & 0o700 != 0o700:
            os.chmod(_through(pinned), 0o700)
        return os.open(_through(pinned), _FOLDER)
    finally:
        os.close(pinned)


def _empty(top: int) -> None:
    """Remove all below an open folder. Folders move up into it before they are emptied, so that one
    descriptor is enough for any depth; a pass that removes nothing is the last one."""
    mark, number = f".{secrets.token_hex(8)}", 0
    until_s = time.monotonic() + REMOVAL_S
    has_removed = True
    while has_removed and time.monotonic() < until_s:
        has_removed = False
        for name, is_folder in _listed(top):
            if not is_folder:
                has_removed |= _unlinked(top, name)
                continue
            with contextlib.suppress(OSError):
                folder = _opened_folder(top, name)
                try:
                    for below, is_below_folder in _listed(folder):
                        if is_below_folder:
                            number += 1
                            has_removed |= _moved(folder, below, top, f"{mark}.{number}")
                        else:
                            has_removed |= _unlinked(folder, below)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
                has_removed = True


def _listed(folder: int) -> list[tuple[str, bool]]:
    """Return names in a folder, _BATCH at most, each with whether it is a folder."""
    with os.scandir(folder) as entries:
        return [(each.name, each.is_dir(follow_symlinks=False)) for each in islice(entries, _BATCH)]


def _unlinked(folder: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
        return True
    return False


def _moved(folder: int, name: str, top: int, new: str) -> bool:
    """Move a folder, which its own mode may forbid."""
    with contextlib.suppress(OSError):
        os.close(_opened_folder(folder, name))
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=top)
        return True
    return False

"""Files and folders that no other user can write.

Invariant: content that is read from such a folder, or loaded from it as code, was written by this
user or by root.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from simenv.errors import ConfigError

ROOT = 0
MAX_LINKS = 40  # the limit of Linux: path_resolution(7)
_WRITE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path, setting: str = "SIMENV_HOME") -> Path:
    """Create the folder and its missing parents with mode 0700, then check it with `check_private`.
    `setting`: the variable that names another folder, for the hint. Raises ConfigError."""
    try:
        for level in reversed([path, *path.parents]):
            if not level.exists():
                level.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        hint = f"set {setting} to a folder of your own"
        raise ConfigError(f"cannot make the folder {path}: {error.strerror}", hint=hint) from error
    check_private(path, setting)
    return path


def kernel_folder(path: Path) -> Path:
    """Create and check the folder of compiled kernels; see `private_folder`. Kernels are loaded as
    code. If another user could write to an existing folder, its content must not be trusted, so the
    hint says to remove it. Raises ConfigError."""
    try:
        return private_folder(path, "SIMENV_KERNELS")
    except ConfigError as error:
        hint = f"rm -r {path}, kernels are compiled again" if path.is_dir() else error.hint
        raise ConfigError(error.message, hint=hint) from error


def let_others_read(folder: Path) -> None:
    """Let all users read a folder of this one and all below it, who come there in a namespace of
    mounts alone."""
    for path, _, names in os.walk(folder):
        os.chmod(path, 0o755)
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a temporary file of another process
                os.chmod(os.path.join(path, name), 0o644)


def check_private(path: Path, setting: str = "SIMENV_HOME") -> None:
    """Raise ConfigError unless only this user can write the folder, and no other user can replace
    it or a folder above it; see `weakness`."""
    result = weakness(path)
    if result is not None:
        level, reason = result
        remedy = f"chmod go-w {level}, or " if "written" in reason else ""
        raise ConfigError(
            f"{level} {reason}" + ("" if level == path else f", and {path} is reached through it"),
            hint=f"{remedy}set {setting} to a folder of your own",
        )


def weakness(path: Path) -> tuple[Path, str] | None:
    """Return the first level of the path that other users control, and the reason; None if there is
    none.

    The folder must belong to this user, and no other user may write it. The same holds for each
    folder above it, up to a folder of root; a sticky folder may be writable, because other users
    cannot rename files of this user. A symbolic link counts like a folder, and is followed.
    """
    pending, links = [(path.absolute(), True)], 0
    while pending:
        start, is_folder_itself = pending.pop()
        for level in (start, *start.parents):
            is_leaf = is_folder_itself and level == start
            try:
                info = level.lstat()
            except OSError as error:
                return level, f"cannot be looked at: {error.strerror}"
            reason = _unsafe_reason(info, is_leaf=is_leaf)
            if reason:
                return level, reason
            if stat.S_ISLNK(info.st_mode):
                links += 1
                if links > MAX_LINKS:
                    return level, "is one of too many symbolic links"
                pending.append((level.parent / level.readlink(), is_leaf))
            elif _is_roots(info.st_uid) and not is_leaf:
                break
    return None


def create_private(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Create a new file of mode 0600. Raises OSError (also if the file exists), and ConfigError if
    the file system has no modes. A partly written file is removed."""
    with _created(path, 0o600, sync=sync) as file:
        file.write(data)


def write_atomic(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Replace a file of mode 0600 by rename, so that a reader sees the old or the new content.
    `sync`: the new content survives a power failure once this returns. Raises like
    `create_private`."""
    with replacing(path, sync=sync) as file:
        file.write(data)
    if sync:
        sync_folder(path.parent)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o600, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` by rename when the block ends. `mode` is reduced by the
    umask. The temporary name is unique, so that processes that replace the same file do not disturb
    each other; the last rename wins. After an error `path` is unchanged and the temporary file is
    removed. Raises like `create_private`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
    with _created(temporary, mode, sync=sync) as file:
        yield file
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _created(path: Path, mode: int, *, sync: bool) -> Iterator[BinaryIO]:
    """Create a file; remove it if the block fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode == 0o600 and os.fstat(file.fileno()).st_mode & 0o077:
                text = f"{path} would be readable by others: its file system has no file modes"
                raise ConfigError(text, hint="choose a folder on a local disk")
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Write the directory entries of a folder to disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unsafe_reason(info: os.stat_result, *, is_leaf: bool) -> str:
    """Return the reason why other users control this level of a path, or "". `is_leaf`: this level
    is the folder itself, for which the conditions are stricter: it must belong to this user, and
    being sticky does not excuse write permission of others."""
    is_link = stat.S_ISLNK(info.st_mode)
    may_be_roots = is_link or not is_leaf
    if not is_current_user(info.st_uid) and not (may_be_roots and _is_roots(info.st_uid)):
        return f"belongs to user {info.st_uid}"
    if is_link:
        return ""
    if not stat.S_ISDIR(info.st_mode):
        return "is no folder"
    is_sticky = bool(info.st_mode & stat.S_ISVTX) and not is_leaf
    if info.st_mode & _WRITE_BY_OTHERS and not is_sticky:
        return f"can be written by others (mode {stat.S_IMODE(info.st_mode):04o})"
    return ""


def is_current_user(uid: int) -> bool:
    """Return whether this is the number of this user, and of no other: in a user namespace that
    does not map this user, all others that it does not map have the same number."""
    return uid == os.geteuid() and uid != _unmapped_uid()


def _is_roots(uid: int) -> bool:
    return uid in (ROOT, _unmapped_uid())


@functools.cache
def _unmapped_uid() -> int:
    """Return the uid under which root's files appear in a user namespace that does not map root.
    MPI ranks may run in such a namespace; -1 outside of one. Files of other users have the same uid
    there, so the process that created the namespace must have checked the folder."""
    try:
        mapped = Path("/proc/self/uid_map").read_text().split()
        if any(first == str(ROOT) for first in mapped[::3]):
            return -1
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return -1

"""Container of a few named files: a folder or a .zip.

Invariant: no file is overwritten. Only the members of NAMES are read, and each is bounded by its
real decompressed size, whatever size the archive states.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from simenv.errors import LimitExceededError, OptionError, ProgramError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

MANIFEST = "bundle.json"
PROGRAM = "program.bin"
BINDINGS = "bindings.npy"
MAX_BYTES = 64 * 2**20  # of one member: the size of a message
NAMES = (MANIFEST, PROGRAM, BINDINGS)


def is_bundle(path: Path) -> bool:
    """Return whether the path looks like a bundle, rather than a circuit."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write the files. Raises OptionError if the path exists or cannot be written."""
    try:
        if path.suffix.lower() == ".zip":
            import zipfile

            with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
                for name, body in files.items():
                    archive.writestr(name, body)
            return
        path.mkdir(parents=True)
        for name, body in files.items():
            (path / name).write_bytes(body)
    except OSError as error:
        raise OptionError(
            f"--bundle {path}: {error.strerror}", hint="name a folder or .zip that does not exist"
        ) from error


def read(path: Path) -> dict[str, bytes]:
    """Return the members of NAMES that exist. Raises ProgramError if the path is no bundle."""
    import zipfile  # here, so that every command starts without it

    try:
        result = _unzipped(path) if path.is_file() else _unfolded(path)
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from error
    for name in (MANIFEST, PROGRAM):
        if name not in result:
            raise ProgramError(
                f"{path} is no bundle: it has no {name}",
                hint="simenv result ID --bundle makes one",
            )
    return result


def _unzipped(path: Path) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        there = {info.filename: info for info in archive.infolist()}
        return {
            name: _member(archive, there[name], path)
            for name in NAMES
            if name in there and _fits(path, name, there[name].file_size)
        }


def _member(archive: ZipFile, info: ZipInfo, path: Path) -> bytes:
    """Return the content of a member, at most MAX_BYTES.

    The size in the archive is only a claim, and only deflate can decompress a part without the
    whole.
    """
    import zipfile
    import zlib

    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ProgramError(
            f"{path}: {info.filename} is packed by method {info.compress_type}; bundles are stored "
            "or deflated",
            hint="unpack it to a folder, and name the folder",
        )
    try:
        with archive.open(info) as source:
            body = source.read(MAX_BYTES + 1)
    except zlib.error as error:
        raise ProgramError(f"{path}: {info.filename} cannot be unpacked: {error}") from error
    _fits(path, info.filename, len(body))
    return body


def _unfolded(path: Path) -> dict[str, bytes]:
    entries = {}
    for name in NAMES:
        member = path / name
        if _fits(path, name, member.stat().st_size if member.is_file() else None):
            entries[name] = member.read_bytes()
    return entries


def _fits(path: Path, name: str, size: int | None) -> bool:
    if size is not None and size > MAX_BYTES:
        raise LimitExceededError(f"{path}: {name} has {size} bytes; the limit is {MAX_BYTES}")
    return size is not None

"""A handful of named files in a folder or in a .zip.

Invariant: nothing is overwritten; of what is read only the members of NAMES count, each bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from simenv.errors import LimitExceeded, OptionError, ProgramError

MANIFEST = "bundle.json"
PROGRAM = "program.bin"
BINDINGS = "bindings.npy"
MAX_BYTES = 64 * 2**20  # of one member: what one message may carry
NAMES = (MANIFEST, PROGRAM, BINDINGS)


def is_bundle(path: Path) -> bool:
    """Does this look like a bundle, rather than a circuit?"""
    return path.is_dir() or path.suffix.lower() == ".zip"


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """OptionError if there is something in the way, or it cannot be written."""
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
            f"--bundle {path}: {error.strerror}", hint="a folder or .zip that is not there yet"
        ) from error


def read(path: Path) -> dict[str, bytes]:
    """The members of NAMES that are there; ProgramError if it is no bundle."""
    import zipfile  # here, so that every command starts without it

    try:
        found = _unzipped(path) if path.is_file() else _unfolded(path)
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from error
    for name in (MANIFEST, PROGRAM):
        if name not in found:
            raise ProgramError(
                f"{path} is no bundle: it holds no {name}",
                hint="simenv result ID --bundle makes one",
            )
    return found


def _unzipped(path: Path) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        return {name: archive.read(name) for name in NAMES if _fits(path, name, sizes.get(name))}


def _unfolded(path: Path) -> dict[str, bytes]:
    found = {}
    for name in NAMES:
        member = path / name
        if _fits(path, name, member.stat().st_size if member.is_file() else None):
            found[name] = member.read_bytes()
    return found


def _fits(path: Path, name: str, size: int | None) -> bool:
    if size is not None and size > MAX_BYTES:
        raise LimitExceeded(f"{path}: {name} has {size} bytes; the limit is {MAX_BYTES}")
    return size is not None

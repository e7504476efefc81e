"""Checkpoint and restart of a state's evolution: one HDF5 file a rank.

A long run writes its amplitudes from time to time, between two sweeps, alternating between two
names, so that one file is always complete. A second attempt of the same run restores the newest
complete one. All ranks write and restore the same sweep, or none does. A file is valid only if its
checksum matches. Short runs never write.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.engine import EngineResult, RunControl, RunOptions

FORMAT = 1
_BLOCK = 1 << 18  # amplitudes written at a time: 4 MiB in double precision
_NEW = ".new"  # suffix of an unfinished file
_NAME, _RECORD = "amplitudes", "record"

Amplitudes = NDArray[np.complexfloating[Any, Any]]


class CheckpointHeader(msgspec.Struct, frozen=True):
    """Identity of the state in a checkpoint file."""

    digest: str  # digest of the evolution
    done: int  # finished passes
    rank: int
    ranks: int
    positions: tuple[int, ...]  # position of each wire; (): in order


def write(path: Path, mark: CheckpointHeader, amplitudes: Amplitudes, record: bytes = b"") -> None:
    """Write a file under a temporary name and rename it. `record`: what else belongs to the state.
    Raises OSError, and then removes the temporary file."""
    temporary = path.with_name(path.name + _NEW)
    try:
        _fill(temporary, mark, amplitudes, record)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # from HDF5, which cannot close an unwritten file
            raise OSError(str(error)) from error
        raise


def header_of(path: Path) -> CheckpointHeader | None:
    """Header of a checkpoint file; None if it cannot be read."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs["format"] != FORMAT:
                return None
            return msgspec.json.decode(file.attrs["mark"], type=CheckpointHeader)
    except (OSError, KeyError, TypeError, ValueError):
        return None


def read(path: Path, mark: CheckpointHeader, into: Amplitudes) -> bytes | None:
    """Fill `into` from a file with that header, and return its record; None if the header differs
    or the file is damaged: then `into` is undefined."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            table = file[_NAME]
            fits = table.shape == into.shape and table.dtype == into.dtype
            if not fits or msgspec.json.decode(file.attrs["mark"], type=CheckpointHeader) != mark:
                return None
            record = bytes(file[_RECORD][...]) if _RECORD in file else b""
            crc = zlib.crc32(record)
            for at in range(0, into.size, _BLOCK):
                part = slice(at, min(at + _BLOCK, into.size))
                table.read_direct(into, part, part)
                crc = zlib.crc32(into[part].view(np.uint8).data, crc)
            return record if file.attrs["checksum"] == crc else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _fill(path: Path, mark: CheckpointHeader, amplitudes: Amplitudes, record: bytes) -> None:
    import h5py

    crc = zlib.crc32(record)
    with h5py.File(path, "w", libver=("v110", "v110"), locking=False) as file:
        if record:
            file.create_dataset(_RECORD, data=np.frombuffer(record, np.uint8))
        table = file.create_dataset(_NAME, amplitudes.shape, amplitudes.dtype)
        for at in range(0, amplitudes.size, _BLOCK):
            part = slice(at, min(at + _BLOCK, amplitudes.size))
            crc = zlib.crc32(amplitudes[part].view(np.uint8).data, crc)
            table.write_direct(amplitudes, part, part)
        file.attrs["format"] = FORMAT
        file.attrs["content"] = "part of a state, to go on from"
        file.attrs["mark"] = msgspec.json.encode(mark).decode()
        file.attrs["checksum"] = crc
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SHARE = 20  # at most a twentieth of the time is spent on writing
_NAMED = 16  # characters of a digest in a file name
_HALF = 2  # part of the free space that stays free
_WORDS = 200  # characters of an error message


class RankContext(msgspec.Struct, frozen=True):
    """Rank of this process, and the collectives by which all ranks agree."""

    rank: int = 0
    ranks: int = 1
    least: Callable[[int], int] = int  # minimum over all ranks


class Evolution(msgspec.Struct, frozen=True):
    """Evolution of a state: its digest, and its number of sweeps."""

    digest: str
    passes: int


class Checkpointer:
    """Checkpoints of one state at a time. `folder`: owned by this run; None: no checkpoints."""

    def __init__(
        self,
        folder: Path | None = None,
        every_s: float = 0.0,
        place: RankContext | None = None,
        control: RunControl | None = None,
    ) -> None:
        self._control = control or RunControl()
        self._is_preempted = False
        self._folder = folder
        self._every_s = every_s
        self._place = place or RankContext()
        self._way = Evolution("", 0)
        self._done = self._before = 0  # passes; passes of an earlier attempt
        self._turn = 0
        self._next_s = time.monotonic() + every_s
        self._begun = self._missed = ""  # remarks for the result
        self.record = b""  # of the checkpoint that was restored

    @classmethod
    def of(
        cls, options: RunOptions, control: RunControl, place: RankContext | None = None
    ) -> Checkpointer:
        """`control`: of the run; if it is preempted, it ends after a checkpoint."""
        folder = Path(options.checkpoint_dir) if options.checkpoint_dir else None
        return cls(folder, options.checkpoint_every_s, place, control)

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the checkpoints at the end of the run, but not of a preempted one."""
        self._control.has_checkpoints = False
        if self._is_preempted and kind is not None:
            return
        self._forget(f"{self._place.rank}.*")
        if self._folder is not None:
            with suppress(OSError):  # other ranks have files in it, or it was never made
                self._folder.rmdir()

    def annotate(self, result: EngineResult) -> EngineResult:
        """Add remarks to a result: the start of this attempt, if there was an earlier one, and
        failed checkpoints."""
        remark = ", ".join(word for word in (result.remark, self._begun, self._missed) if word)
        return result if remark == result.remark else msgspec.structs.replace(result, remark=remark)

    @property
    def is_kept(self) -> bool:
        """True if checkpoints are to be written or read."""
        return self._folder is not None and self._done < self._way.passes

    def begin(self, way: Evolution | None) -> None:
        """Begin the evolution of a state; None: without checkpoints."""
        new = way or Evolution("", 0)
        if self._way.digest not in ("", new.digest):
            self._forget(f"{self._place.rank}.{self._way.digest[:_NAMED]}.*")
        self._way = new
        self._done = self._before = 0
        self._control.has_checkpoints = self.is_kept

    def restore(self, amplitudes: Amplitudes) -> tuple[int, ...] | None:
        """Restore the amplitudes of an earlier attempt; return the positions of its wires. None:
        there is no checkpoint, and the amplitudes are unchanged."""
        if not self.is_kept:
            return None
        least = self._place.least
        entries = {mark.done: (turn, mark) for turn, mark in self._own_checkpoints()}
        done = least(max(entries, default=0))
        if not least(int(done in entries)):
            return None
        turn, mark = entries[done]
        begin = amplitudes[0]
        record = read(self._path(turn), mark, amplitudes)
        if not least(int(record is not None)):
            amplitudes[:] = 0.0
            amplitudes[0] = begin
            return None
        self.record = record or b""
        self._before = done
        self._begun = f"from pass {done} of {self._way.passes}"
        self._turn = 1 - turn
        return mark.positions

    def skip_done(self, passes: int) -> int:
        """Number of the next sweeps that an earlier attempt has done, which are skipped."""
        result = min(passes, max(0, self._before - self._done))
        self._done += result
        return result

    def sweep_done(
        self,
        amplitudes: Amplitudes,
        positions: Sequence[int] = (),
        record: Callable[[], bytes] = bytes,
    ) -> None:
        """Count a finished sweep, and write a checkpoint if it is time. `record`: returns what else
        belongs to the state."""
        kept = self.is_kept
        self._done += 1
        if not kept:
            return
        early = -1 if self._control.is_preempted else int(time.monotonic() < self._next_s)
        early = self._place.least(early)  # -1: one rank is asked to end, so all are
        if early <= 0:
            self._keep(amplitudes, positions, record())
        if early < 0:
            self._is_preempted = True
            self._control.stop()

    def _keep(self, amplitudes: Amplitudes, positions: Sequence[int], record: bytes) -> None:
        """Write a checkpoint in all ranks, or in none: then the previous one stays."""
        begin_s = time.monotonic()
        place, path = self._place, self._path(self._turn)
        mark = CheckpointHeader(
            self._way.digest, self._done, place.rank, place.ranks, tuple(positions)
        )
        why = self._no_room(amplitudes.nbytes + len(record))
        if place.least(int(not why)):
            try:
                write(path, mark, amplitudes, record)
            except OSError as error:
                why = " ".join(str(error).split())[:_WORDS]
            if place.least(int(not why)):
                self._turn = 1 - self._turn
                self._missed = ""
            else:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                self._miss(why)
        else:
            self._miss(why)
        end_s = time.monotonic()
        self._next_s = end_s + max(self._every_s, _SHARE * (end_s - begin_s))

    def _no_room(self, size_bytes: int) -> str:
        """Reason why the parts of all ranks cannot be written; "" if they can. All are in one file
        system, and take at most half of its free space."""
        assert self._folder is not None
        need = self._place.ranks * size_bytes
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            return str(error)
        if free >= _HALF * need:
            return ""
        return f"{need / 2**30:.3g} GiB to write, and {free / 2**30:.3g} GiB free"

    def _miss(self, why: str) -> None:
        """Note a failed checkpoint; the run goes on. The first failure is reported in the result
        and in the worker's log."""
        message = f"not kept at sweep {self._done}: {why or 'by another rank'}"
        if not self._missed and why:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._missed = message

    def _forget(self, pattern: str) -> None:
        if self._folder is not None:
            for path in self._folder.glob(pattern):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _own_checkpoints(self) -> Iterable[tuple[int, CheckpointHeader]]:
        own = self._way.digest, self._place.rank, self._place.ranks
        for turn in (0, 1):
            mark = header_of(self._path(turn))
            if mark is not None and (mark.digest, mark.rank, mark.ranks) == own:
                yield turn, mark

    def _path(self, turn: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._place.rank}.{self._way.digest[:_NAMED]}.{turn}.h5"


def digest(arrays: Iterable[NDArray[Any]], *fields: object) -> str:
    """Digest of all that determines the state."""
    result = hashlib.sha256(repr(fields).encode())
    for array in arrays:
        result.update(f"{array.dtype} {array.shape}".encode())
        result.update(np.ascontiguousarray(array).data)
    return result.hexdigest()


def arrays_of(table: msgspec.Struct) -> list[NDArray[Any]]:
    """All arrays of a plan's table."""
    return [each for each in msgspec.structs.astuple(table) if isinstance(each, np.ndarray)]

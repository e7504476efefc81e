"""Where a long run leaves what it has done, for another attempt at the same task."""

from __future__ import annotations

from pathlib import Path

import msgspec

from simenv.model import task_name
from simenv.store.reading import KEPT
from simulators.engine import RunOptions

WIDE_QUBITS = 20  # narrower ones are never so long


class Kept(msgspec.Struct, frozen=True):
    """A folder for all tasks, and how often a run writes."""

    folder: Path
    every_s: float

    @classmethod
    def below(cls, results: Path, every_s: float) -> Kept:
        """Beside the files of results, which all ranks see."""
        return cls(results / KEPT, every_s)

    def told(self, options: RunOptions, num_qubits: int, task: int) -> RunOptions:
        """The options of a run, with the folder of its task if it may be long."""
        if num_qubits < WIDE_QUBITS:
            return options
        folder = str(self.folder / task_name(task))
        return msgspec.structs.replace(options, kept=folder, kept_every_s=self.every_s)

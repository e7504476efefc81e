"""Each barrier of the kernels is left out once: results must change for some order of threads."""

from __future__ import annotations

import re
from pathlib import Path

import gpu_exercise
import numpy as np
from host_device import KERNELS, HostDevice

# A shuffle waits for the whole block here, as it does not on a device: it hides the barrier before
# a second sum.
_HIDDEN = "the scratch of an earlier sum"


def barriers() -> list[tuple[str, int]]:
    """File and line of each."""
    return [
        (path.name, number)
        for path in sorted(KERNELS.glob("*.cuh"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.match(r"\s+__syncthreads\(\);", line)
    ]


def text_of(file: str, line: int) -> str:
    return (KERNELS / file).read_text().splitlines()[line - 1]


def is_noticed(library: Path, file: str, line: int) -> bool:
    device = HostDevice(library)
    device.skip_barrier(file, line)
    try:
        with np.errstate(all="ignore"):
            return not gpu_exercise.is_right(library)
    except (ValueError, AssertionError, IndexError, OverflowError):  # of what is no number
        return True
    finally:
        device.skip_barrier("", 0)


def test_every_missing_barrier_but_a_hidden_one_is_noticed(library: Path) -> None:
    assert gpu_exercise.is_right(library)
    table = {barrier: is_noticed(library, *barrier) for barrier in barriers()}
    missed = [barrier for barrier, noticed in table.items() if not noticed]
    assert len(table) >= 20
    hidden = [(file, line) for file, line in missed if _HIDDEN in text_of(file, line)]
    assert missed == hidden
    assert len(hidden) <= 1

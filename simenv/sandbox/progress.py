"""Deadlines of processes by their progress and the processor time that they could have.

A wall-clock limit ends a healthy process on a machine that has too much to do. `ProgressDeadline`
counts the time that a process had: its own CPU time while it wants to run, and while it waits for
others, the share of a processor that the machine has left for it. On an idle machine that is the
wall time. A step of progress begins it anew. Invariant: time in which this process itself did not
run counts as one look at most. This module imports nothing of simenv.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

from simenv.sandbox.process_tree import descendants

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME = (
    11  # field of /proc/PID/stat, counted from the third: utime, stime, cutime, cstime (proc(5))
)
_IDLE = 4  # field of a processor in /proc/stat (proc(5))
MIN_SHARE = 1 / 32  # a process that is blocked is given up after 32 times its limit at the latest
LOOK_S = 2.0  # longest time that counts between two looks
BUSY_PART = 0.5  # a process that runs, or waits to run, for this part of a look is not blocked


def runnable() -> int:
    """Number of threads of this machine that run or could; 0 on systems without /proc."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 0


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def idle_s() -> float:
    """Time in which the processors that this process may use had nothing to do, in s since their
    boot, added up; 0 on systems without /proc."""
    own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        return sum(int(row[_IDLE]) for row in rows if row and row[0] in own) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0


def cpu_share() -> float:
    """Share of a processor that one more thread of common priority has now, up to 1. The kernel
    counts the threads of the whole machine: in a set of few processors of a large one that says
    little, so the share is MIN_SHARE at least."""
    return max(MIN_SHARE, min(1.0, processors() / max(1, runnable())))


def load_text() -> str:
    """Load of this machine, for messages: `41 threads want to run on 2 processors`."""
    return f"{runnable()} threads want to run on {processors()} processors"


def _times(pid: int) -> tuple[float, float]:
    """CPU time of a process with all that it has started, and time in which their threads waited
    for a processor, in seconds; zeros where they cannot be read."""
    cpu_s = waited_s = 0.0
    for each in (pid, *descendants(pid)):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            cpu_s += sum(map(int, fields[_UTIME : _UTIME + 4])) / _TICKS_PER_S
            for thread in Path(f"/proc/{each}/task").iterdir():
                waited_s += int((thread / "schedstat").read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):  # it has ended, or the kernel counts no waits
            continue
    return cpu_s, waited_s


class ProgressDeadline:
    """Time that a process has without a step of progress. For one thread, which looks often."""

    def __init__(self, limit_s: float, pid: int = 0) -> None:
        """`pid`: of the process; 0: it cannot be observed, and the share of a processor that the
        machine has left counts alone."""
        self.limit_s = limit_s
        self.spent_s = 0.0  # since the last step
        self.cpu_s = 0.0  # CPU time of the process since the begin, 0 if it cannot be observed
        self._pid = pid
        self._looked_s = monotonic()
        self._times = _times(pid) if pid else (0.0, 0.0)
        self._idle_s = idle_s()

    def step(self) -> None:
        """Begin anew, after a step of progress."""
        self.look()
        self.spent_s = 0.0

    def look(self) -> float:
        """Count the time since the last look; return the seconds that are left."""
        now_s = monotonic()
        wall_s, self._looked_s = now_s - self._looked_s, now_s
        cpu_s = waited_s = 0.0
        if self._pid:
            cpu_s, waited_s = self._times
            self._times = _times(self._pid)
            cpu_s, waited_s = self._times[0] - cpu_s, self._times[1] - waited_s
        self.cpu_s += max(0.0, cpu_s)
        before_s, self._idle_s = self._idle_s, idle_s()
        cpu_s = min(cpu_s, wall_s)  # several threads do not shorten the time
        if cpu_s + waited_s < BUSY_PART * wall_s:  # blocked: by a process that may wait to run
            could_s = min(LOOK_S, wall_s) * cpu_share()
            cpu_s = max(cpu_s, could_s, min(LOOK_S, wall_s, self._idle_s - before_s))
        self.spent_s += max(0.0, cpu_s)
        return self.limit_s - self.spent_s

    @property
    def is_over(self) -> bool:
        """True if the time is over; this is a look."""
        return self.look() <= 0.0

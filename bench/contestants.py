"""Ways to run circuits, each in a process of its own with its threads set, called one at a time.

What takes longer than its cap is ended, process and all, and counts as not done.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from report import INSTALL

_VARIABLES = ("OMP_NUM_THREADS", "QULACS_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PATIENCE_S = 600.0  # for all that is not timed: imports, compilation, conversion


class Contestant:
    """A way in its process. `make`: a module-level function that gives it."""

    def __init__(self, name: str, make: Callable[..., Any], *given: Any, threads: int) -> None:
        self.name = name
        self.problem = ""  # why it does not take part any more
        for variable in _VARIABLES:
            os.environ[variable] = str(threads)
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child, make, (threads, *given)), daemon=True
        )
        self._process.start()
        child.close()
        self._answer(_PATIENCE_S)

    def ask(self, method: str, *given: Any, cap_s: float = _PATIENCE_S) -> Any:
        """Call a method of the way; None where there is a problem, see `problem`."""
        if self.problem:
            return None
        self._pipe.send((method, given))
        return self._answer(cap_s)

    def prepare(self, num_qubits: int, circuits: list[Any]) -> bool:
        """Convert circuits, to be run in turns."""
        return self.ask("prepare", num_qubits, circuits) is not None

    def times(
        self, calls: int, cap_s: float, method: str = "run", *, cpu: bool = False
    ) -> list[float]:
        """Seconds of so many calls, the circuits taken in turns; [] where it failed.

        `cpu`: of the process, all its threads together, instead of the wall clock's.
        """
        return self.ask("times", method, calls, cpu, cap_s=cap_s) or []

    def signs(self) -> Any:
        """Means of Z on each qubit and of ZZ on neighbours, from the counts found last."""
        return self.ask("signs")

    def close(self) -> None:
        """End its process."""
        self._pipe.close()
        self._process.join(10.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self, cap_s: float) -> Any:
        try:
            if self._pipe.poll(cap_s):
                found, self.problem = self._pipe.recv()
                return found
            self.problem = f"more than {cap_s:g} s"
        except EOFError:
            self.problem = "its process ended"
        self._process.kill()
        self._process.join()
        return None


class _Served:
    """What a process does when asked."""

    def __init__(self, way: Any) -> None:
        self._way = way
        self._jobs: list[Any] = []
        self._turn = 0
        self._found: Any = None
        self._num_qubits = 0

    def prepare(self, num_qubits: int, circuits: list[Any]) -> bool:
        self._jobs.clear()
        self._jobs = [self._way.prepare(num_qubits, gates) for gates in circuits]
        self._num_qubits, self._turn = num_qubits, 0
        return True

    def times(self, method: str, calls: int, cpu: bool) -> list[float]:
        run, found = getattr(self._way, method), []
        clock = time.process_time if cpu else time.perf_counter
        for _ in range(calls):
            job = self._jobs[self._turn % len(self._jobs)]
            self._turn += 1
            begin = clock()
            self._found = run(job)
            found.append(clock() - begin)
        return found

    def signs(self) -> list[float]:
        counts = self._way.counts(self._found)
        values = np.array(list(counts), np.int64)
        weights = np.array([counts[value] for value in values.tolist()], float)
        spins = 1.0 - 2.0 * (values[:, None] >> np.arange(self._num_qubits) & 1)
        both = np.hstack((spins, spins[:, 1:] * spins[:, :-1]))
        return (weights @ both / weights.sum()).tolist()

    def other(self, method: str, given: tuple[Any, ...]) -> Any:
        return getattr(self._way, method)(*given)


def _serve(pipe: Connection, make: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """Answer until the pipe closes: (found, problem)."""
    try:
        served = _Served(make(*given))
        pipe.send((True, ""))
        while True:
            method, told = pipe.recv()
            call = getattr(served, method, None)
            pipe.send((served.other(method, told) if call is None else call(*told), ""))
    except EOFError:
        return
    except ModuleNotFoundError as error:
        pipe.send((None, f"{error.name} is not installed; type: {INSTALL}"))
    except Exception as error:  # noqa: BLE001  # libraries of others: told, and left out
        pipe.send((None, f"{type(error).__name__}: {str(error)[:200]}"))


class Bandwidth:
    """Reads and writes of memory in place, by all threads at once."""

    def __init__(self, threads: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(threads)
        self._parts = np.array_split(np.ones(1 << 26), threads)  # 512 MiB: in no cache

    def bytes_a_second(self, cpu: bool) -> float:
        """Median of a few sweeps; `cpu`: by CPU seconds, of one thread."""
        clock = time.process_time if cpu else time.perf_counter
        took = []
        for _ in range(5):
            begin = clock()
            list(self._pool.map(_turned, self._parts))
            took.append(clock() - begin)
        return 2 * sum(part.nbytes for part in self._parts) / statistics.median(took)


def _turned(part: Any) -> None:
    np.negative(part, out=part)

"""A peer in a process of its own, with its number of threads set, called over a pipe.

A call that takes longer than its limit ends the peer's process; the peer then leaves the benchmark.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.harness.report import INSTALL_COMMAND
from bench.harness.timing import clock_of, timed_s

_VARIABLES = ("OMP_NUM_THREADS", "QULACS_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_UNTIMED_LIMIT_S = 600.0  # limit of untimed calls: imports, compilation, conversion


class IsolatedPeer:
    """A peer in its process. `create`: a module-level function or class that makes the peer; it is
    called with the number of threads and `args`. A problem is printed, unless `quiet`."""

    def __init__(
        self, name: str, create: Callable[..., Any], *args: Any, threads: int, quiet: bool = False
    ) -> None:
        self.name = name
        self._quiet = quiet
        self.problem = ""  # why the peer has left the benchmark
        for variable in _VARIABLES:
            os.environ[variable] = str(threads)
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child, create, (threads, *args)), daemon=True
        )
        self._process.start()
        child.close()
        self._receive(_UNTIMED_LIMIT_S)

    def call(self, method: str, *args: Any, limit_s: float = _UNTIMED_LIMIT_S) -> Any:
        """Call a method of the peer; None after a problem, see `problem`."""
        if self.problem:
            return None
        self._pipe.send((method, args))
        return self._receive(limit_s)

    def prepare(self, num_qubits: int, circuits: list[Any]) -> bool:
        """Convert circuits, which `times` runs in turns."""
        return self.call("prepare", num_qubits, circuits) is not None

    def times(
        self, calls: int, limit_s: float, method: str = "run", *, cpu: bool = False
    ) -> list[float]:
        """Return the seconds of so many calls, the circuits taken in turns; [] if a call failed.
        `cpu`: CPU seconds of the process, summed over its threads, instead of wall time."""
        return self.call("times", method, calls, cpu, limit_s=limit_s) or []

    def correlations(self) -> Any:
        """Return the means of Z on each qubit and of ZZ on neighbours, from the last counts."""
        return self.call("correlations")

    def close(self) -> None:
        """End the peer's process."""
        self._pipe.close()
        self._process.join(10.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self, limit_s: float) -> Any:
        result = None
        try:
            ended = not self._pipe.poll(limit_s)
            if ended:
                self.problem = f"more than {limit_s:g} s"
            else:
                result, self.problem = self._pipe.recv()
        except EOFError:
            ended, self.problem = True, "its process ended"
        if ended:
            self._process.kill()
            self._process.join()
        if self.problem and not self._quiet:
            print(f"left out from here: {self.name}: {self.problem}", flush=True)
        return result


class _Server:
    """Server in the peer's process: it serves the calls of `IsolatedPeer`."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self._jobs: list[Any] = []
        self._next_job = 0
        self._result: Any = None
        self._num_qubits = 0

    def prepare(self, num_qubits: int, circuits: list[Any]) -> bool:
        self._jobs.clear()
        self._jobs = [self._peer.prepare(num_qubits, circuit) for circuit in circuits]
        self._num_qubits, self._next_job = num_qubits, 0
        return True

    def times(self, method: str, calls: int, cpu: bool) -> list[float]:
        run, seconds = getattr(self._peer, method), []
        clock = clock_of(cpu=cpu)

        def call(job: Any) -> None:
            self._result = run(job)

        for _ in range(calls):
            job = self._jobs[self._next_job % len(self._jobs)]
            self._next_job += 1
            seconds.append(timed_s(lambda job=job: call(job), clock))
        return seconds

    def correlations(self) -> list[float]:
        counts = self._peer.counts(self._result)
        values = np.array(list(counts), np.int64)
        weights = np.array([counts[value] for value in values.tolist()], float)
        spins = 1.0 - 2.0 * (values[:, None] >> np.arange(self._num_qubits) & 1)
        both = np.hstack((spins, spins[:, 1:] * spins[:, :-1]))
        return (weights @ both / weights.sum()).tolist()


def _serve(pipe: Connection, create: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Serve until the pipe closes; every message is (result, problem)."""
    try:
        server = _Server(peer := create(*args))
        pipe.send((True, ""))
        while True:
            method, call_args = pipe.recv()
            call = getattr(server, method, None) or getattr(peer, method)
            pipe.send((call(*call_args), ""))
    except EOFError:
        return
    except ModuleNotFoundError as error:
        pipe.send((None, f"{error.name} is not installed; type: {INSTALL_COMMAND}"))
    except Exception as error:  # noqa: BLE001  # a peer whose library fails is left out
        pipe.send((None, f"{type(error).__name__}: {str(error)[:200]}"))

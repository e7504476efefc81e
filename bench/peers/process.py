"""A peer in a process of its own, with its number of threads set, called over a pipe.

A call that takes longer than its limit ends the peer's process; the peer then leaves the benchmark.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from bench.harness.report import INSTALL_COMMAND
from bench.harness.timing import repeated_s
from bench.peers.base import SHOTS

_VARIABLES = ("OMP_NUM_THREADS", "QULACS_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_UNTIMED_LIMIT_S = 600.0  # limit of untimed calls: imports, compilation, conversion
_DEVIATIONS = 6.0  # of a mean of shots, within which two libraries ran the same circuit


class IsolatedPeer:
    """A peer in its process. `create`: a module-level function or class that makes the peer; it is
    called with the number of threads and `args`. A problem is printed, unless `quiet`."""

    def __init__(
        self, name: str, create: Callable[..., Any], *args: Any, threads: int, quiet: bool = False
    ) -> None:
        self.name, self._quiet = name, quiet
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
        self._pipe.close()
        self._process.join(10.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self, limit_s: float) -> Any:
        result, ended = None, True
        try:
            if ended := not self._pipe.poll(limit_s):
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
        self._jobs: Iterator[Any] = iter(())
        self._num_qubits = 0
        self._result: Any = None

    def prepare(self, num_qubits: int, circuits: list[Any]) -> bool:
        self._jobs = iter(())  # the former ones need memory
        jobs = [self._peer.prepare(num_qubits, circuit) for circuit in circuits]
        self._num_qubits, self._jobs = num_qubits, itertools.cycle(jobs)
        return True

    def times(self, method: str, calls: int, cpu: bool) -> list[float]:
        run = getattr(self._peer, method)

        def call() -> None:
            self._result = run(next(self._jobs))

        return repeated_s(call, calls, time.process_time if cpu else time.perf_counter)

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


class Variant(NamedTuple):
    """One way to run a library: the peer's class, its arguments and number of threads."""

    name: str  # its first word is the library
    create: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    threads: int = 0  # 0: as the others
    widest: int = 0  # qubits of the circuits that it gets; 0: any


class Peers:
    """The variants that run, each in a process of its own until the context ends. `missing`:
    libraries that could not be started."""

    def __init__(self, variants: Sequence[Variant], threads: int) -> None:
        self._widest = {each.name: each.widest for each in variants}
        self._peers = [
            IsolatedPeer(each.name, each.create, *each.arguments, threads=each.threads or threads)
            for each in variants
        ]
        missing = (each.name.split()[0] for each in self._peers if each.problem)
        self.missing = list(dict.fromkeys(missing))

    def __iter__(self) -> Iterator[IsolatedPeer]:
        return (peer for peer in self._peers if not peer.problem)

    def prepared(self, num_qubits: int, circuits: list[Any]) -> Iterator[IsolatedPeer]:
        """Yield each peer that takes circuits of this width once it has converted them; those that
        fail are left out."""
        for peer in self:
            takes = num_qubits <= (self._widest[peer.name] or num_qubits)
            if takes and peer.prepare(num_qubits, circuits):
                yield peer

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.close()


def assert_same_circuit(means: Mapping[str, Any], shots: int = SHOTS) -> None:
    """Assert that the means of all peers differ only by the statistics of shots; None: it has
    left."""
    values = {name: np.array(each) for name, each in means.items() if each is not None}
    for name, each in values.items():
        off = np.abs(next(iter(values.values())) - each).max()
        assert off < _DEVIATIONS * (2 / shots) ** 0.5, f"{name} ran another circuit: {off:.2f}"

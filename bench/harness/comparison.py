"""Peers and calls that take turns: started, compared with one another, timed in rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.harness.isolated import IsolatedPeer
from bench.harness.timing import Clock, Times, timed_s
from bench.peers.base import SHOTS

_DEVIATIONS = 6.0  # of a mean of shots, within which two libraries ran the same circuit


class Variant(NamedTuple):
    """One way to run a library: the peer's class, its arguments and number of threads."""

    name: str  # its first word is the library
    create: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    threads: int = 0  # 0: as the others
    widest: int = 0  # qubits of the circuits that it gets; 0: any


class Peers:
    """The variants that run, each in a process of its own until the context ends. `without`:
    libraries that are left out. `missing`: libraries that could not be started."""

    def __init__(
        self, variants: Iterable[Variant], threads: int, without: Sequence[str] = ()
    ) -> None:
        variants = tuple(variants)
        self._widest = {each.name: each.widest for each in variants}
        self._peers = [
            IsolatedPeer(each.name, each.create, *each.arguments, threads=each.threads or threads)
            for each in variants
            if each.name.split()[0] not in without
        ]
        self.missing = list(
            dict.fromkeys(each.name.split()[0] for each in self._peers if each.problem)
        )

    def __iter__(self) -> Iterator[IsolatedPeer]:
        return (peer for peer in self._peers if not peer.problem)

    def prepared(self, num_qubits: int, circuits: list[Any]) -> Iterator[IsolatedPeer]:
        """Yield each peer that takes circuits of this width once it has converted them; those that
        fail are left out."""
        return (
            peer
            for peer in self
            if num_qubits <= (self._widest[peer.name] or num_qubits)
            and peer.prepare(num_qubits, circuits)
        )

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


def rounds_of(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, clock: Clock = time.perf_counter
) -> Times:
    """Return the seconds of each call in each round; the calls of a round take turns."""
    seconds: Times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(timed_s(call, clock))
    return seconds

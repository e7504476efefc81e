"""Peers and calls that take turns: started, compared with one another, timed in rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.harness.isolated import IsolatedPeer
from bench.harness.timing import Clock, timed_s
from bench.peers.base import SHOTS

_DEVIATIONS = 6.0  # of a mean of shots, within which two libraries ran the same circuit


class Variant(NamedTuple):
    """One way to run a library: the peer's class, its arguments and number of threads."""

    name: str  # its first word is the library
    create: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    threads: int = 0  # 0: as the others


def start_peers(
    variants: Iterable[Variant], threads: int, without: Sequence[str] = ()
) -> tuple[list[IsolatedPeer], list[str]]:
    """Start all variants but those of the libraries in `without`.

    Returns the peers, and the libraries of variants that could not be started; prints why.
    """
    peers: list[IsolatedPeer] = []
    missing: dict[str, None] = {}
    for variant in variants:
        library = variant.name.split()[0]
        if library in without:
            continue
        number = variant.threads or threads
        peer = IsolatedPeer(variant.name, variant.create, *variant.arguments, threads=number)
        if peer.problem:
            print(f"left out: {variant.name}: {peer.problem}")
            peer.close()
            missing[library] = None
        else:
            peers.append(peer)
    return peers, list(missing)


def assert_same_circuit(means: Mapping[str, Any], shots: int = SHOTS) -> None:
    """Assert that the means of all peers differ only by the statistics of shots."""
    first = np.array(next(iter(means.values())))
    for name, each in means.items():
        off = np.abs(first - np.array(each)).max()
        assert off < _DEVIATIONS * (2 / shots) ** 0.5, f"{name} ran another circuit: {off:.2f}"


def rounds_of(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each call in each round; the calls of a round take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(timed_s(call, clock))
    return seconds

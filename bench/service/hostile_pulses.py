"""Hostile pulse sequences, through the reader of clients and past it."""

from __future__ import annotations

import tempfile
from argparse import Namespace

import psutil

import simenv
from bench.harness import SEED, Report, benchmark, installed, timed
from bench.harness.environments import service_process
from testbed.hostile_sequences import documents
from testbed.keys import remote_key
from testbed.sequence_attack import attacked, peaks


@benchmark(seed=SEED, mutated=(10_000, 100), bombs=(1_000, 42))
def hostile_pulses(report: Report, options: Namespace) -> None:
    """Mutated pulse sequences and bombs from a client with a key: errors, memory, time.

    Each text (`testbed.hostile_sequences`) is read as the gateway and the QPM read those of their
    users, in a process with 1 GiB and 20 s; what is refused there goes to the service in a call
    with sizes that lie, and one in five of the others too. A worker samples it in a process with
    the same bounds. Each has to end in a result or in an error of simenv that was foreseen: an
    error that names a class of Python and a line is none, nor one that a terminal would obey.
    """
    if not installed("pulser"):
        return report.none_measured("pulser is not installed")
    texts = documents(options.seed, options.mutated, options.bombs)
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as near,
    ):
        file, _ = remote_key(near, "mallory", folder)
        before = near.workers()[0].pid
        processes = {"service": service_process(near), "worker": psutil.Process(before)}
        with simenv.connect(service=file) as far, peaks(processes) as memory:
            seconds, found = timed(lambda: attacked(far, texts, options.seed))
        same = near.workers()[0].pid == before
    print(f"{len(texts)} documents in {seconds:.0f} s; ends: {dict(found.ends.most_common())}")
    slowest = sorted(found.longest_s.items(), key=lambda item: -item[1])[:8]
    print("longest: " + ", ".join(f"{kind} {took_s:.1f} s" for kind, took_s in slowest))
    for kind, text in found.unforeseen[:20]:
        print(f"{kind}: {text!r}")
    report.at_most("unforeseen", len(found.unforeseen))
    report.at_least("worker_lives", same)
    ended = sum(count for end, count in found.ends.items() if end.startswith("service"))
    report.at_least("ended_share", ended / len(texts))
    report.seconds("longest_s", max(found.longest_s.values()))
    for name in ("service", "worker", "worker, children"):
        report.at_most("peak_gib", memory[name] / 2**30, name)

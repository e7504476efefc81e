"""A sample of the benchmark `hostile_pulses`: hostile pulse sequences end in foreseen errors."""

import json
import math
from pathlib import Path
from typing import Any

import psutil
import pytest
from failing import fails
from live import with_keys

import simenv
from simenv.client.client import Client
from simenv.errors import SimenvError
from testbed import hostile_sequences
from testbed.sequence_attack import attacked, peaks

pulser = pytest.importorskip("pulser")
LARGE = 20_000  # characters: larger texts take pulser seconds, and are left to the benchmark
MOST_BYTES = int(1.6 * 2**30)  # of a process that reads sequences: 1 GiB beside its libraries


def test_hostile_sequences_end_in_results_or_foreseen_errors(tmp_path: Path) -> None:
    all_documents = hostile_sequences.documents(5, 30, 42)
    documents = [(kind, text) for kind, text in all_documents if len(text) < LARGE][:55]
    assert len({kind for kind, _ in documents}) > 8
    with (
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as near,
        with_keys(near, tmp_path, "mallory") as keys,
    ):
        far = keys["mallory"]
        worker = near.workers()[0].pid
        with peaks({"worker": psutil.Process(worker)}) as memory:
            found = attacked(far, documents, 7)
        assert found.unforeseen == []
        for side in ("client", "service"):
            ends = {end: count for end, count in found.ends.items() if end.startswith(side)}
            assert sum(ends.values()) == len(documents)
        assert found.ends["service: ran"] > 0 < found.ends["service: failed, program"]
        assert near.workers()[0].pid == worker
        assert 0 < memory["worker, children"] < MOST_BYTES
        result: Any = far.run(hostile_sequences.originals()[2], shots=20, seed=1)
        assert sum(result.counts.values()) == 20
        assert math.isfinite(result.error)


def test_names_that_a_terminal_obeys_are_refused_before_they_are_shown(env: Client) -> None:
    text = hostile_sequences.originals()[2]
    for name in ("\x1b[31m", "\ud800", "x" * 300):
        atom, channel = (json.loads(text) for _ in range(2))
        atom["register"][0]["name"] = name
        channel["channels"] = {"mw": name}
        for document in (atom, channel):
            error = fails(SimenvError, "", env.submit, json.dumps(document))
            assert error.message.isprintable()
            assert len(error.message) < 1_000

"""Circuits in parts, through messages of the service."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from service import ServiceHarness

from simenv.model import TaskOptions, TaskParts
from simenv.wire.messages import client as m


@pytest.fixture
def bench(tmp_path: Path) -> ServiceHarness:
    harness = ServiceHarness(tmp_path)
    harness.join()
    return harness


def asked(bench: ServiceHarness, parts: TaskParts, key: str) -> m.Accepted | m.Refused:
    answer = bench.submit(key=key, terms=TaskOptions(parts=parts, ranks=1))
    assert isinstance(answer, m.Accepted | m.Refused), answer
    return answer


def test_key_of_a_part_stands_for_it_whatever_worker_is_preferred(bench: ServiceHarness) -> None:
    parts = TaskParts((1,), 5.0, (), "main-0")
    task = asked(bench, parts, "part")
    assert isinstance(task, m.Accepted)
    again = asked(bench, msgspec.structs.replace(parts, worker="main-1"), "part")
    assert isinstance(again, m.Accepted)
    assert again.first == task.first
    other = asked(bench, msgspec.structs.replace(parts, keep_s=6.0), "part")
    assert isinstance(other, m.Refused)
    assert other.refusals[0].code == "key_conflict"

"""A disk that is really full: keys are revoked, old results go, and the service takes up again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_transport import MemoryConnection
from reservation_harness import ReservationHarness
from service import filed
from small_disk import fill, small_disk

from simenv.result_files import attempt_file
from simenv.wire.keyfiles import read_keys
from simenv.wire.messages import client as m
from simenv.wire.messages.credentials import Keys, RevokeKey

MIB = 2**20


@pytest.fixture
def office(tmp_path: Path) -> Iterator[ReservationHarness]:
    with small_disk(tmp_path / "disk", 416 * MIB) as folder:
        harness = ReservationHarness(
            folder, results={"keep_free_gib": 1 / 1024}, durability="accepted"
        )
        harness.join()
        harness.loop.result_requests.start()
        yield harness
        harness.loop.result_requests.stop()
        harness.journal._db.close()


def order(office: ReservationHarness, peer: MemoryConnection, key: str) -> m.Accepted | m.Refused:
    return office.submit(key=key, peer=peer)


def end(office: ReservationHarness, size_bytes: int = 0) -> Path:
    """The task that was sent ends, with a file of results if it has a size."""
    (task,) = office.assigned()
    root = office.loop.result_requests.root
    if size_bytes:
        office.send_results(filed(root, task, size_bytes))
    else:
        office.finish([task])
    return root / attempt_file(task.task, task.attempt)


def until_trouble(office: ReservationHarness) -> m.Refusal:
    """Fill the disk, and submit until a commit does not fit."""
    fill(office.folder)
    for number in range(2_000):
        answer = order(office, office.ben, f"~fill{number}")
        if isinstance(answer, m.Refused):
            return answer.refusals[0]
    raise AssertionError("the disk is not full")


def test_submission_on_full_disk_is_refused_and_service_lives(office: ReservationHarness) -> None:
    result = until_trouble(office)
    assert result.code in ("journal", "insufficient")
    assert "disk" in result.message + result.hint
    assert office.get(m.Status, m.GetStatus(1)).info.queued >= 0


def test_key_is_revoked_in_memory_and_in_keys_file_on_full_disk(office: ReservationHarness) -> None:
    until_trouble(office)
    fill(office.folder, "again")  # also what the spare file of the journal has left
    assert office.get(Keys, RevokeKey(1, "ana"), office.ops)
    assert "ana" not in office.key_commands.names
    assert [key.name for key in read_keys(office.folder / "keys.json")] == ["ben", "ops"]


def test_tasks_are_accepted_after_removals_from_full_disk(office: ReservationHarness) -> None:
    assert isinstance(order(office, office.ana, "~a"), m.Accepted)
    path = end(office, 16 * MIB)
    until_trouble(office)
    fill(office.folder, "again")
    done = office.collected(0.0)
    assert (done.freed.files, done.freed.file_bytes) == (1, 16 * MIB)
    assert not path.exists()
    office.step()
    assert isinstance(order(office, office.ben, "~b"), m.Accepted)


def test_prune_frees_what_its_hint_named_though_other_results_took_what_was_released(
    office: ReservationHarness,
) -> None:
    for number in range(60):  # more records without files than one transaction removes
        assert isinstance(order(office, office.ana, f"~small{number}"), m.Accepted)
        end(office)
    paths = []
    for number in range(3):
        assert isinstance(order(office, office.ana, f"~a{number}"), m.Accepted)
        paths.append(end(office, 16 * MIB))
    until_trouble(office)
    fill(office.folder, "again")
    refused = order(office, office.ben, "~late")
    assert "removes old results: simenv prune" in refused.refusals[0].hint
    own = office.loop.result_requests.disk_refusal("")
    assert "`simenv prune --older-than 0s` frees 48.0 MiB: 3 files of results" in own.hint
    free = shutil.disk_usage(office.folder).free
    done = office.collected(0.0)
    assert (done.freed.files, done.freed.file_bytes) == (3, 48 * MIB)
    # The journal takes a little of it: the removal itself is recorded.
    assert shutil.disk_usage(office.folder).free >= free + 47 * MIB
    assert not any(path.exists() for path in paths)
    assert isinstance(order(office, office.ben, "~b"), m.Accepted)


def test_full_disk_is_an_event_once_and_so_is_its_end(office: ReservationHarness) -> None:
    assert isinstance(order(office, office.ana, "~a"), m.Accepted)
    end(office, 64 * MIB)
    until_trouble(office)
    fill(office.folder, "again")

    def disk_events() -> list[str]:
        office.loop._next_tick_ns = 0
        office.step()
        return [f"{each.kind} {each.message}" for each in office.events("disk.")]

    (full,) = disk_events()
    assert full.startswith("disk.full ")
    assert "`simenv prune --older-than 0s` frees 64.0 MiB: 1 files of results" in full
    assert disk_events() == [full]
    office.collected(0.0)
    assert [each.split()[0] for each in disk_events()] == ["disk.full", "disk.freed"]

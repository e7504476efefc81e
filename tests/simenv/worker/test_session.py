"""What a worker answers must fit a message."""

from __future__ import annotations

from simenv.model import Origin
from simenv.wire import codec
from simenv.wire import messages as m
from simenv.worker import session

ORIGIN = Origin("main-0", "here", 1, "test")
CHUNK = m.Assign(1, 2**20, False, "statevector", "test", [], [])


def test_results_too_large_together_travel_apart() -> None:
    half = session.ANSWER_BYTES // 2 + 1
    results = [m.Finished(task, 1, 2, bytes(half), 0) for task in (1, 2)]
    bodies = session.packed(ORIGIN, CHUNK, results)
    found = [codec.from_worker(body) for body in bodies]
    assert [done.results for done in found if isinstance(done, m.Done)] == [
        results[:1],
        results[1:],
    ]


def test_a_result_too_large_for_any_message_is_a_failure() -> None:
    small = m.Finished(1, 1, 2, b"r", 0)
    large = m.Finished(2, 7, 2, bytes(m.MAX_MESSAGE_BYTES), 0)
    bodies = session.packed(ORIGIN, CHUNK, [small, large])
    assert all(len(body) <= session.ANSWER_BYTES for body in bodies)
    first, second = (codec.from_worker(body) for body in bodies)
    assert isinstance(first, m.Done)
    assert isinstance(second, m.Done)
    assert first.results == [small]
    (failed,) = second.results
    assert (failed.task, failed.attempt) == (2, 7)
    assert m.STATES[failed.state] == "FAILED"
    failure = codec.failure(failed.payload)
    assert failure.reason == "limit"
    assert str(session.ANSWER_BYTES) in failure.message

"""Every invariant of the machine in one function: on in tests and drills, off in production."""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.scheduler.state import State
from simenv.scheduler.values import Phase, Record


def check(state: State) -> None:
    """AssertionError with the broken rule, if one is."""
    waiting: dict[int, Record] = {}
    for pool in state.pools.values():
        listed = list(pool.queue)
        assert len(listed) == len(pool.queue), f"{pool.spec.name}: queue count is off"
        assert len({r.number for r in listed}) == len(listed), "a task waits twice"
        waiting.update((r.number, r) for r in listed)
        assert abs(pool.queue.backlog_us - sum(r.cost_us for r in listed)) < 1.0
        assert all(state.workers.get(n) is w for n, w in pool.workers.items()), "stray worker"
    held = {}
    granted = memory = 0
    for worker in state.workers.values():
        for number, record in worker.held.items():
            assert number not in held, f"task {number} is held twice"
            held[number] = record
            assert record.worker == worker.name, f"task {number} names another worker"
            assert record.phase in (Phase.SENT, Phase.RUNNING), f"held task {number} waits"
            assert record.fence == state.fence(record), f"task {number} has an old fence"
        assert bool(worker.held) == (worker.state == WorkerState.BUSY), f"{worker.name} state"
        assert bool(worker.held) == (worker.slots > 0), f"{worker.name} holds slots idly"
        suspects = sum(bool(r.incident) for r in worker.held.values())
        assert not suspects or len(worker.held) == 1, "a suspect has company"
        granted += worker.slots
        memory += worker.memory_bytes
    assert not waiting.keys() & held.keys(), "a task waits and is held"
    assert waiting.keys() | held.keys() == state.tasks.keys(), "a task is nowhere, or unknown"
    assert granted + state.free_slots == state.limits.slots, "slots leak"
    assert memory + state.free_memory == state.limits.memory_bytes, "memory leaks"
    assert state.free_slots >= 0, "more slots granted than there are"
    assert state.free_memory >= 0, "more memory granted than there is"
    running = sum(r.phase == Phase.RUNNING for r in state.tasks.values())
    assert state.running == running, f"{state.running} running, {running} found"
    owned = {n: r for mine in state.owned.everything().values() for n, r in mine.items()}
    assert owned == {n: r for n, r in state.tasks.items() if r.batch.owner}, "an owner's are off"
    size = sum(r.size_bytes for r in state.tasks.values())
    assert state.queued_bytes == size, "queued bytes are off"

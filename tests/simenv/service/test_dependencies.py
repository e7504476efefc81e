"""Dependencies, parts and amplitudes at the service."""

from pathlib import Path

import msgspec
import pytest
from qiskit import QuantumCircuit
from service import ServiceHarness, spec

from simenv import model
from simenv.client.circuits import load
from simenv.errors import NotFoundError
from simenv.model.task import task_name
from simenv.service.admission.background_checks import look
from simenv.service.admission.submissions import refusal_of_parents
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.client import STATES
from simulators.catalog import builtin_card, state_bytes
from simulators.catalog.costs import CostQuery

BOOM = codec.encode(m.Failure("engine", "boom", "", "node", ""))


@pytest.fixture
def bench(tmp_path: Path) -> ServiceHarness:
    harness = ServiceHarness(tmp_path)
    harness.join()
    return harness


def after(bench: ServiceHarness, *parents: int, key: str = "") -> int:
    """The number of a new task that comes after these."""
    terms = model.TaskOptions(after=parents)
    answer = bench.submit(key=key or f"~{bench.state.tasks.next_number}", terms=terms)
    return answer.first


def refused(bench: ServiceHarness, *parents: int, key: str = "~r") -> m.Refusal:
    return bench.refused(key=key, terms=model.TaskOptions(after=parents))


def end(bench: ServiceHarness, task: int) -> tuple[model.TaskState, m.Failure | None]:
    result = bench.loop.completions.find(task)
    assert result is not None, f"task {task} has not ended"
    state = STATES[result[1].state]
    return state, None if state is model.TaskState.DONE else codec.failure(result[1].payload)


def reason(bench: ServiceHarness, task: int) -> str:
    return bench.get(m.Queue, m.GetTasks(7, [task])).tasks[0].reason


def test_child_is_assigned_when_its_parent_is_done(bench: ServiceHarness) -> None:
    parent = after(bench)
    child = after(bench, parent)
    tasks = bench.assigned()
    assert [task.task for task in tasks] == [parent]
    assert reason(bench, child) == f"waits for {task_name(parent)} (QUEUED)"
    listed = bench.get(m.Queue, m.GetQueue(8))
    assert [info.id for info in listed.tasks] == [task_name(parent), task_name(child)]
    assert listed.tasks[1].wait_us == -1.0
    bench.finish(tasks)
    assert [task.task for task in bench.assigned()] == [child]


def test_failed_parent_ends_its_children_with_its_message(bench: ServiceHarness) -> None:
    child = after(bench, after(bench))
    grandchild = after(bench, child)
    bench.finish(bench.assigned(), model.TaskState.FAILED, BOOM)
    bench.step()
    state, failure = end(bench, child)
    assert (state, failure.reason) == (model.TaskState.FAILED, "dependency")
    assert failure.message == "task t-1, which it comes after, ended as FAILED: boom"
    assert failure.hint.startswith("t-1 failed first: simenv result t-1")
    last = end(bench, grandchild)[1]
    expected = "task t-2, which it comes after, ended as FAILED: it was not run either"
    assert (last.message, last.hint) == (expected, failure.hint)


def test_done_parents_are_no_obstacle_and_failed_ones_refuse(bench: ServiceHarness) -> None:
    done, failed = after(bench), after(bench)
    tasks = bench.assigned()
    bench.finish([task for task in tasks if task.task == done])
    bench.finish([task for task in tasks if task.task == failed], model.TaskState.FAILED, BOOM)
    child = after(bench, done)
    assert [task.task for task in bench.assigned()] == [child]
    error = refused(bench, done, failed)
    assert (error.code, error.message) == ("option", "after: task t-2 has ended as FAILED: boom")
    assert "leave it out" in error.hint


def test_unknown_tasks_and_those_of_others_are_not_found(bench: ServiceHarness) -> None:
    own = after(bench)
    assert refused(bench, own, 5).code == "not_found"
    error = refused(bench, 2**40)
    assert error.message == f"after: there is no task {task_name(2**40)} of yours here (any longer)"
    assert refused(bench, -1).code == "not_found"
    for _ in ("unfinished", "done"):
        result = refusal_of_parents(bench.state, bench.loop.completions, "somebody", [own])
        assert isinstance(result, NotFoundError)
        bench.finish(bench.assigned())


def test_more_parents_than_the_limit_are_refused(bench: ServiceHarness) -> None:
    error = refused(bench, *range(1, model.MAX_PARENTS + 2))
    assert (error.code, str(model.MAX_PARENTS) in error.message) == ("option", True)


def test_parents_are_part_of_the_content_of_a_key(bench: ServiceHarness) -> None:
    first, second = after(bench), after(bench)
    child = after(bench, first, key="once")
    assert after(bench, first, key="once") == child
    assert refused(bench, second, key="once").code == "key_conflict"
    assert refused(bench, key="once").code == "key_conflict"


def test_restart_keeps_children_waiting_and_runs_those_of_done(bench: ServiceHarness) -> None:
    first, second = after(bench), after(bench)
    waits, runs = after(bench, first, second), after(bench, first)
    bench.finish([task for task in bench.assigned() if task.task == first])
    bench.restart()
    bench.join()
    sent = bench.assigned()
    assert {task.task for task in sent} == {second, runs}
    assert reason(bench, waits) == f"waits for {task_name(second)} (QUEUED)"
    bench.finish([task for task in sent if task.task == second])
    assert [task.task for task in bench.assigned()] == [waits]


def test_crash_between_both_ends(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    child = after(bench, after(bench))
    grandchild = after(bench, child)
    tasks = bench.assigned()
    monkeypatch.setattr("simenv.scheduler.events.stops.MAX_ENDED", 0)  # no end is stored
    bench.finish(tasks, model.TaskState.FAILED, BOOM)
    assert bench.state.tasks.dependencies.failed
    assert bench.loop.completions.find(child) is None
    monkeypatch.undo()
    bench.restart()
    failure = end(bench, child)[1]
    assert failure.message == "task t-1, which it comes after, ended as FAILED: boom"
    assert failure.hint.startswith("t-1 failed first")
    last = end(bench, grandchild)[1]
    assert last.message == "task t-2, which it comes after, ended as FAILED: it was not run either"
    assert not bench.state.tasks


def test_submit_in_the_pass_in_which_its_parent_fails_is_refused(bench: ServiceHarness) -> None:
    """The end of the parent is not stored yet when the submit is examined."""
    parent = after(bench)
    (task,) = bench.assigned()
    index = STATES.index(model.TaskState.FAILED)
    result = m.AttemptResult(task.task, task.attempt, index, BOOM, 0, "", 0, 1, 10)
    ended = bench.scheduler.tasks_finished("main-0", [result], 0)
    origin = model.Origin("main-0", "node", 1, "t")
    bench.loop.executor.finish(origin, m.AttemptResults([result]), ended)
    assert bench.journal.has_pending_ends
    assert "t-1 has ended as FAILED: boom" in refused(bench, parent).message


def asked(bench: ServiceHarness, parts: model.TaskParts, key: str) -> m.Accepted | m.Refused:
    return bench.submit(key=key, terms=model.TaskOptions(parts=parts, ranks=1))


def test_key_of_a_part_stands_for_it_whatever_worker_is_preferred(bench: ServiceHarness) -> None:
    parts = model.TaskParts((1,), 5.0, (), "main-0")
    task = asked(bench, parts, "part")
    assert asked(bench, msgspec.structs.replace(parts, worker="main-1"), "part").first == task.first
    other = asked(bench, msgspec.structs.replace(parts, keep_s=6.0), "part")
    assert other.refusals[0].code == "key_conflict"


WIDTH = 26


def measuring(num_qubits: int = WIDTH) -> QuantumCircuit:
    """A qubit is measured and used again."""
    circuit = QuantumCircuit(num_qubits, 1)
    circuit.h(range(num_qubits))
    circuit.measure(0, 0)
    circuit.h(0)
    return circuit


def resetting() -> QuantumCircuit:
    """A first operation that branches, on qubits that a part has used."""
    circuit = QuantumCircuit(WIDTH, 1)
    circuit.reset(0)
    circuit.h(0)
    return circuit


def states_charged(circuit: QuantumCircuit, end: int) -> int:
    """States in the memory that the engine is expected to need."""
    parts = {"parts": model.TaskParts((end,), 5.0), "ranks": 1}
    terms = model.TaskOptions(engine="statevector", outputs=("probabilities",), **parts)
    _, profile = look(load(circuit).packed, terms)
    card = builtin_card("statevector")
    profile = card.effective_profile(profile, ())
    return card.costs.memory_bytes(profile, CostQuery()) // state_bytes(WIDTH)


def test_parts_are_charged_with_their_states() -> None:
    circuit = measuring()
    assert states_charged(circuit, len(circuit.data)) == 2
    part = measuring()
    end = len(part.data)
    assert states_charged(part.compose(QuantumCircuit(WIDTH, 1)), end) == 2
    for then in (measuring(), resetting()):
        result = part.compose(then)
        assert (states_charged(result, len(result.data)), states_charged(result, end)) == (2, 9)


def asked_for_amplitudes(bench: ServiceHarness, *strings: str) -> m.Accepted | m.Refused:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    observable = model.Observable(strings, b"")
    terms = model.TaskOptions(outputs=("amplitudes",), observables=(observable,))
    return bench.submit(spec(program=load(circuit).packed), key="one", terms=terms)


def test_key_stands_for_strings_in_order_and_restart_keeps_them(bench: ServiceHarness) -> None:
    task = asked_for_amplitudes(bench, "00", "11")
    assert asked_for_amplitudes(bench, "00", "11").first == task.first
    assert asked_for_amplitudes(bench, "11", "00").refusals[0].code == "key_conflict"
    bench.restart()
    worker = bench.join()
    bodies = iter(lambda: worker.receive(0.0), None)
    chunks = [each for each in map(codec.to_worker, bodies) if isinstance(each, m.AssignChunk)]
    assert [each.bit_strings for chunk in chunks for each in chunk.terms] == [("00", "11")]

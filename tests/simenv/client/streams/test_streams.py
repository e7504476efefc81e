"""Streams of many tasks, and their delivery."""

import gc
import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from busy_circuits import ENDLESS
from circuits import bell
from failing import fails
from hypothesis import given, strategies as st
from linked_devices import PERFECT, install_linked
from live import environment
from qiskit import QuantumCircuit
from qiskit.circuit.library import HGate
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit.transpiler import PassManager
from qiskit.transpiler.passes import InverseCancellation
from waiting import until

import simenv
from simenv.client import stream as streams, stream_queues
from simenv.client.result import Result
from simenv.client.stream import DeliverySequence, Order, Stream
from simenv.client.stream_queues import StreamCompletions, StreamEvents, StreamTask
from simenv.client.stream_stages import (
    CircuitPart,
    Cutting,
    Distribution,
    SplitCircuit,
    reduce_gates,
)
from simenv.errors import OptionError, ProgramError, TimedOutError
from simenv.model import Event

WAIT_S = 120.0


def work(
    chance: random.Random, sizes: tuple[int, ...] = (2, 2, 3, 4, 16, 17), layers: int = 8
) -> QuantumCircuit:
    """A circuit of one of these widths: the widest take a thousand times as long."""
    size = chance.choice(sizes)
    circuit = QuantumCircuit(size)
    for _ in range(layers):
        circuit.rx(chance.random(), range(size))
        for qubit in range(size - 1):
            circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return circuit


def test_ordered_streams_complete_in_order_and_refuse_wrong_options(env: simenv.Client) -> None:
    chance = random.Random(11)
    queue = StreamCompletions()
    with Stream(env, order="ordered", shots=20) as stream:
        stream.bind(queue)
        entries = [stream.submit(work(chance)) for _ in range(150)]
    assert list(queue) == entries
    assert all(task.result(WAIT_S).shots == 20 for task in entries)
    fails(TypeError, "there is no option shot", Stream, env, shot=20)
    fails(OptionError, "shots=-1", Stream, env, shots=-1)


def test_queue_bound_twice_receives_each_completion_once(env: simenv.Client) -> None:
    queue = StreamCompletions()
    with Stream(env, shots=20) as stream:
        stream.bind(queue)
        stream.bind(queue)
        entries = [stream.submit(bell()) for _ in range(5)]
    assert sorted(task.number for task in queue) == [task.number for task in entries]
    fails(OptionError, "str is no queue of a stream", stream.bind, "counts")


def test_groups_of_an_ordered_stream_follow_each_other(env: simenv.Client) -> None:
    queue = StreamCompletions()
    with Stream(env, order="ordered", shots=20) as stream:
        stream.bind(queue)
        before = stream.submit(work(random.Random(1)))
        with stream.group("parallel") as group:
            inside = {group.submit(work(random.Random(seed))) for seed in range(20)}
        after = stream.submit(bell())
    delivered = list(queue)
    assert delivered[0] is before
    assert set(delivered[1:21]) == inside
    assert delivered[21] is after
    fails(OptionError, "the group is closed", group.submit, bell())


def test_typed_queues_receive_their_types_alone(env: simenv.Client) -> None:
    counts, values = StreamCompletions("counts"), StreamCompletions("expectation", "statevector")
    failed = StreamCompletions("failed")
    plain = bell().remove_final_measurements(inplace=False)
    with Stream(env, shots=10) as stream:
        for queue in (counts, values, failed):
            stream.bind(queue)
        sampled = stream.submit(bell())
        exact = stream.submit(plain, shots=None, outputs="statevector")
        valued = stream.submit(plain, observables="ZZ")
        late = stream.submit(ENDLESS)
        assert late.cancel()
    assert list(counts) == [sampled]
    assert sorted(task.number for task in values) == [exact.number, valued.number]
    assert list(failed) == [late]
    assert late.exception() is not None
    fails(OptionError, "a queue of 'count'", StreamCompletions, "count")


def test_refused_circuit_is_a_failed_completion(env: simenv.Client) -> None:
    queue = StreamCompletions("failed")
    with Stream(env) as stream:
        stream.bind(queue)
        refused = stream.submit(bell(), pool="nowhere")
    assert list(queue) == [refused]
    fails(simenv.errors.SimenvError, "nowhere", refused.result, WAIT_S)


def test_dynamic_placement_spreads_and_explicit_placement_holds(env: simenv.Client) -> None:
    queue = StreamCompletions()
    devices = ("superconducting-lattice", "trapped-ions")
    with Stream(env, devices=devices, shots=10) as stream:
        stream.bind(queue)
        spread = [stream.submit(bell(), shots=10_000) for _ in range(6)]  # some at once
        named = [stream.submit(bell(), device="neutral-atoms") for _ in range(2)]
    assert {task.target for task in spread} == set(devices)
    for task in queue:
        assert task.result(WAIT_S).device == task.target
    assert [task.target for task in named] == ["neutral-atoms"] * 2


def test_pipeline_runs_functions_and_pass_managers_before_submission(env: simenv.Client) -> None:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.h(0)
    circuit.x(0)
    entries: list[int] = []

    def noted(circuit: QuantumCircuit) -> QuantumCircuit:
        entries.append(circuit.size())
        return circuit.measure_all(inplace=False)

    passes = PassManager([InverseCancellation([HGate()])])
    with Stream(env, pipeline=[passes, noted, reduce_gates], shots=10) as stream:
        assert stream.submit(circuit).result(WAIT_S).counts == {"1": 10}
    assert entries == [1]

    def broken(_circuit: QuantumCircuit) -> QuantumCircuit:
        raise ValueError("no such qubit")

    with Stream(env, pipeline=[broken]) as stream:
        fails(ProgramError, "broken of the pipeline: no such qubit", stream.submit, circuit)
        assert stream.wait(0.0)
    fails(OptionError, "int is no stage", Stream, env, pipeline=[3])


class Halves:
    """Splits a circuit into two runs of half the shots."""

    def split(self, circuit: Any) -> SplitCircuit:
        parts = [CircuitPart(circuit, {"shots": 50, "seed": seed}) for seed in (1, 2)]
        return SplitCircuit(parts, lambda results: sum(each.shots for each in results))


def test_split_circuits_are_one_completion(env: simenv.Client) -> None:
    queue = StreamCompletions("counts")
    with Stream(env, pipeline=[Halves()]) as stream:
        stream.bind(queue)
        entries = [stream.submit(bell()) for _ in range(3)]
    assert sorted(task.number for task in queue) == [0, 1, 2]
    assert [task.result(WAIT_S) for task in entries] == [100] * 3
    fails(OptionError, "two stages that split", Stream, env, pipeline=[Halves(), Halves()])


class Twins:
    """Splits a circuit into two runs of it."""

    def split(self, circuit: Any) -> SplitCircuit:
        return SplitCircuit([CircuitPart(circuit), CircuitPart(circuit)], list)


def coins() -> QuantumCircuit:
    circuit = QuantumCircuit(8)
    circuit.h(range(8))
    circuit.measure_all()
    return circuit


@pytest.mark.parametrize("options", [{"seed": 5}, {"idempotency_key": "coins"}])
def test_parts_have_random_numbers_each(env: simenv.Client, options: dict[str, Any]) -> None:
    with Stream(env, pipeline=[Twins()], shots=64, **options) as stream:
        entries = [stream.submit(coins()) for _ in range(2)]
    (one, other), again = (task.result(WAIT_S) for task in entries)
    assert one.seed != other.seed
    assert one.counts != other.counts
    assert [each.counts for each in again] == [one.counts, other.counts]
    assert (entries[0].tasks[0].id == entries[1].tasks[0].id) == ("idempotency_key" in options)
    assert one.task != other.task


def test_stage_may_give_its_parts_seeds_of_their_own(env: simenv.Client) -> None:
    with Stream(env, pipeline=[Halves()], seed=9) as stream:
        outcome = stream.submit(bell())
    assert [task.result(WAIT_S).seed for task in outcome.tasks] == [1, 2]


class HalfRefused:
    """Splits a circuit into two runs, of which the second is refused at once."""

    def split(self, circuit: Any) -> SplitCircuit:
        return SplitCircuit([CircuitPart(circuit, {"shots": shots}) for shots in (50, -1)], list)


def test_parts_of_a_circuit_that_is_refused_are_cancelled(env: simenv.Client) -> None:
    for completion in env.completions():
        env.ack(completion.seq)
    with Stream(env, pipeline=[HalfRefused()]) as stream:
        fails(OptionError, "shots=-1", stream.submit, ENDLESS)
        assert stream.wait(0.0)
    assert [each.state for each in env.completions()] == ["CANCELLED"]


class Splitting:
    """Splits a circuit as a test says."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def split(self, circuit: Any) -> Any:
        return self.result


@pytest.mark.parametrize(
    "result",
    [
        [bell()],
        SplitCircuit([], list),
        SplitCircuit([bell(), bell()], list),
        SplitCircuit(5, list),  # type: ignore[arg-type]
    ],
    ids=["list", "nothing", "circuits", "number"],
)
def test_stage_that_returns_no_parts_is_refused_by_name(env: simenv.Client, result: Any) -> None:
    with Stream(env, pipeline=[Splitting(result)]) as stream:
        fails(ProgramError, "stage Splitting of the pipeline returned no parts", stream.submit, 0)
        assert stream.wait(0.0)


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (CircuitPart(bell(), {"shot": 1}), TypeError),
        (CircuitPart(bell(), 7), TypeError),  # type: ignore[arg-type]
        (CircuitPart(object()), ProgramError),
    ],
    ids=["option", "options", "circuit"],
)
def test_first_part_does_not_outlive_a_second_that_is_garbage(
    env: simenv.Client, second: CircuitPart, error: type[Exception]
) -> None:
    stage = Splitting(SplitCircuit([CircuitPart(ENDLESS), second], list))
    with Stream(env, pipeline=[stage], devices=["ideal"]) as stream:
        fails(error, "", stream.submit, bell())
        assert stream.wait(0.0)
        assert set(stream._in_flight.values()) == {0}
    until(lambda: not env.status().queued + env.status().running)


@pytest.mark.parametrize("where", ["labels", "found"])
def test_circuit_cut_over_mesh_has_values_of_the_whole(env: simenv.Client, where: str) -> None:
    pytest.importorskip("qiskit_addon_cutting")
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.3 + 0.2 * qubit, qubit)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.cx(2, 3)
    circuit.rx(0.7, range(4))
    observables = ["ZZII", "IZZI", "XXXX", "IIIZ"]
    if where == "labels":
        cutting = Cutting(observables, labels="AABB", devices={"A": "ideal", "B": "ideal"})
    else:
        cutting = Cutting(observables, max_qubits=2)
    shots = 40_000
    with Stream(env, pipeline=[cutting], shots=shots, seed=5) as stream:
        task = stream.submit(circuit)
        result = task.result(WAIT_S)
    exact = [Statevector(circuit).expectation_value(SparsePauliOp(p)).real for p in observables]
    error = (result.sampling_overhead / shots) ** 0.5
    assert all(
        abs(value - right) < 5 * error
        for value, right in zip(result.expectations, exact, strict=True)
    ), (result.expectations, exact, error)
    assert all(isinstance(part, Result) for part in result.parts)
    if where == "labels":
        assert {part.device for part in result.parts} == {"ideal"}
        assert max(part.num_qubits for part in result.parts) >= 2


def test_circuit_distributed_over_linked_devices_has_values_of_the_whole(
    env: simenv.Client,
) -> None:
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.3 + 0.2 * qubit, qubit)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    observables = ["ZZII", "IZZI", "XXXX"]
    device = install_linked("streams-linked", {"east": PERFECT, "west": PERFECT}, links=1)
    modules = {"A": "east", "B": "west"}
    stages = [Distribution(device), Distribution(device, labels="AABB", modules=modules)]
    exact = [Statevector(circuit).expectation_value(SparsePauliOp(p)).real for p in observables]
    for stage in stages:
        with Stream(env, pipeline=[stage], observables=observables, shots=None) as stream:
            result = stream.submit(circuit).result(WAIT_S)
        assert result.expectations == pytest.approx(exact, abs=1e-9)
        assert result.device == device
    fails(
        OptionError, "no module for part 'B'", Distribution, device, labels="AB", modules={"A": "a"}
    )
    fails(OptionError, "without labels", Distribution, device, modules=modules)


def test_parts_of_a_cut_circuit_go_to_the_pools_named_for_them() -> None:
    pytest.importorskip("qiskit_addon_cutting")
    circuit = QuantumCircuit(4)
    circuit.h(range(4))
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    pools = [{"name": "east", "min": 1, "max": 1}, {"name": "west", "min": 1, "max": 1}]
    with environment(pools=pools) as live, live.client() as client:
        for labels, places in (("AABB", {"A": "east", "B": "west"}), (None, ["east", "west"])):
            width = {"labels": labels} if labels else {"max_qubits": 2}
            cutting = Cutting(["ZZII", "IIXX"], pools=places, **width)
            with Stream(client, pipeline=[cutting], shots=1_000) as stream:
                task = stream.submit(circuit)
                values = task.result(WAIT_S).expectations
            assert values[1] == pytest.approx(1.0, abs=0.5)
            assert {r.worker.partition("-")[0] for r in task.result().parts} == {"east", "west"}
    with pytest.raises(OptionError, match="no pool for part 'B'"):
        Cutting("ZZII", labels="AABB", pools={"A": "east"}).split(circuit)
    with pytest.raises(OptionError, match="2 parts for 1 pools"):
        Cutting("ZZII", max_qubits=2, pools=["east"]).split(circuit)
    with pytest.raises(OptionError, match="devices and pools of Cutting"):
        Cutting("ZZII", max_qubits=2, pools=["east"], devices=["fez"])


def test_queue_waits_no_longer_than_asked_and_ends_with_its_streams(env: simenv.Client) -> None:
    queue = StreamCompletions()
    first, second = Stream(env, shots=5), Stream(env, shots=5)
    for stream in (first, second):
        stream.bind(queue)
    fails(TimedOutError, "", queue.get, 0.01)
    heard: list[int] = []
    reader = threading.Thread(target=lambda: heard.extend(task.number for task in queue))
    reader.start()
    first.submit(bell())
    second.submit(bell())
    first.close()
    second.close()
    reader.join(WAIT_S)
    assert heard == [0, 0]
    fails(EOFError, "", queue.get)
    fails(OptionError, "the stream is closed", first.submit, bell())


class Journal:
    """A client whose environment has these events; `reads`: numbers after which it was asked."""

    def __init__(self, kinds: list[str]) -> None:
        self.history, self.reads = self, list[int]()
        self.entries = [Event(k, 0.0, kind, "", "") for k, kind in enumerate(kinds, start=1)]

    def newest_event(self) -> int:
        return 0

    def events(self, since: int) -> Iterator[Event]:
        self.reads.append(since)
        return iter(self.entries[since:])


def test_unread_queue_of_events_is_bounded_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_queues, "MAX_UNREAD_EVENTS", 3)
    monkeypatch.setattr(streams, "EVENTS_S", 0.001)
    journal = Journal(["outage", "worker.lost"] * 10)
    with Stream(journal) as stream:  # type: ignore[arg-type]
        queue = StreamEvents("outage")
        stream.bind(queue)
        until(lambda: len(queue) == 3)
        reads = len(journal.reads)
        assert [queue.get(WAIT_S).seq for _ in range(10)] == list(range(1, 21, 2))
        assert reads == 1, "nothing was asked for while the queue was full"
        until(lambda: journal.reads[-1] == 20)


TASKS = 10_000
WARM = 2_000  # deliveries after which the memory of the client's process may grow no more
GROWTH_BYTES = 32 << 20
STREAM_S = 240.0


def submitted(stream: Stream, circuits: list[QuantumCircuit], number: int) -> str:
    """Submit a circuit of the type that its number says."""
    chosen = circuits[number % len(circuits)]
    if number % 10 == 3:
        pool = "nowhere" if number % 100 == 3 else None
        bare = chosen.remove_final_measurements(inplace=False)
        stream.submit(bare, observables="Z" * chosen.num_qubits, shots=None, pool=pool)
        return "expectation" if pool is None else "failed"
    stream.submit(chosen, shots=20, seed=number)
    return "counts"


class Reader(threading.Thread):
    """Reads a queue to its end; of each completion it keeps the number alone."""

    def __init__(self, queue: StreamCompletions) -> None:
        super().__init__()
        self.queue = queue
        self.numbers: list[int] = []
        self.grown_bytes = 0
        self.start()

    def run(self) -> None:
        process = psutil.Process()
        before = 0
        for task in self.queue:
            self.numbers.append(task.number)
            if len(self.numbers) == WARM:
                before = process.memory_info().rss
        self.grown_bytes = process.memory_info().rss - before


@pytest.mark.parametrize("tasks", [300, pytest.param(TASKS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("order", ["ordered", "parallel"])
def test_each_task_is_delivered_once_over_a_lost_worker(
    env: simenv.Client, order: str, tasks: int
) -> None:
    chance = random.Random(3)
    circuits = [work(chance, (2, 2, 3, 4, 8, 12, 16), 4) for _ in range(200)]
    types = ("counts", "expectation", "failed")
    readers = {each: Reader(StreamCompletions(each)) for each in types}
    every, events = Reader(StreamCompletions()), StreamEvents("failure")
    expected: dict[str, list[int]] = {each: [] for each in types}
    with Stream(env, order=order) as stream:
        for reader in (*readers.values(), every):
            stream.bind(reader.queue)
        stream.bind(events)
        for number in range(tasks):
            if number == tasks // 3:
                os.kill(env.workers()[0].pid, signal.SIGKILL)
            expected[submitted(stream, circuits, number)].append(number)
        assert events.get(STREAM_S).kind == "worker.lost"
        assert stream.wait(STREAM_S)
    for reader in (*readers.values(), every):
        reader.join(STREAM_S)
    settle = list if order == "ordered" else sorted
    assert settle(every.numbers) == list(range(tasks))
    for each, reader in readers.items():
        assert settle(reader.numbers) == expected[each], each
    assert every.grown_bytes < GROWTH_BYTES or tasks < WARM
    gc.collect()
    assert not any(isinstance(each, StreamTask) for each in gc.get_objects())


@st.composite
def groups(draw: st.DrawFn) -> list[tuple[Order, int]]:
    return draw(st.lists(st.tuples(st.sampled_from(list(Order)), st.integers(0, 8)), max_size=6))


@given(st.sampled_from(list(Order)), groups(), st.randoms(use_true_random=False))
def test_once_ordered(order: Order, shapes: list[tuple[Order, int]], chance: random.Random) -> None:
    sequence = DeliverySequence[int](order)
    members: list[list[int]] = []
    states = []
    number = 0
    for group_order, size in shapes:
        state = sequence.open_group(group_order)
        value = list(range(number, number + size))
        for each in value:
            sequence.add(state, each)
        number += size
        members.append(value)
        states.append(state)
    steps = [("end", k) for k in range(number)] + [("close", k) for k in range(len(states))]
    chance.shuffle(steps)
    delivered: list[int] = []
    ended_at: dict[int, int] = {}
    for at, (kind, k) in enumerate(steps):
        if kind == "end":
            ended_at[k] = at
            delivered += sequence.ended(k)
            assert sequence.ended(k) == [], "told twice, delivered once"
        else:
            delivered += sequence.close(states[k])
        assert all(each in ended_at for each in delivered), "nothing is delivered before its end"
    assert (sorted(delivered), sequence.undelivered) == (list(range(number)), 0)
    place = {each: k for k, each in enumerate(delivered)}
    for (group_order, _), value in zip(shapes, members, strict=True):
        if group_order is Order.ORDERED:
            assert sorted(value, key=place.__getitem__) == value
    if order is Order.ORDERED:
        of = [k for k, value in enumerate(members) for _ in value]
        assert [of[each] for each in delivered] == sorted(of[each] for each in delivered)


def test_parallel_group_delivers_at_the_end_of_each_task() -> None:
    sequence = DeliverySequence[int](Order.PARALLEL)
    group = sequence.open_group(Order.PARALLEL)
    for number in range(3):
        sequence.add(group, number)
    assert [sequence.ended(number) for number in (2, 0, 1)] == [[2], [0], [1]]


def test_unknown_order_is_refused() -> None:
    fails(OptionError, "order='any'", Order.of, "any")

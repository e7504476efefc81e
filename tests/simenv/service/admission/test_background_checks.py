"""Checks in the background, calls, and the budget of decoding."""

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from failing import fails
from interpreter import python
from service import ServiceHarness, program, spec

from simenv import model
from simenv.errors import OptionError, ProtocolError, QueueFullError
from simenv.model import TaskOptions, TaskSpec, qubits_of
from simenv.service import event_loop, fair_queue
from simenv.service.admission import background_checks, submissions
from simenv.service.admission.background_checks import CheckPending, RunningChecks
from simenv.service.fair_queue import LARGE_BYTES, Decoding, FairThreads
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.explain import Explain, Explained
from simenv.wire.transport.sockets import PeerKind

GATES = 40_000


def large(sound: bool = True) -> bytes:
    """40,000 rotations of two qubits and their measurement: above BESIDE_BYTES."""
    ops = np.concatenate([np.zeros(GATES), np.ones(2)]).astype(np.uint16)
    qubits = np.concatenate([np.arange(GATES) % 2, [0, 1 if sound else 7]]).astype(np.uint16)
    made = msgspec.structs.replace(
        program(), ops=ops.tobytes(), qubits=qubits.tobytes(), params=np.full(GATES, 0.1).tobytes()
    ).packed()
    assert len(made) > background_checks.BESIDE_BYTES
    return made


class Held:
    """The look at large programs, stopped until the test lets it go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._look = background_checks.look

    def look(
        self, packed: bytes, terms: TaskOptions, _device: object = None
    ) -> background_checks.Looked:
        if len(packed) > background_checks.BESIDE_BYTES:
            self.begun.set()
            assert self.go_on.wait(60)
        return self._look(packed, terms)

    def ask(self, bench: ServiceHarness, *questions: m.FromClient) -> None:
        """Send, and let the service work until it looks at a large program."""
        for each in questions:
            bench.peer.send(codec.encode(each))
        while not self.begun.wait(0.001):
            bench.loop.run_once(timeout_s=0.0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held()
    monkeypatch.setattr(background_checks, "look", made.look)
    yield made
    made.go_on.set()


SUBMIT = m.Submit(7, "~large", 0, TaskOptions(), [spec(program=large())])
EXPLAIN = Explain(7, TaskOptions(), large(), 100)


@pytest.mark.parametrize("question", [SUBMIT, EXPLAIN], ids=["submit", "explain"])
def test_others_are_served(bench: ServiceHarness, held: Held, question: m.FromClient) -> None:
    other = bench.listener.connect(PeerKind.CLIENT, b"other")
    held.ask(bench, question)
    other.send(codec.encode(m.Submit(8, "~small", 0, TaskOptions(), [spec()])))
    other.send(codec.encode(m.Ping(9)))
    for _ in range(20):
        bench.loop.run_once(timeout_s=0.0)
    assert {type(answer) for answer in bench.heard(other)} == {m.Accepted, m.Pong}
    assert bench.heard() == []
    held.go_on.set()
    bench.step()
    (answer,) = bench.heard()
    assert isinstance(answer, m.Accepted | Explained)
    assert answer.request == 7


def test_examined_client_hears_from_service(bench: ServiceHarness, held: Held) -> None:
    held.ask(bench, EXPLAIN)
    bench.peer.send(codec.encode(m.Ping(0)))
    for _ in range(20):
        bench.loop.run_once(timeout_s=0.0)
    assert [type(answer) for answer in bench.heard()] == [m.Pong]
    held.go_on.set()
    bench.step()
    assert [type(answer) for answer in bench.heard()] == [Explained]


def test_large_invalid_program_is_refused_and_valid_one_accepted(bench: ServiceHarness) -> None:
    refused = bench.submit(spec(program=large(sound=False)), spec(program=large(sound=False)))
    assert [one.code for one in refused.refusals] == ["program", "program"]
    refused = bench.refusal(Explain(1, TaskOptions(), large(sound=False), 10))
    accepted = bench.submit(spec(program=large()), spec(program=large(), seed=2))
    assert accepted.count == 2


def test_polled_seldom(bench: ServiceHarness, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    held.ask(bench, SUBMIT)
    admission = bench.loop.submit_queue.admission
    asked = []
    admit_some = admission.admit_some
    monkeypatch.setattr(admission, "admit_some", lambda *args: asked.append(1) or admit_some(*args))
    steps = 20
    for _ in range(steps):
        bench.loop.run_once(timeout_s=0.0)
    assert len(asked) <= 2 * steps


def test_event_loop_is_idle_while_program_is_checked(bench: ServiceHarness, held: Held) -> None:
    held.ask(bench, EXPLAIN, m.Ping(8))
    bench.loop.run_once(timeout_s=0.0)
    assert bench.loop.query_queue.parked
    assert not bench.loop.query_queue.busy
    assert bench.loop._poll_timeout_s() > 0.0
    held.go_on.set()
    bench.step()
    assert [answer.request for answer in bench.heard()] == [7, 8]  # in their order
    assert not bench.loop.query_queue.parked


def test_submit_whose_pause_ends_between_two_looks_at_the_clock_does_not_wait_for_the_next_tick(
    bench: ServiceHarness, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = bench.loop
    held.ask(bench, SUBMIT)
    loop.run_once(timeout_s=0.0)
    monkeypatch.setattr(type(loop.result_requests), "is_urgent", False)  # polls as often
    monkeypatch.setattr(loop, "_next_tick_ns", time.monotonic_ns() + 10**12)
    monkeypatch.setattr(loop.submit_queue, "_parked_until_ns", 2)
    monkeypatch.setattr(
        submissions, "time", SimpleNamespace(monotonic_ns=itertools.count(1).__next__)
    )
    assert loop._poll_timeout_s() <= event_loop.BACKGROUND_POLL_S


def test_background_checks_alternate_between_owners(held: Held) -> None:
    thread = FairThreads()
    check = partial(background_checks.look, large(), TaskOptions())
    order: list[str] = []
    futures = []
    for name in ("a1", "a2", "a3", "b1"):
        future = thread.submit(name[0], check)
        future.add_done_callback(lambda _, name=name: order.append(name))
        futures.append(future)
        assert held.begun.wait(60)  # a1 is being looked at before another comes
    held.go_on.set()
    for future in futures:
        future.result(60)
    assert order.index("b1") < order.index("a3")
    assert thread.take_spent_ns("a") > 0
    assert thread.take_spent_ns("a") == 0


def test_each_owner_has_a_thread_and_one_check_at_a_time() -> None:
    threads, begun, go_on = FairThreads(2), [threading.Event() for _ in range(3)], threading.Event()

    def check(number: int) -> int:
        begun[number].set()
        assert go_on.wait(60)
        return number

    first = threads.submit("ana", partial(check, 0))
    second = threads.submit("ana", partial(check, 1))
    other = threads.submit("bob", partial(check, 2))
    assert begun[0].wait(60)
    assert begun[2].wait(60)  # whatever ana has waiting
    assert not begun[1].is_set()
    assert not second.running()
    go_on.set()
    assert [each.result(60) for each in (first, second, other)] == [0, 1, 2]


def test_a_check_that_is_forgotten_is_not_run() -> None:
    threads, begun, go_on = FairThreads(), threading.Event(), threading.Event()
    threads.submit("ana", lambda: (begun.set(), go_on.wait(60)))
    assert begun.wait(60)
    done: list[int] = []
    forgotten = threads.submit("ana", lambda: done.append(1))
    last = threads.submit("ana", lambda: done.append(2))
    assert forgotten.cancel()
    go_on.set()
    last.result(60)
    assert done == [2]


@pytest.mark.parametrize("question", [SUBMIT, EXPLAIN], ids=["submit", "explain"])
def test_nothing_is_checked_for_clients_that_have_left(
    bench: ServiceHarness, held: Held, question: m.FromClient
) -> None:
    """Of two clients with large programs the second one leaves while the first one's is checked."""
    loop, other = bench.loop, bench.listener.connect(PeerKind.CLIENT, b"other")
    held.ask(bench, EXPLAIN)
    for number in range(3):
        other.send(codec.encode(msgspec.structs.replace(question, request=number)))
    for _ in range(20):
        loop.run_once(timeout_s=0.0)
    assert loop.submit_queue.pending_bytes or loop.query_queue.pending_bytes
    other.close()
    held.begun.clear()
    for _ in range(20):
        loop.run_once(timeout_s=0.0)
    assert not loop.submit_queue.pending_bytes
    held.go_on.set()
    bench.step()
    assert [answer.request for answer in bench.heard()] == [7]
    assert not held.begun.is_set()
    assert not loop.query_queue.pending_bytes


def test_a_check_that_another_client_waits_for_is_begun_again(
    bench: ServiceHarness, held: Held
) -> None:
    other = bench.listener.connect(PeerKind.CLIENT, b"other")
    held.ask(bench, EXPLAIN)
    bench.peer.send(codec.encode(SUBMIT))
    other.send(codec.encode(msgspec.structs.replace(SUBMIT, request=8)))
    for _ in range(20):
        bench.loop.run_once(timeout_s=0.0)
    other.close()
    for _ in range(20):
        bench.loop.run_once(timeout_s=0.0)
    held.go_on.set()
    bench.step()
    assert {type(each) for each in bench.heard()} == {Explained, m.Accepted}


def test_checks_of_small_programs_are_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide programs of a few kilobytes, each with a trial of engines, use up no one's budget."""
    monkeypatch.setattr(background_checks, "_takes_long", lambda *_, **__: True)
    monkeypatch.setattr(background_checks, "CHECKS", FairThreads(1))
    for packed, is_charged in ((large(), True), (program().packed(), False)):
        checks, go_on = RunningChecks(), threading.Event()
        background_checks.CHECKS.submit("dave", go_on.wait)  # none ends before it is asked for
        pending = fails(CheckPending, "", checks.look, lambda: 1, packed, TaskOptions(), "carol")
        go_on.set()
        pending.future.result(60)
        background_checks.CHECKS.submit("dave", int).result(60)  # the time is counted by then
        assert (background_checks.CHECKS.take_spent_ns("carol") > 0) is is_charged


WIDE = """
import threading
from service import program
from simenv.model import TaskOptions
from simenv.service.admission import background_checks
from simenv.service.fair_queue import FairThreads
from simenv.service.admission.background_checks import RunningChecks, CheckPending
from simulators.compiler import warmup
from simenv.config import kernel_cache

warmup.prepare(kernel_cache())
places, look = [], background_checks.look
def noted(*args):
    places.append("here" if threading.current_thread() is threading.main_thread() else "beside")
    return look(*args)
background_checks.look = noted
checks = RunningChecks()
narrow, wide = program(2).packed(), program(18).packed()
checks.look(lambda: 1, narrow, TaskOptions(), "")
try:
    # Its kernels may be loaded already when it asks.
    checks.look(lambda: 2, wide, TaskOptions(), "")
except CheckPending as pending:
    pending.future.result(120)
    assert checks.look(lambda: 2, wide, TaskOptions(), "")[0].num_qubits == 18
assert checks.look(lambda: 3, wide, TaskOptions(), "")[0].num_qubits == 18
print(*places)
"""


def test_first_wide_program_is_checked_in_background_while_kernels_are_loaded() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    found = python("-P", "-c", WIDE, env=environment, check=False)
    assert (found.stdout, found.stderr) == ("here beside here\n", "")


def test_few_qubits_of_a_wide_device_are_examined_at_once() -> None:
    few = program(3)
    on_device = msgspec.structs.replace(few, num_qubits=127)
    assert (qubits_of(few.packed()), qubits_of(on_device.packed())) == ((3, 3), (127, 3))
    examining = RunningChecks()
    background_checks.look(program(18).packed(), TaskOptions())  # by now its kernels are loaded
    assert examining.look(lambda: 0, on_device.packed(), TaskOptions(), "")[1].num_qubits == 127


def test_named_qubits_are_counted_for_wide_programs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    background_checks.look(program(18).packed(), TaskOptions())  # by now its kernels are loaded
    counted: list[int] = []
    monkeypatch.setattr(model, "qubits_of", lambda packed: (counted.append(len(packed)), (0, 0))[1])
    for width in (14, 20, 21):
        RunningChecks().look(lambda: 0, program(width).packed(), TaskOptions(), "")
    assert len(counted) == 1


def test_wide_program_is_tried_in_background_where_auto_chooses_and_for_mps() -> None:
    wide, examining = program(25).packed(), RunningChecks()
    with contextlib.suppress(CheckPending):
        examining.look(lambda: 0, wide, TaskOptions(engine="statevector"), "")
    background_checks.look(wide, TaskOptions(engine="statevector"))  # by now its kernels are loaded
    later = fails(CheckPending, "", examining.look, lambda: 1, wide, TaskOptions(), "")
    assert later.future.result(120)[1].num_qubits == 25
    assert examining.look(lambda: 2, wide, TaskOptions(engine="statevector"), "")[1].trial is None
    named = fails(CheckPending, "", examining.look, lambda: 3, wide, TaskOptions(engine="mps"), "")
    trial = named.future.result(120)[1].trial
    assert trial.blocks


LARGE = codec.encode(m.Submit(1, "~k", 0, TaskOptions(), [TaskSpec(bytes(LARGE_BYTES), 1, 1)]))
SMALL = codec.encode(m.Ping(1))


class Clock:
    """Each message takes `cost_ns`; time passes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = self.busy_ns = 0
        self.cost_ns = 0
        monkeypatch.setattr(fair_queue.time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(fair_queue.time, "thread_time_ns", self._busy)

    def _busy(self) -> int:
        self.busy_ns += self.cost_ns  # once before and once after a message
        return self.busy_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def taken(decode: Decoding, owner: str, most: int = 1_000) -> int:
    """Large messages until one is refused."""
    for count in range(most):
        try:
            decode.of(owner, LARGE)
        except QueueFullError:
            return count
    return most


def test_owner_beyond_its_decode_budget_is_refused_and_others_are_not(clock: Clock) -> None:
    decode = Decoding(FairThreads())
    clock.cost_ns = 5_000_000
    assert taken(decode, "mallory") == 21
    assert isinstance(decode.of("ana", LARGE), m.Submit)
    assert isinstance(decode.of("mallory", SMALL), m.Ping)
    assert taken(decode, "", 100) == 100  # the environment's own user
    error = fails(QueueFullError, "25%", decode.of, "mallory", LARGE)
    assert error.retry_after_s == pytest.approx(0.02)
    clock.now_ns += 1_000_000_000  # a quarter of it is paid back, which is more than all
    assert taken(decode, "mallory") == 21


def test_decode_budget_counts_decoding_time_of_each_message(clock: Clock) -> None:
    decode = Decoding(FairThreads())
    clock.cost_ns = 300_000_000
    assert taken(decode, "mallory") == 1
    clock.now_ns += 40_000_000_000
    assert taken(decode, "mallory") == 0
    clock.now_ns += 10_000_000_000
    assert taken(decode, "mallory") == 1


def test_invalid_messages_count_in_decode_budget(clock: Clock) -> None:
    decode = Decoding(FairThreads())
    clock.cost_ns = 60_000_000
    fails(ProtocolError, "", decode.of, "mallory", b"\xc1" * (LARGE_BYTES + 1))
    fails(QueueFullError, "", decode.of, "mallory", b"\xc1" * (LARGE_BYTES + 1))


def test_checks_in_the_other_thread_count_in_decode_budget(clock: Clock) -> None:
    checks = FairThreads()
    decode = Decoding(checks)
    checks._spent_ns["mallory"] = 300_000_000
    error = fails(QueueFullError, "", decode.of, "mallory", LARGE)
    assert error.retry_after_s == pytest.approx(0.8)
    with pytest.raises(QueueFullError):  # the time is counted once, and not forgotten
        decode.of("mallory", LARGE)
    assert isinstance(decode.of("ana", LARGE), m.Submit)
    clock.now_ns += 1_000_000_000
    assert isinstance(decode.of("mallory", LARGE), m.Submit)


def test_checks_are_paid_back_by_the_time_since_the_last_large_message(clock: Clock) -> None:
    checks = FairThreads()
    decode = Decoding(checks)
    assert isinstance(decode.of("ana", LARGE), m.Submit)
    checks._spent_ns["ana"] = 300_000_000
    clock.now_ns += 2_000_000_000
    assert isinstance(decode.of("ana", LARGE), m.Submit)


@pytest.mark.parametrize("engine", ["pauli", "auto"])
def test_values_of_options_are_checked_before_anything_is_computed_with_them(engine: str) -> None:
    observable = model.Observable(("Z" * 30,), np.ones(1).tobytes())
    for name, value in (("strings", -1), ("tolerance", float("nan"))):
        terms = TaskOptions(
            engine=engine, outputs=("expectation",), options=((name, value),),
            observables=(observable,),
        )  # fmt: skip
        error = fails(
            OptionError, f"option {name}", background_checks.look, program(30).packed(), terms
        )
        assert f"{name} (" in error.hint

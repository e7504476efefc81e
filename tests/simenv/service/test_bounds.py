"""Numbers no journal, clock or message can hold are turned away; the loop goes on."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from failing import fails
from reservation_harness import ReservationHarness
from service import ServiceHarness, program, spec

from simenv.client.reservations import reservation_request
from simenv.client.submission.options import checked_options
from simenv.config import convert
from simenv.errors import ConfigError, JournalError, OptionError
from simenv.model import (
    AdmissionPolicy,
    AdmissionReason,
    DeviceProfile,
    Observable,
    ReservationRequest,
    TaskOptions,
    decode_program,
    task_number,
    task_rules as rules,
)  # fmt: skip
from simenv.model.options import check_options
from simenv.scheduler.reservations.policies import check_request
from simenv.service.admission import background_checks, controller as admission
from simenv.service.internal_errors import InternalErrors
from simenv.service.journal.writer import Journal
from simenv.service.results import completions
from simenv.wire import codec
from simenv.wire.messages import admin, client as m
from simenv.wire.messages.admin import Release, Reserve

BEYOND = 2**63


@pytest.mark.parametrize(
    "question",
    [
        m.WatchResults(7, [BEYOND]), m.GetTasks(7, [1, BEYOND]), m.Cancel(7, [BEYOND]),
        m.Ack(7, "mine", BEYOND), m.GetEvents(7, BEYOND), m.GetEvents(7, 0, BEYOND),
        m.GetCompletions(7, BEYOND), m.GetCompletions(7, -1), m.GetQueue(7, True, BEYOND),
        m.Submit(7, "mine", BEYOND, TaskOptions(), [spec()]),
    ],
    ids=lambda question: type(question).__name__,
)  # fmt: skip
def test_number_beyond_journal_is_refused(bench: ServiceHarness, question: m.FromClient) -> None:
    refused = bench.get(m.Refused, question)
    assert (refused.request, refused.refusals[0].code) == (7, "protocol")
    assert bench.submit(spec()) == m.Accepted(5, 1, 1)


def test_number_beyond_journal_range_raises_journal_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", "process")
    fails(JournalError, "", journal.records.finished.seq_of, BEYOND)
    fails(JournalError, "", journal.index, [(BEYOND, 1)], 1)
    journal.cursor("", "mine", BEYOND)
    fails(JournalError, "", journal.commit)


def test_task_id_beyond_journal_range_is_invalid() -> None:
    assert task_number("t-fzzzzzzzzzzzz") is None
    assert task_number("t-7zzzzzzzzzzzz") == BEYOND - 1


@pytest.mark.parametrize("seconds", [1e300, float("inf"), float("nan"), -1.0])
@pytest.mark.parametrize("field", ["queue_timeout_s", "run_timeout_s"])
def test_task_timeout_beyond_is_refused(bench: ServiceHarness, field: str, seconds: float) -> None:
    refused = bench.submit(spec(), terms=TaskOptions(**{field: seconds}))  # type: ignore[arg-type]
    assert refused.refusals[0].code == "option"
    assert field in refused.refusals[0].message


def test_worker_timeouts_below_three_heartbeats_are_refused() -> None:
    for key in ("silent_s", "worker_lease_s"):
        fails(ConfigError, key, convert, {key: 2.5})
        assert getattr(convert({key: 3.0}), key) == 3.0


@pytest.mark.parametrize("kind", [m.WatchResults, m.GetTasks, m.Cancel])
def test_query_about_too_many_tasks_is_refused(
    bench: ServiceHarness, kind: type[m.WatchResults | m.GetTasks | m.Cancel]
) -> None:
    assert not isinstance(bench.say(kind(7, [1] * m.MAX_QUESTION_TASKS))[0], m.Refused)
    bench.refusal(kind(7, [1] * (m.MAX_QUESTION_TASKS + 1)))


def test_task_with_more_counts_than_limit_is_refused(bench: ServiceHarness) -> None:
    wide = spec(program=program(20).packed(), shots=2**31 - 1)
    assert isinstance(bench.submit(wide), m.Accepted)  # 2^20 outcomes of 8 bytes
    wider = msgspec.structs.replace(wide, program=program(26).packed())
    assert bench.refused(wider, key="~w").code == "limit"
    few = msgspec.structs.replace(wider, shots=1000)
    assert isinstance(bench.submit(few, key="~f"), m.Accepted)


@pytest.mark.parametrize("output", ["statevector", "probabilities"])
def test_arrays_of_too_many_bindings_are_refused(bench: ServiceHarness, output: str) -> None:
    turned = msgspec.structs.replace(
        program(20), num_slots=1, slots=bytes(8), num_clbits=0, registers=(), names=("ry",),
        arities=program(20).arities[:6], ops=bytes(2 * 20), qubits=program(20).qubits[: 2 * 20],
        clbits=b"",
    ).packed()  # fmt: skip
    few, more = (
        spec(program=turned, shots=0, bindings=bytes(8 * count), count=count) for count in (16, 17)
    )
    terms = TaskOptions(outputs=(output,))
    assert isinstance(bench.submit(few, terms=terms), m.Accepted)
    refused = bench.refused(more, terms=terms, key="~m")
    assert f"17 bindings of 20 qubits with {output}" in refused.message


def test_invalid_program_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def noted(packed: bytes) -> object:
        opened.append(packed)
        return decode_program(packed)

    monkeypatch.setattr(background_checks, "open_program", noted)
    bench = ServiceHarness(tmp_path)
    bad = program(2, float("nan")).packed()
    refused = bench.submit(*[spec(program=bad, seed=k) for k in range(100)])
    assert ([refusal.index for refusal in refused.refusals], len(opened)) == (list(range(100)), 1)


@pytest.mark.parametrize(("worth", "most"), [(2**17, 20), (2**14, 5)])
def test_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: int, most: int) -> None:
    monkeypatch.setattr(admission, "EXAMINED_BYTES", worth)
    bench = ServiceHarness(tmp_path)
    others = [spec(program=program(k + 1).packed()) for k in range(20)]
    message = m.Submit(7, "~many", 0, TaskOptions(), others)
    inquiry = admission.PendingSubmit(b"peer", "", message, codec.encode(message), 0)
    entrance = admission.AdmissionController(bench.config.pools, bench.state)
    turns = 1
    while not entrance.admit_some(inquiry, 0, InternalErrors()):
        turns += 1
    assert (turns, len(inquiry.routes)) == (most, 20)


def test_number_of_cursors_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions, "MAX_CURSORS", 3)
    bench = ServiceHarness(tmp_path)
    bench.join()
    bench.submit(spec())
    bench.finish(bench.assigned())
    for name in "abcd":
        bench.say(m.Ack(1, name, 1))
    assert bench.journal.records.cursors_of("") == 3
    assert bench.say(m.Ack(1, "a", 1)) == [m.Acked(1, 1)]
    assert bench.refusal(m.Ack(1, "e", 1)).code == "limit"


def test_submission_too_large_to_forward_to_worker_is_refused(bench: ServiceHarness) -> None:
    assert bench.refused(spec(program=bytes(m.MAX_MESSAGE_BYTES - 2**20))).code == "limit"


def test_observables_count_in_memory_limit_of_queue(bench: ServiceHarness) -> None:
    labels = ("ZZ",) * 10_000
    sums = (Observable(labels, bytes(8 * len(labels))),)
    terms = TaskOptions(outputs=("expectation",), observables=sums)
    answers = (bench.submit(spec(k), key=f"~{k}", terms=terms) for k in range(300))
    refused = next(each for each in answers if isinstance(each, m.Refused))
    assert refused.refusals[0].code == "queue_full"
    queued_bytes = bench.state.tasks.queued_bytes
    kept = bench.loop.submit_queue.admission._checked_terms
    assert {len(digest) for digest in kept} == {16}, "options are kept by their digests"
    bench.restart()
    assert bench.state.tasks.queued_bytes == queued_bytes


@pytest.mark.parametrize("ranks", [-1, 3, 2 * rules.MAX_RANKS])
def test_invalid_number_of_ranks_is_refused(bench: ServiceHarness, ranks: int) -> None:
    refused = bench.refused(spec(), terms=TaskOptions(ranks=ranks))
    assert refused.code == "option"
    assert f"ranks={ranks}" in refused.message


@pytest.mark.parametrize("field", ["name", "app"])
@pytest.mark.parametrize("text", ["a\x1b[2J", "a\nb", "a\x9b1A", "\u202egnp"])
def test_control_characters_are_refused(bench: ServiceHarness, field: str, text: str) -> None:
    refused = bench.submit(terms=TaskOptions(**{field: text}))  # type: ignore[arg-type]
    assert refused.refusals[0].code == "option"
    assert refused.refusals[0].message.isprintable()
    accepted = bench.submit(terms=TaskOptions(**{field: "Zürich ψ 量子 (2)"}))  # type: ignore[arg-type]
    assert isinstance(accepted, m.Accepted)


def test_reservation_text_with_control_characters_is_refused(bench: ServiceHarness) -> None:
    (refused,) = bench.say(Reserve(1, ReservationRequest(job="a\x1b[2J")))
    assert "cannot be printed" in str(refused)
    assert bench.refusal(Release(1, 1, "gone\nforged")).code == "option"


def test_failed_check_refuses_one(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:

    def fail(*_: object) -> None:
        raise ValueError("math domain error")

    with monkeypatch.context() as patch:
        patch.setattr(background_checks, "look", fail)
        refused = bench.submit(spec())
    (refusal,) = refused.refusals
    assert (refusal.code, refusal.index) == ("internal", 0)
    assert "check of a program failed by a fault of the service (ValueError: math" in str(refusal)
    assert bench.loop.monitoring.internal_errors.count == 1
    assert bench.submit(spec(), key="other") == m.Accepted(5, 1, 1)


@pytest.mark.parametrize(
    ("option", "most"),
    [
        *(("ranks", rules.MAX_RANKS), ("priority", rules.MAX_PRIORITY)),
        *(("priority", -rules.MAX_PRIORITY), ("queue_timeout_s", rules.MAX_SECONDS)),
        ("run_timeout_s", float(rules.MAX_SECONDS)),
        ("prefer", [f"a{k}" for k in range(rules.MAX_PREFERRED)]),
        ("name", "a" * rules.MAX_NAME_CHARS),
    ],
)
def test_client_and_service_accept_the_same_largest_options(option: str, most: Any) -> None:
    options: Any = {option: most}
    check_options(checked_options(options).task)
    beyond = 2 * most
    if option == "prefer":
        beyond = [*most, "b"]
    fails(OptionError, option, checked_options, {option: beyond})


def test_client_and_service_accept_the_same_largest_reservation() -> None:
    def request(workers: int, for_s: float) -> ReservationRequest:
        return reservation_request(None, {"for_s": for_s, "workers": workers, "shots": 1})

    check_request(request(rules.MAX_WORKERS, rules.MAX_SECONDS))
    for wrong in ((rules.MAX_WORKERS + 1, 1.0), (1, rules.MAX_SECONDS + 1.0)):
        fails(OptionError, r"workers|for_s", request, *wrong)
    most_ns = rules.MAX_SECONDS * 10**9
    for field, value in (("workers", rules.MAX_WORKERS + 1), ("ttl_ns", most_ns + 1)):
        beyond = msgspec.structs.replace(request(1, 1.0), **{field: value})
        fails(OptionError, field, check_request, beyond)
    convert({"pools": [{"name": "a", "ranks": rules.MAX_RANKS}]})  # as tasks may ask for
    fails(ConfigError, "ranks", convert, {"pools": [{"name": "a", "ranks": rules.MAX_RANKS + 1}]})


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> ReservationHarness:
    """One for all: nothing here may change it."""
    office = ReservationHarness(tmp_path_factory.mktemp("office"))
    office.reserve(4)
    return office


NUMBERS = (-1, 2**62 + 1, 2**63, 2**64 - 1, True, 1.5)
ASK = ("ttl_ns", "walltime_ns", "classical_ns", "overhead_ns", "workers", "bound_ns")


def raw(message: object, path: tuple[str | int, ...], value: object) -> bytes:
    """A message with one field changed, whatever its type allows."""
    body = msgspec.msgpack.decode(codec.encode(message))
    place = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return msgspec.msgpack.encode(body)


def hear(office: ReservationHarness, body: bytes) -> m.ToClient:
    office.peer.send(body)
    office.step()
    (answer,) = office.heard()
    return answer


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("field", [*ASK, *range(7)])
def test_invalid_reservation(office: ReservationHarness, field: str | int, value: object) -> None:
    before = office.digest()
    path: tuple[str | int, ...] = (2, field) if isinstance(field, str) else (2, "workload", field)
    answer = hear(office, raw(admin.Reserve(9, ReservationRequest(device="main")), path, value))
    if isinstance(answer, admin.DecisionReply):
        assert answer.decision.status == "rejected"
        assert answer.decision.code in (AdmissionReason.INVALID_REQUEST, AdmissionReason.TOO_LARGE)
    else:
        assert answer.refusals[0].code == "protocol"
    assert office.digest() == before


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    "message",
    [
        (admin.Renew(9, 1, 1), (2,)),
        (admin.Renew(9, 1, 1), (3,)),
        (admin.Release(9, 1), (2,)),
        (admin.GetReservations(9, 1), (2,)),
        *((admin.SetProfile(9, "main", DeviceProfile()), (3, field)) for field in ("device_rate",)),
        (admin.SetProfile(9, "main", DeviceProfile()), (3, "one_q_gate_ns")),
        (
            admin.SetPolicy(9, "main", AdmissionPolicy("credit", total_credits=1)),
            (3, "total_credits"),
        ),
    ],
    ids=lambda message: f"{type(message[0]).__name__}-{message[1][-1]}",
)
def test_message_with_invalid_number_is_refused_without_changes(
    office: ReservationHarness, message: tuple[object, tuple[str | int, ...]], value: object
) -> None:
    before = office.digest()
    answer = hear(office, raw(*message, value))
    assert answer.refusals[0].code in ("protocol", "option", "reservation")
    assert office.digest() == before


def test_task_under_bad_reservation_is_refused(office: ReservationHarness) -> None:
    before = office.digest()
    for number in (-1, 2**63, 2**64 - 1):
        assert office.under(number, 100).refusals[0].code == "reservation"
        assert office.digest() == before

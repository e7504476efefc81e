"""Numbers that no reservation can have: refused in words, and nothing has changed."""

from __future__ import annotations

import msgspec
import pytest
from reservation_harness import ReservationHarness

from simenv.model import AdmissionPolicy, AdmissionReason, DeviceProfile, ReservationRequest
from simenv.wire import codec
from simenv.wire.messages import admin, client as m


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
        assert isinstance(answer, m.Refused)
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
    assert isinstance(answer, m.Refused)
    assert answer.refusals[0].code in ("protocol", "option", "reservation")
    assert office.digest() == before


@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1])
def test_task_under_bad_reservation_is_refused(office: ReservationHarness, number: int) -> None:
    before = office.digest()
    refused = office.under(number, 100)
    assert isinstance(refused, m.Refused)
    assert refused.refusals[0].code == "reservation"
    assert office.digest() == before

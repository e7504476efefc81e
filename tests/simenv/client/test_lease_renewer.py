"""Renewals in the background of a `with` block; the test plays the service."""

from collections.abc import Iterator

import pytest
from client_peer import Peer
from waiting import until

from simenv.client.connection.session import ServiceSession
from simenv.client.reservations import LeaseRenewer, Reservation
from simenv.errors import (
    InsufficientError,
    LimitExceededError,
    NotReservedError,
    SimenvError,
)
from simenv.model import ReservationInfo, ReservationState
from simenv.wire import codec
from simenv.wire.messages import admin, client as m

INFO = ReservationInfo(7, "", "main", "", "", "", "", "quantum", ReservationState.ACTIVE, 0, 0)
BUDGET = LimitExceededError("chem: 0 slot-h left until 1 June, this needs about 2", hint="wait")
OVER = NotReservedError("reservation 7 is over (expired)", hint="make a new one")


@pytest.fixture
def renewer() -> Iterator[LeaseRenewer]:
    renewer = LeaseRenewer()
    yield renewer
    renewer.stop()
    renewer.join()


def answers(peer: Peer, errors: list[SimenvError]) -> None:
    """Refuse the renewals with these errors, the last one again and again."""

    def refuse(message: admin.Renew) -> list[m.ToClient]:
        error = errors.pop(0) if len(errors) > 1 else errors[0]
        return [m.Refused(message.request, [codec.refusal(error)])]

    peer.on(admin.Renew, refuse)
    peer.on(admin.Release, lambda q: [admin.Released(q.request, INFO, [])])


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([BUDGET, BUDGET, BUDGET, OVER], BUDGET),
        ([InsufficientError("groups are being looked up"), OVER], OVER),
    ],
)
def test_first_refusal_of_a_renewal_is_logged_once(
    link: ServiceSession,
    peer: Peer,
    renewer: LeaseRenewer,
    caplog: pytest.LogCaptureFixture,
    errors: list[SimenvError],
    told: SimenvError,
) -> None:
    answers(peer, list(errors))
    with Reservation(link, renewer, INFO, for_s=0.03):
        until(lambda: len(peer.of(admin.Renew)) >= len(errors) and not renewer._next_renewal_s)
    lines = [each.getMessage() for each in caplog.records if each.name == "simenv.client"]
    assert lines == [f"<reservation 7 of main> is not renewed: {told}"]


def test_renewal_that_a_release_has_overtaken_is_not_logged(
    link: ServiceSession,
    peer: Peer,
    renewer: LeaseRenewer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers(peer, [OVER])
    reservation = Reservation(link, renewer, INFO, for_s=60.0)
    with reservation:
        pass
    renewer._renew(reservation)
    assert peer.of(admin.Renew)
    assert not [each for each in caplog.records if each.name == "simenv.client"]

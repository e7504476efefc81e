"""Connections that give up the rights of an admin."""

from typing import get_args

import pytest
from examples_of_types import example
from reservation_harness import ReservationHarness
from service import ServiceHarness

from simenv.wire.keyfiles import new_pair, read_keys
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import Scale
from simenv.wire.messages.base import AdminRequest
from simenv.wire.messages.credentials import AddKey, GetKeys
from simenv.wire.rights import CLIENT_ROUTE
from simenv.wire.transport.sockets import PeerKind


@pytest.mark.parametrize("with_key", [False, True], ids=["own socket", "admin key"])
def test_client_connection_makes_no_admin_requests(bench: ServiceHarness, with_key: bool) -> None:
    key = new_pair().public if with_key else None
    if key:
        bench.say(AddKey(1, "ops", "admin", key))
    lowered = bench.listener.connect(PeerKind.CLIENT, CLIENT_ROUTE + b"1", key)
    full = bench.listener.connect(PeerKind.CLIENT, b"~2", key)
    requests = (Scale(2, "main", 1, 1), GetKeys(3), m.Shutdown(4))
    for request in requests:
        answer = bench.refusal(request, lowered)
        assert answer.code == "not_allowed"
        assert "role client, which this connection requested" in answer.message
    assert bench.get(m.Status, m.GetStatus(5), lowered)
    for request in requests[:2]:
        assert not any(isinstance(a, m.Refused) for a in bench.say(request, full)), request


@pytest.mark.parametrize(
    "kind", [kind for kind in get_args(m.FromClient) if issubclass(kind, AdminRequest)]
)
def test_client_makes_no_admin_call(office: ReservationHarness, kind: type[AdminRequest]) -> None:
    before = office.digest(), read_keys(office.folder / "keys.json")
    assert office.refusal(example(kind), office.ana).code == "not_allowed"
    assert not office.state.draining
    assert (office.digest(), read_keys(office.folder / "keys.json")) == before

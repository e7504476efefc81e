"""Connections that give up the rights of an admin."""

from __future__ import annotations

from pathlib import Path

import pytest
from service import ServiceHarness

from simenv.wire.keyfiles import CLIENT_ROUTE, new_pair
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import AddKey, GetKeys, Scale
from simenv.wire.transport.sockets import PeerKind


@pytest.mark.parametrize("with_key", [False, True], ids=["own socket", "admin key"])
def test_connection_with_the_rights_of_a_client_is_refused_administrative_requests(
    tmp_path: Path, with_key: bool
) -> None:
    bench = ServiceHarness(tmp_path)
    key = new_pair().public if with_key else None
    if key:
        bench.say(AddKey(1, "ops", "admin", key))
    lowered = bench.listener.connect(PeerKind.CLIENT, CLIENT_ROUTE + b"1", key)
    full = bench.listener.connect(PeerKind.CLIENT, b"~2", key)
    requests = (Scale(2, "main", 1, 1), GetKeys(3), m.Shutdown(4))
    for request in requests:
        (answer,) = bench.say(request, lowered)
        assert isinstance(answer, m.Refused), request
        assert answer.refusals[0].code == "not_allowed"
        assert "role client, which this connection requested" in answer.refusals[0].message
    (status,) = bench.say(m.GetStatus(5), lowered)
    assert isinstance(status, m.Status)
    for request in requests[:2]:
        assert not any(isinstance(a, m.Refused) for a in bench.say(request, full)), request

"""The table of roles: every message stands in it, and nobody may say what is not hers."""

from typing import get_args

from simenv.wire.messages import client as m
from simenv.wire.rights import LOCAL, LOCAL_WORKER, MAY_SEND, Identity, Role

FROM_CLIENT = set(get_args(m.FromClient))
FROM_WORKER = set(get_args(m.FromWorker))


def test_each_role_sends_its_own_messages() -> None:
    assert MAY_SEND[Role.ADMIN] == FROM_CLIENT, "a message has a base of `messages.common`"
    assert MAY_SEND[Role.WORKER] == FROM_WORKER
    assert MAY_SEND[Role.CLIENT] < FROM_CLIENT
    names = {kind.__name__ for kind in FROM_CLIENT - MAY_SEND[Role.CLIENT]}
    assert names == {
        *("Shutdown", "CollectGarbage", "AddKey", "RevokeKey", "GetKeys", "SetLimits", "Scale"),
        *("DrainNode", "ResumeNode", "SetProfile", "SetPolicy", "SteerTarget", "SetDispatch"),
        *("SetOrder", "SetAccount", "SetQos", "ExchangeToken", "SetDeviceFigure", "GetMetrics"),
    }
    assert {kind.__name__ for kind in MAY_SEND[Role.GATEWAY]} == {
        *("Hello", "Ping", "GetStatus", "GetPools", "GetDevices", "ExchangeToken"),
        *("GetMetrics", "GetSeries"),
    }
    assert not MAY_SEND[Role.WORKER] & FROM_CLIENT
    assert not MAY_SEND[Role.CLIENT] & FROM_WORKER


def test_scope_of_client_is_its_own_name_and_of_admin_everything() -> None:
    assert Identity("ana", Role.CLIENT).scope == "ana"
    assert (Identity("ana", Role.WORKER).scope, Identity("ana", Role.ADMIN).scope) == ("ana", "")
    assert LOCAL.scope == LOCAL_WORKER.scope == ""

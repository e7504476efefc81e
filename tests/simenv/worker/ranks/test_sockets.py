"""Where a rank listens for the others when they are on several machines."""

import pytest

from simenv.errors import NoServiceError
from simenv.wire.keyfiles import KEYS_FORMAT, WorkerBootstrap
from simenv.worker import ranks


def service(address: str) -> WorkerBootstrap:
    return WorkerBootstrap(KEYS_FORMAT, "elsewhere", "/nowhere", "token", address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:7", "tcp://localhost:7"])
def test_rank_listens_on_address_that_reaches_the_service(address: str) -> None:
    assert ranks.own_address(service(address)) in ("127.0.0.1", "::1")


@pytest.mark.parametrize("address", ["", "tcp://no.such.host.invalid:7"])
def test_ranks_without_reachable_service_address_raise_no_service(address: str) -> None:
    with pytest.raises(
        NoServiceError, match=r"ranks are on several nodes|cannot reach the service|no route from"
    ):
        ranks.own_address(service(address))

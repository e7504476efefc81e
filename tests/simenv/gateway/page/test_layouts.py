"""Views of the page without a browser: positions of qubits, and streams of tasks."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from failing import fails

from simenv.client.client import Client
from simenv.gateway.context import Caller, Gateway
from simenv.gateway.page import views
from simenv.transpiler import lattice


def client_of(count: int) -> Client:
    """Return a client that knows a ring of so many qubits."""
    coupling = tuple((k, (k + 1) % count) for k in range(count))
    device = SimpleNamespace(num_qubits=count, coupling=coupling, coordinates=(), links=())
    return cast(Client, SimpleNamespace(device=lambda name: device))


def test_a_layout_is_computed_once_for_all_who_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def positions(count: int, *rest: Any) -> np.ndarray:
        computed.append(count)
        return lattice_positions(count, *rest)

    lattice_positions = lattice.positions
    monkeypatch.setattr(lattice, "positions", positions)
    with ThreadPoolExecutor(4) as pool:
        client = client_of(97)
        first, *others = pool.map(lambda _: views.positions_of(client, "ring"), range(4))
    assert computed == [97]
    assert all(each == first for each in others)


def test_no_one_waits_for_the_layout_of_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def positions(count: int, *rest: Any) -> np.ndarray:
        if count == 89:
            begun.set()
            assert go_on.wait(60.0)
        return lattice_positions(count, *rest)

    lattice_positions = lattice.positions
    monkeypatch.setattr(lattice, "positions", positions)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(views.positions_of, client_of(89), "slow")
        try:
            assert begun.wait(60.0)
            with ThreadPoolExecutor(1) as other:
                fast = other.submit(views.positions_of, client_of(83), "fast")
                assert len(fast.result(30.0).positions) == 83
                assert not slow.done()
        finally:
            go_on.set()
        assert len(slow.result(60.0).positions) == 89


def test_a_layout_that_failed_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(lattice, "positions", lambda *_: 1 // 0)
        fails(ZeroDivisionError, "", views.positions_of, client_of(79), "ring")
    assert len(views.positions_of(client_of(79), "ring").positions) == 79


def test_large_devices_are_drawn_in_rows_without_a_layout() -> None:
    count = views.MAX_LAID_OUT + 1
    found = views.positions_of(client_of(count), "ring").positions
    np.testing.assert_array_equal(found, lattice.grid(count))


FILTERS: dict[str, Any] = {"states": ()}


def test_pages_of_one_period_share_one_request() -> None:
    asked: list[object] = []

    class Asked:
        async def call(self, caller: object, question: object, filters: object) -> list[object]:
            asked.append((caller, filters))
            await asyncio.sleep(0)
            return [question]

    async def ask() -> None:
        streams = views.TaskStreams(cast(Gateway, Asked()))
        ana, ben = (Caller(name, "", "client", name) for name in ("ana", "ben"))
        pages = [(ana, FILTERS)] * 5 + [(ben, FILTERS), (ana, {**FILTERS, "pool": "a"})]
        await asyncio.gather(*(streams.of(*page) for page in pages))
        await streams.of(ana, FILTERS)

    asyncio.run(ask())
    assert len(asked) == 3

"""Large answers in JSON are encoded in parts outside of the event loop."""

import enum
import json
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import httpx
import msgspec
import pytest
from examples_of_types import example
from gateway_stand_in import served
from litestar import Response, get

from simenv import model
from simenv.gateway import json_bodies
from simenv.gateway.app import create_app
from simenv.gateway.limits import PART_BYTES
from simenv.gateway.native import schemas

ROWS = 3_000


class Row(msgspec.Struct, frozen=True):
    name: str
    values: list[float]


class Renamed(msgspec.Struct, frozen=True, rename="camel"):
    some_rows: list[Row]
    of_all: dict[str, int] = {}


class Tagged(msgspec.Struct, frozen=True, tag="tagged", omit_defaults=True):
    rows: list[int] = []


class Pair(NamedTuple):
    first: int
    second: str


class Kind(enum.Enum):
    ONE = "one"


VALUES = [
    [], (), {}, [[]], {"a": {}}, [None, True, 1, 2.5, "text", float("inf")],
    list(range(1_000)), [[k, str(k)] for k in range(500)], {str(k): k for k in range(1_000)},
    {k: [k] for k in range(200)}, [Pair(k, "b") for k in range(200)],
    Renamed([Row('"\\ \u2028', [0.1] * 100)] * 3, {"\n": 1}), Renamed([]),
    Tagged([1] * 100), [Tagged(), Row("a", [])], {"kinds": [Kind.ONE] * 100},
    example(schemas.TaskPage), example(schemas.UsageReport), example(model.ServiceInfo),
    example(schemas.EventPage), example(list[model.OwnerReport]), example(model.DeviceInfo),
]  # fmt: skip


@pytest.mark.parametrize("few", [1, 2, json_bodies.FEW])
@pytest.mark.parametrize("value", VALUES)
def test_parts_are_json_of_whole(value: Any, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bodies, "FEW", few)
    assert b"".join(json_bodies.json_parts(value)) == msgspec.json.encode(value)


def test_parts_have_a_bound() -> None:
    parts = list(json_bodies.json_parts([Row("a" * 100, [0.5] * 50)] * ROWS))
    assert len(parts) > 10
    assert max(map(len, parts)) < PART_BYTES + 1_000


class NoClients:
    """Clients of a gateway that nobody has used."""

    async def close_idle(self) -> None:
        """Close none."""

    def close(self) -> None:
        """Close none."""


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that the encoder has written in each thread; one call writes 8 KiB at most."""
    found: Counter[str] = Counter()
    encode = json_bodies._encode

    def recorded(value: Any) -> bytes:
        data = encode(value)
        assert len(data) < 2**13
        found[threading.current_thread().name] += len(data)
        return data

    monkeypatch.setattr(json_bodies, "_encode", recorded)
    return found


def test_large_answer_is_encoded_in_a_thread(encoded: Counter[str]) -> None:
    rows = [Row(f"row {k}", [0.5] * 20) for k in range(ROWS)]

    @get("/list")
    async def listed() -> list[Row]:
        return rows

    @get("/response")
    async def response() -> Response[Any]:
        return Response({"rows": rows}, status_code=202)

    @get("/small")
    async def small() -> list[Row]:
        return rows[:10]

    app = create_app(
        cast(Any, SimpleNamespace(pool=NoClients(), on_close=[])), listed, response, small
    )
    with served(app) as url:
        assert json.loads(httpx.get(f"{url}/small").content) == msgspec.to_builtins(rows[:10])
        loop = next(iter(encoded))
        assert set(encoded) == {loop}
        encoded.clear()
        for path, status in (("list", 200), ("response", 202)):
            answer = httpx.get(f"{url}/{path}")
            assert answer.status_code == status
            assert int(answer.headers["content-length"]) == len(answer.content) > 4 * PART_BYTES
            found = answer.json() if path == "list" else answer.json()["rows"]
            assert found == msgspec.to_builtins(rows)
    assert encoded.pop(loop) < 2 * (PART_BYTES + 2**13)
    assert sum(encoded.values()) > 4 * PART_BYTES

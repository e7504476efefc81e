"""Events as pages and as a stream: none is missed, and streams are bounded."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
from gateway_stand_in import GatewayStandIn

from simenv.client.client import Client
from simenv.gateway.context import Caller
from simenv.gateway.native import events


@contextlib.contextmanager
def frames(api: httpx.Client, query: str = "", **headers: str) -> Iterator[Iterator[list[str]]]:
    """Yield the frames of a stream, each as its lines."""
    with api.stream("GET", f"/events/stream{query}", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        yield _split(answer.iter_lines())


def _split(lines: Iterator[str]) -> Iterator[list[str]]:
    frame: list[str] = []
    for line in lines:
        if line:
            frame.append(line)
        elif frame:
            yield frame
            frame = []


def numbers(stream: Iterator[list[str]], count: int) -> list[int]:
    found: list[int] = []
    for frame in stream:
        if frame[0].startswith("id: "):
            found.append(int(frame[0].removeprefix("id: ")))
            assert json.loads(frame[1].removeprefix("data: "))["seq"] == found[-1]
        if len(found) == count:
            break
    return found


def make_events(env: Client, count: int) -> None:
    """Each reservation gives two events."""
    for _ in range(count):
        env.reserve("main", for_s=30).release()


def test_pages_of_events_follow_one_another(api: httpx.Client, env: Client) -> None:
    make_events(env, 2)
    every = [event.seq for event in env.events()]
    found: list[int] = []
    last = 0
    while len(found) < len(every):
        page = api.get("/events", params={"since": last, "limit": 2}).json()
        found += [event["seq"] for event in page["events"]]
        last = page["last"]
        assert page["newest"] >= last
    assert found == every
    made = api.get("/events", params={"kind": "reservation.made", "limit": 1000}).json()
    assert {event["kind"] for event in made["events"]} == {"reservation.made"}


def test_stream_goes_on_after_last_event_that_was_read(api: httpx.Client, env: Client) -> None:
    make_events(env, 3)
    every = [event.seq for event in env.events()]
    with frames(api, "?since=0") as stream:
        assert numbers(stream, 3) == every[:3]
    with frames(api, "?since=0", **{"Last-Event-ID": str(every[2])}) as stream:
        assert numbers(stream, len(every) - 3) == every[3:]
        make_events(env, 1)
        assert numbers(stream, 2) == [every[-1] + 1, every[-1] + 2]


def test_a_stream_begins_with_the_next_event(api: httpx.Client, env: Client) -> None:
    with frames(api, "?kind=reservation.made") as stream:
        assert next(stream) == ["retry: 2000"]
        newest = env.history.newest_event()
        with frames(api, f"?since={newest - 1}") as other:
            assert numbers(other, 1) == [newest]  # the feed has asked the service by now
        make_events(env, 1)
        assert numbers(stream, 1) == [newest + 1]


def test_a_stream_shows_the_state_of_the_service(api: httpx.Client, env: Client) -> None:
    with frames(api, "?status=true") as stream:
        status = next(frame for frame in stream if frame[0] == "event: status")
        assert json.loads(status[1].removeprefix("data: "))["pid"] == env.status().pid


def test_a_reader_gets_what_is_older_than_the_buffer(api: httpx.Client, env: Client) -> None:
    make_events(env, 5)
    every = [event.seq for event in env.events()]
    with frames(api) as first:  # begins the feed at the newest event
        assert next(first) == ["retry: 2000"]
        with frames(api, "?since=0") as late:
            assert numbers(late, len(every)) == every


def test_streams_of_one_caller_are_bounded(api: httpx.Client, gateway: GatewayStandIn) -> None:
    with contextlib.ExitStack() as stack:
        streams = []  # a response is closed when nothing refers to its lines
        for _ in range(events.MAX_STREAMS):
            streams.append(stack.enter_context(frames(api, Authorization="Bearer ana")))
            assert next(streams[-1]) == ["retry: 2000"]
        refused = api.get("/events/stream", headers={"Authorization": "Bearer ana"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "15")
        assert str(events.MAX_STREAMS) in refused.json()["detail"]
        with frames(api, Authorization="Bearer bo") as other:
            assert next(other) == ["retry: 2000"]


def test_streams_that_open_together_share_a_feed(gateway: Any) -> None:
    feeds = events.Feeds(events.EventFeed, gateway)
    caller = Caller("ana", "", "client", "1")
    assert feeds.of(caller) is not feeds.of(Caller("ben", "", "client", "2"))
    assert len({feeds.of(caller), feeds.of(caller)}) == 1  # neither is read yet


def test_a_number_that_is_none_is_refused(api: httpx.Client) -> None:
    for last in ("x", "-1", "9" * 40, "1e3", "²"):
        answer = api.get("/events/stream", headers={"Last-Event-ID": last.encode("utf-8")})
        assert answer.status_code == 400, last
    assert api.get("/events/stream?since=-1").status_code == 400

"""Hostile HTTP clients: what mutated requests and slow connections cost the gateway and others.

First a client with two tokens sends mutated requests to every route
(`bench.testbed.http_requests`); then 1,000 connections from four addresses send their headers a
byte a second, and are opened again when the gateway closes them. Each attack runs in a process of
its own. Meanwhile a good client with a connection that is kept open asks for the pools. The figures
are the requests that were answered 500, 502, 503 or not at all, the peak memory of the gateway, and
the 99th percentile of the good client's answer times.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
from argparse import Namespace
from collections import Counter
from contextlib import suppress
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path

import psutil

from bench.harness import Option, Report, probed
from bench.harness.environments import home, simenv as command
from bench.service.gateway import Connection, served
from bench.testbed.http_requests import Request, Requests, attack, routes

ADDRESSES = tuple(f"127.0.0.{number}" for number in range(2, 6))  # a quarter of all each
BYTE_S = 1.0  # between two bytes of a slow connection
LOOK_S, PAUSE_S = 0.05, 0.005
VALUES = ["main", "lima", "local", "t-1", "0"]
OPTIONS = (
    Option("--requests", default=50_000, quick=1_000),
    Option("--connections", default=1_000, quick=400),
    Option("--seconds", default=30.0, help="of the slow connections", quick=5.0),
)


def run(options: Namespace) -> Report:
    report = Report("hostile_http", f"{options.requests} mutated requests, slow connections")
    methods = multiprocessing.get_context("spawn")
    with home(), served(3) as (url, tokens):
        status = json.loads(command(["gateway", "status", "--name", "bench", "--json"]))
        gateway = psutil.Process(status["pid"])
        host, _, port = url.removeprefix("http://").partition(":")
        address = host, int(port)
        good = Connection(url, tokens[0])
        peaks: list[int] = []
        questions = {"good": partial(good.request, "GET", "/pools")}
        answers: Queue[tuple[Counter[int], list[tuple[int, Request]]]] = methods.Queue()
        attacks = {
            "mutated": methods.Process(
                target=_mutated, args=(address, tokens[1:], options.requests, answers)
            ),
            "slow": methods.Process(
                target=_slow, args=(address, options.connections, options.seconds)
            ),
        }
        for name, process in attacks.items():
            with (
                probed({"memory": lambda: peaks.append(gateway.memory_info().rss)}, LOOK_S),
                probed(questions, PAUSE_S) as times,
            ):
                process.start()
                found = answers.get() if name == "mutated" else None
                process.join()
            if found is not None:
                statuses, failures = found
                print(f"statuses: {dict(statuses.most_common())}")
                for status, request in failures[:3]:
                    print(status, request.data[:500])
                report.at_most("failed", len(failures), "answered 500, 502, 503 or not at all")
            report.p99_ms("p99_ms", times["good"], f"answers to a good client, {name}")
        good.close()
        report.at_most("peak_gib", max(peaks) / 2**30, "memory of the gateway, GiB")
    return report


def _mutated(
    address: tuple[str, int], secrets: list[str], count: int,
    answers: Queue[tuple[Counter[int], list[tuple[int, Request]]]],
) -> None:  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        targets = routes(Path(folder))
    answers.put(attack(address, Requests(1, targets, VALUES, secrets), count))


def _slow(address: tuple[str, int], connections: int, seconds: float) -> None:
    async def one(number: int) -> None:
        source = ADDRESSES[number % len(ADDRESSES)], 0
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(*address, local_addr=source)
                writer.write(b"POST /session HTTP/1.1\r\nHost: here\r\nX-Slow: ")
                while not writer.is_closing():
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(BYTE_S)
            await asyncio.sleep(BYTE_S)

    async def all_of_them() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*map(one, range(connections)))

    asyncio.run(all_of_them())

"""The web page with a long history, and what open pages cost the service.

100,000 tasks are in the history. Each view is opened in chromium, through the gateway's process:
the time until its first paint, and until it shows its data. Then 50 clients ask what open
overviews ask; the processor time of the service and of the gateway is counted over 30 s, less that
of an idle environment over as long.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path
from time import perf_counter, sleep

import httpx
import psutil
from playwright.sync_api import Browser, Page, StorageState

from bench.circuits import four_qubit_circuit
from bench.harness import Report
from bench.harness.environments import started, wait_until
from bench.harness.options import Option
from simenv import config
from simenv.client.client import Client

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))

NAME = "bench-page"
TASKS, BATCH = 100_000, 10_000
SETTINGS = {
    "name": NAME,
    "pools": [{"name": "main", "min": 2, "max": 2}],
    "gateway": {"listen": "127.0.0.1:0", "tls": False},
}
VIEWS = ("", "tasks", "tasks/t-1", "devices", "nodes", "usage", "events")
PAGES, SECONDS = 50, 30.0
SERIES = ("done_per_s", "unsuccessful_per_s", "queue", "running", "slots_used")
REFRESH_S = 10.0
OPTIONS = (Option("--tasks", default=TASKS, quick=2_000, help="in the history"),)


def run(options: Namespace) -> Report:
    report = Report("page", f"web page: {options.tasks} tasks in the history")
    import browser

    with started(SETTINGS) as client:
        wait_until(lambda: client.dashboard is not None, 30.0)
        _fill(client, options.tasks)
        with browser.chromium() as chromium:
            _paints(chromium, client, report)
        _open_pages(client, report)
    return report


def _fill(client: Client, count: int) -> None:
    for start in range(0, count, BATCH):
        circuits = [four_qubit_circuit(seed) for seed in range(start, min(count, start + BATCH))]
        for task in client.submit_many(circuits, shots=100, seed=1):
            task.wait()
    assert client.status().done >= count


def _paints(chromium: Browser, client: Client, report: Report) -> None:
    cookies = _signed_in(chromium, client)
    times = [_paint(chromium, cookies, f"{client.dashboard}{view}") for view in VIEWS]
    for view, (paint_ms, data_ms) in zip(VIEWS, times, strict=True):
        print(f"/ui/{view}: first paint {paint_ms:.0f} ms, data after {data_ms:.0f} ms")
    report.at_most("paint_ms", max(paint for paint, _ in times), "first paint, slowest view, ms")
    report.at_most("data_ms", max(data for _, data in times), "data shown, slowest view, ms")


def _paint(chromium: Browser, cookies: StorageState, url: str) -> tuple[float, float]:
    """Return the time until the first paint and until the data, in ms; median of three."""
    found = []
    for _ in range(3):
        context = chromium.new_context(storage_state=cookies)
        page = context.new_page()
        begun = perf_counter()
        page.goto(url)
        page.wait_for_selector("#content .card table, #content .card .stages")
        found.append((_first_paint_ms(page), 1e3 * (perf_counter() - begun)))
        context.close()
    paints, data = zip(*found, strict=True)
    return statistics.median(paints), statistics.median(data)


def _first_paint_ms(page: Page) -> float:
    return float(
        page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    )


def _signed_in(chromium: Browser, client: Client) -> StorageState:
    """Return the cookie of a browser that has followed a one-time link."""
    assert client.dashboard is not None
    secret = client.tokens.add(role="", once=True, lifetime_s=60.0).secret
    with chromium.new_context() as context:
        context.new_page().goto(f"{client.dashboard.removesuffix('/ui/')}/login?token={secret}")
        return context.storage_state()


def _open_pages(client: Client, report: Report) -> None:
    """Ask what PAGES open overviews ask. Browsers themselves would use all of this machine."""
    file = config.running_gateway(config.home_root() / NAME)
    assert file is not None
    processes = psutil.Process(client.status().pid), psutil.Process(file.pid)
    idle = _cores(processes)
    secret = client.tokens.add(purpose="bench", lifetime_s=600.0).secret
    busy = asyncio.run(_pages(file.url, secret, processes))
    for name, before, after in zip(("service", "gateway"), idle, busy, strict=True):
        percent = max(0.0, 100 * (after - before))
        label = f"{PAGES} open pages, cost of the {name}, % of a core"
        report.at_most(f"{name}_percent", percent, label)


async def _pages(url: str, secret: str, processes: tuple[psutil.Process, ...]) -> list[float]:
    headers = {"Authorization": f"Bearer {secret}"}
    limits = httpx.Limits(max_connections=2 * PAGES)
    states = [0] * PAGES
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits) as http:
        pages = [asyncio.create_task(_overview(http, states, number)) for number in range(PAGES)]
        busy = await asyncio.to_thread(_cores, processes)
        for page in pages:
            page.cancel()
        ends = await asyncio.gather(*pages, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
    assert min(states) > 0.8 * SECONDS, f"a page got {min(states)} states in {SECONDS:.0f} s"
    return busy


async def _overview(http: httpx.AsyncClient, states: list[int], number: int) -> None:
    """Do what views/overview.js does: the live state, and every ten seconds the series."""

    async def plots() -> None:
        await asyncio.sleep(REFRESH_S * number / PAGES)
        (await http.get("/api/v1/series")).raise_for_status()
        while True:
            since = time.time() - 3_600
            for name in SERIES:
                asked = {"name": name, "since": since}
                (await http.get("/api/v1/series", params=asked)).raise_for_status()
            asked = {"kind": "worker.lost", "since_s": since, "limit": 15}
            (await http.get("/api/v1/events/range", params=asked)).raise_for_status()
            await asyncio.sleep(REFRESH_S)

    async def live() -> None:
        async with http.stream("GET", "/api/v1/live", timeout=60.0) as answer:
            async for line in answer.aiter_lines():
                states[number] += line == "event: live"

    await asyncio.gather(plots(), live())


def _cores(processes: tuple[psutil.Process, ...]) -> list[float]:
    """Return the processor time of each over SECONDS, as cores."""
    before, begun = [_cpu_s(each) for each in processes], perf_counter()
    sleep(SECONDS)
    seconds = perf_counter() - begun
    return [(_cpu_s(each) - old) / seconds for each, old in zip(processes, before, strict=True)]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)

"""The web page with a long history, and what open pages cost the service.

100,000 tasks are in the history. Each view is opened in chromium, through the gateway's process:
the time until its first paint, and until it shows its data. Then 50 browsers show the overview; the
processor time of the service and of the gateway is counted over 30 s, less that of an idle
environment over as long.
"""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

import psutil
from playwright.sync_api import Browser, Page, StorageState

from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report
from bench.harness.environments import home, wait_until
from simenv import config
from simenv.client import environments, launch
from simenv.client.client import Client, connect

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))

NAME = "bench-page"
TASKS, BATCH = 100_000, 10_000
SETTINGS = {
    "name": NAME,
    "pools": [{"name": "main", "min": 2, "max": 2}],
    "gateway": {"listen": "127.0.0.1:0"},
}
VIEWS = ("", "tasks", "tasks/t-1", "devices", "nodes", "usage", "events")
PAGES, SECONDS = 50, 30.0
OPTIONS = (Option("--tasks", default=TASKS, quick=2_000, help="in the history"),)


def run(options: Namespace) -> Report:
    report = Report("page", f"web page: {options.tasks} tasks in the history")
    import browser

    with _environment() as client:
        _fill(client, options.tasks)
        with browser.chromium() as chromium:
            _paints(chromium, client, report)
            _open_pages(chromium, client, report)
    return report


@contextmanager
def _environment() -> Iterator[Client]:
    with home():
        environments.up(SETTINGS)
        try:
            with connect(NAME) as client:
                wait_until(lambda: client.dashboard is not None, 30.0)
                yield client
        finally:
            environments.down(NAME, now=True)


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


def _open_pages(chromium: Browser, client: Client, report: Report) -> None:
    """Open the overview in PAGES browsers: one has few connections, and a hidden page has none."""
    file = launch.running_gateway(config.home_root() / NAME)
    assert file is not None
    processes = psutil.Process(client.status().pid), psutil.Process(file.pid)
    idle = _cores(processes)
    cookies, size = _signed_in(chromium, client), {"width": 800, "height": 600}
    pages = [chromium.new_context(storage_state=cookies, viewport=size) for _ in range(PAGES)]
    for context in pages:
        context.new_page().goto(str(client.dashboard))
    for context in pages:
        context.pages[0].wait_for_selector("#link[data-state=live]")
    busy = _cores(processes)
    for context in pages:
        context.close()
    for name, before, after in zip(("service", "gateway"), idle, busy, strict=True):
        percent = max(0.0, 100 * (after - before))
        label = f"{PAGES} open pages, cost of the {name}, % of a core"
        report.at_most(f"{name}_percent", percent, label)


def _cores(processes: tuple[psutil.Process, ...]) -> list[float]:
    """Return the processor time of each over SECONDS, as cores."""
    before, begun = [_cpu_s(each) for each in processes], perf_counter()
    sleep(SECONDS)
    seconds = perf_counter() - begun
    return [(_cpu_s(each) - old) / seconds for each, old in zip(processes, before, strict=True)]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)

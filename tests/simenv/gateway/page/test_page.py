"""Every view in a real browser: what it shows, by keyboard alone, and no fault on the console."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from math import pi
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import parse_qs, urlsplit

import browser
import httpx
import msgspec
import pytest
from browser import WIDTHS, Faults, violations
from page_environment import LOGICAL, Shown, ghz, shown
from playwright.sync_api import Browser, Page, Route, expect
from qiskit import QuantumCircuit, qasm2, qpy
from qiskit.circuit import Parameter
from waiting import until

from noise_models import design
from simenv.calibration.logical import surface_code
from simenv.gateway.native import schemas
from simenv.gateway.page import views
from simenv.service.devices.registry import device_info

VIEWS = (
    "overview", "run", "tasks", "task", "waiting", "lost", "devices", "device", "nodes", "usage",
    "events", "logical", "pulses",
)  # fmt: skip
# What is there when a view has drawn its data.
READY = {
    "waiting": "#content .stages", "lost": "#content .stages", "task": "#content .outcomes",
    "device": "qubit-map circle", "logical": ".patches circle", "pulses": ".pulses path",
}  # fmt: skip
ATOMS = "neutral-atoms-analog"
TICK_MS = 10_000  # a sample of the stored series comes every ten seconds

FILTERS: dict[str, Any] = {"states": ()}  # of a task stream: none


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    browser.program()  # skips before anything is started
    with shown(tmp_path_factory.mktemp("gateway")) as result:
        yield result


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as result:
        yield result


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    size: Any = {"width": 1440, "height": 900}
    with chromium.new_context(viewport=size, timezone_id="UTC") as context:
        yield context.new_page()


def opened(page: Page, env: Shown, view: str) -> None:
    page.goto(env.url + env.paths[view])
    page.wait_for_selector(READY.get(view, "#content .card"))
    expect(page.locator("#link")).to_have_text("live")


@pytest.mark.parametrize("view", VIEWS)
def test_view_has_no_fault_at_any_width_and_colour_scheme(
    env: Shown, page: Page, view: str
) -> None:
    faults = Faults(page, env.url)
    opened(page, env, view)
    looks = list(product(WIDTHS.items(), ("light", "dark")))
    for (width, height), scheme in looks:
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
    assert not faults.found  # before axe, whose own styles the policy of content refuses
    for (width, height), scheme in looks:
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        # Of axe's rules, contrast alone depends on colours.
        found = violations(page, [] if scheme == "light" else ["color-contrast"])
        assert not found, f"{width} px, {scheme}"


TAB_STOPS = """() => [...document.querySelectorAll(
    'a[href], button, input, select, textarea, summary, [tabindex="0"]')]
    .filter((each) => !each.disabled && each.tabIndex >= 0 && each.checkVisibility())
    .map((each) => each.outerHTML.slice(0, 200))"""
FOCUSED = """() => {
    const each = document.activeElement;
    const ring = each.closest('.map') ? each.querySelector('circle') : each;
    const style = getComputedStyle(ring);
    const visible = ring === each
        ? style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
        : parseFloat(style.strokeWidth) >= 3;
    const box = each.getBoundingClientRect();
    return [each.outerHTML.slice(0, 200), visible, box.width > 0 && box.right > 0];
}"""


@pytest.mark.parametrize("view", VIEWS)
def test_tab_reaches_controls_in_order_with_seen_focus(env: Shown, page: Page, view: str) -> None:
    opened(page, env, view)
    page.route("**/api/**", lambda route: route.abort())  # the page stays as it is
    stops = page.evaluate(TAB_STOPS)
    assert len(stops) >= 8
    for stop in stops:
        page.keyboard.press("Tab")
        found, is_visible, is_on_screen = page.evaluate(FOCUSED)
        assert found == stop
        assert is_visible, stop
        assert is_on_screen, stop


def test_first_tab_stop_skips_to_content(env: Shown, page: Page) -> None:
    opened(page, env, "overview")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_overview_shows_new_task_and_expected_start_without_reload(env: Shown, page: Page) -> None:
    opened(page, env, "overview")
    task = env.client.submit(ghz(), shots=100, name="new-one", device="trapped-ions", pool="paced")
    row = page.locator(f'tr[data-key="{task.id}"]')
    expect(row).to_contain_text("new-one")
    expect(row).to_contain_text("QUEUED")
    expect(row).to_contain_text(re.compile(r"in \d"))
    expect(row).to_contain_text("waiting")
    task.cancel()
    expect(row).to_have_count(0)


def test_narrow_window_shows_why_a_task_waits(env: Shown, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    opened(page, env, "overview")
    reason = page.locator(f'tr[data-key="{env.waiting}"] td').last
    expect(reason).to_have_text("waiting for device trapped-ions, 1st in line")
    box = reason.bounding_box()
    assert box is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= 360


def test_lost_attempt_is_told_with_its_task_and_among_faults(env: Shown, page: Page) -> None:
    opened(page, env, "lost")
    lost = page.get_by_role("region", name="Lost attempts")
    expect(lost.locator("tbody tr")).to_have_count(1)
    expect(lost).to_contain_text("signal 9 (SIGKILL)")
    expect(page.get_by_text("2 attempts.")).to_be_visible()
    opened(page, env, "overview")
    expect(page.get_by_role("region", name="Faults")).to_contain_text("worker.lost")
    expect(page.get_by_text("1 attempt lost")).to_be_visible()


def test_focus_and_selection_stay_while_the_live_state_changes(env: Shown, page: Page) -> None:
    opened(page, env, "overview")
    link = page.locator(f'a[href="/ui/tasks/{env.waiting}"]')
    link.focus()
    page.evaluate("""() => new Promise((resolve) => {
        let states = 0;
        const source = new EventSource('/api/v1/live');
        source.addEventListener('live', () => (states += 1) >= 3 && resolve());
    })""")
    assert link.evaluate("each => each === document.activeElement")


def test_plots_have_points_of_stored_series_and_zoom_sets_range(env: Shown, page: Page) -> None:
    opened(page, env, "overview")
    plot = page.locator("time-plot canvas").nth(1)
    expect(plot).to_have_attribute("aria-label", re.compile(r"waiting \d"), timeout=3 * TICK_MS)
    over = page.locator("time-plot .u-over").first
    over.hover(position={"x": 100, "y": 20})  # waits until the plot has its place
    page.mouse.down()
    over.hover(position={"x": 200, "y": 20})
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"from=\d+&to=\d+"))
    page.get_by_role("button", name="6 h").press("Enter")
    expect(page).to_have_url(re.compile("last=21600"))
    page.go_back()
    expect(page).to_have_url(re.compile(r"from=\d+&to=\d+"))


def test_filter_of_tasks_is_kept_in_the_address(env: Shown, page: Page) -> None:
    opened(page, env, "tasks")
    page.get_by_label("State").select_option("QUEUED")
    expect(page.locator("tbody .mark").first).to_have_text("QUEUED")
    expect(page.locator("tbody .mark", has_text="DONE")).to_have_count(0)
    expect(page.get_by_role("region", name="Tasks").locator("tbody tr").first).to_contain_text(
        "waiting"
    )
    page.reload()
    expect(page.get_by_label("State")).to_have_value("QUEUED")
    expect(page.locator("tbody .mark", has_text="DONE")).to_have_count(0)
    page.get_by_label("Task", exact=True).fill(env.noisy)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/ui/tasks/{env.noisy}")


def test_task_stream_has_a_lane_a_worker_and_progress_a_row_a_kind(env: Shown, page: Page) -> None:
    client = env.client
    tasks = client.submit_many([ghz()] * 20, shots=100, name="stream-kind")
    for each in tasks:
        each.wait()
    failed = client.submit(
        ghz(), shots=100, name="stream-late", queue_timeout_s=0.001, after=[env.lost]
    )
    until(lambda: client.tasks([failed.id])[0].state.value == "EXPIRED")
    address = f"{env.url}/api/v1/stream"

    def streamed() -> list[list[Any]]:
        return httpx.get(address).raise_for_status().json()  # type: ignore[no-any-return]

    until(lambda: any(each[0] == failed.id for each in streamed()))  # one answer serves a second
    rows = streamed()
    row = next(each for each in rows if each[0] == tasks[0].id)
    logged = client.history.task(tasks[0])
    assert row[1:4] == ["stream-kind", "DONE", logged.worker]
    assert logged.submitted_s <= row[4] <= logged.ended_s
    assert row[5] == pytest.approx((logged.timing.run_us + logged.timing.compile_us) / 1e6)
    assert next(each for each in rows if each[0] == env.waiting)[4] == 0
    opened(page, env, "tasks")
    stream = page.locator("task-stream")
    expect(stream.get_by_text(logged.worker, exact=True)).to_be_visible()
    expect(stream.locator(f'[title^="{tasks[0].id} stream-kind: DONE"]')).to_have_count(1)
    kinds = page.get_by_role("region", name="Progress by kind")
    numbers = kinds.locator('tr[data-key="stream-kind"] td.number')
    expect(numbers).to_have_text(["20", "0", "0", "0"])
    expect(kinds.locator('tr[data-key="stream-late"] td.number')).to_have_text(["0", "1", "0", "0"])
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert kinds.evaluate("each => each.scrollWidth <= each.clientWidth"), width
    page.get_by_label("Pool").select_option("lattice")
    expect(kinds.locator('tr[data-key="stream-kind"]')).to_have_count(0)
    expect(stream.locator(f'[title^="{env.noisy} "]')).to_have_count(1)
    stream.locator(f'[title^="{env.noisy} "]').click()
    page.wait_for_url(f"**/ui/tasks/{env.noisy}")


def test_task_stream_has_old_unended_tasks(env: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_STREAM", 5)
    for task in env.client.submit_many([ghz()] * 20, shots=1):
        task.wait()
    address = f"{env.url}/api/v1/stream"

    def listed() -> list[str]:
        return [each[0] for each in httpx.get(address).raise_for_status().json()]

    until(lambda: len(listed()) <= 20)  # one answer serves a second
    every = listed()
    assert {env.lost, env.waiting} < set(every)
    assert len(every) == len(set(every))
    # Many that wait hide neither those that run nor those that have ended.
    waiting = env.client.submit_many([ghz()] * 12, shots=1, after=[env.lost])
    rows = views.stream_of(env.client, FILTERS)
    assert {each.state.value for each in rows[:5]} == {"QUEUED"}
    assert sum(each.state.value == "DONE" for each in rows) == 5
    for task in waiting:
        task.cancel()
    done = httpx.get(address, params={"state": "DONE"}).raise_for_status().json()
    assert [each[2] for each in done] == ["DONE"] * 5


def test_older_tasks_come_page_by_page(env: Shown, page: Page) -> None:
    env.client.submit_many([ghz()] * 60, shots=1)
    opened(page, env, "tasks")
    rows = page.get_by_role("region", name="Tasks").locator("tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Older tasks").press("Enter")
    expect(rows.nth(60)).to_be_visible()
    shown_ids = rows.locator("td:first-child").all_inner_texts()
    assert len(set(shown_ids)) == len(shown_ids) > 60


def test_task_page_shows_stages_circuit_and_counts_with_ideal_ones(env: Shown, page: Page) -> None:
    opened(page, env, "task")
    counts = env.client.task(env.noisy).result().counts
    bars = page.locator(".outcomes")
    expect(bars).to_contain_text(f"{counts['0000']:,}".replace(",", " "))
    assert page.locator(".stages dt").all_inner_texts()[0] == "queued"
    assert page.locator(".stages dt", has_text="engine").count() == 1
    names = page.locator(".circuit title").all_text_contents()
    assert sum(name.startswith("cz") for name in names) == 3
    assert sum(name.startswith("measure") for name in names) == 4
    expect(page.get_by_text("23 qubits without gates are left out")).to_be_visible()
    page.get_by_role("button", name="Compare with the ideal distribution").press("Enter")
    fidelity = page.get_by_text("Hellinger fidelity")
    expect(fidelity).to_be_visible(timeout=30_000)
    assert 0.85 < float(fidelity.inner_text().split()[-1]) < 0.999
    expect(bars).to_contain_text("(ideal 50 %)")


IS_INSIDE = """text => {
    const [outer, inner] = [text.parentNode.querySelector('rect'), text]
        .map((each) => each.getBoundingClientRect());
    return outer.left < inner.left && inner.right < outer.right
        && outer.top < inner.top && inner.bottom < outer.bottom;
}"""


def test_angles_stay_in_the_boxes_of_their_gates(env: Shown, page: Page) -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.u(0.123456, 1.6e-05, -2.31, 0)
    circuit.cp(15 * pi / 16, 0, 1)
    circuit.delay(100, 0, "us")
    circuit.measure([0, 1], [0, 1])
    task = env.client.submit(circuit, shots=10)
    page.goto(f"{env.url}/ui/tasks/{task.id}")
    angles = page.locator(".circuit .angle")
    expect(angles).to_have_text(["0.123, 0.000016, \N{MINUS SIGN}2.31", "15π/16", "100 µs"])
    for angle in angles.all():
        assert angle.evaluate(IS_INSIDE), angle.inner_text()


def test_bundle_of_task_runs_again(env: Shown) -> None:
    path = f"/api/v1/tasks/{env.noisy}/bundle"
    answer = httpx.get(env.url + path, timeout=60).raise_for_status()
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert {"bundle.json", "program.bin", "program.qasm", "result.json"} <= set(archive.namelist())
    assert "worker.log" not in archive.namelist()  # a worker's log has lines of others' tasks
    waiting = httpx.get(f"{env.url}/api/v1/tasks/{env.waiting}/bundle")
    assert waiting.status_code == 400
    assert "has not ended" in waiting.json()["detail"]


def test_cancel_by_keyboard(env: Shown, page: Page) -> None:
    task = env.client.submit(ghz(), shots=100, device="trapped-ions", pool="paced")
    page.goto(f"{env.url}/ui/tasks/{task.id}")
    page.get_by_role("button", name="Cancel task").press("Enter")
    expect(page.locator(".card .mark").first).to_have_text("CANCELLED")


def test_arrow_keys_move_over_coupling_map(env: Shown, page: Page) -> None:
    opened(page, env, "device")
    assert page.locator("qubit-map circle").count() == 27
    page.locator('[data-qubit="0"]').focus()
    page.keyboard.press("ArrowRight")
    chosen = page.evaluate("document.activeElement.dataset.qubit")
    assert chosen != "0"
    expect(page.locator("h3")).to_have_text(f"Qubit {chosen}")
    page.get_by_label("Colour of qubits").select_option("t1_us")
    expect(page.locator('[data-qubit="3"]')).to_have_attribute("aria-label", re.compile("T1.*"))


MIDDLE = "rgb(33,145,140)"  # of the colours


def test_broken_qubits_and_couplings_do_not_take_colours_of_others(env: Shown, page: Page) -> None:
    info = httpx.get(f"{env.url}/api/v1/devices/lattice").json()
    info["qubits"][3]["readout_error"] = 0.9
    errors = [qubit["readout_error"] for qubit in info["qubits"]]
    middle = errors.index(median(errors))
    pair = set(info["coupling"][0])
    for each in info["operations"]:
        each["error"] = 1.0 if set(each["qubits"]) == pair else each["error"]  # in both directions
    page.route("**/api/v1/devices/lattice", lambda route: route.fulfill(json=info))
    opened(page, env, "device")
    circles = page.locator("qubit-map circle")
    assert circles.nth(middle).get_attribute("fill") == MIDDLE
    fills = circles.evaluate_all("all => all.map((each) => each.getAttribute('fill'))")
    assert len(set(fills)) == len(set(errors))
    expect(page.locator("line.broken")).to_have_count(1)
    note = page.locator("g", has=page.locator("line.broken")).locator("title").last
    expect(note).to_have_text(re.compile("cz does not work"))
    works = len({frozenset(each) for each in info["coupling"]}) - 1
    expect(page.locator("line.pair")).to_have_count(works)
    expect(page.locator("line.rim")).to_have_count(works)


LENGTHS = """all => all.map(({ x1, y1, x2, y2 }) => Math.hypot(
    x1.baseVal.value - x2.baseVal.value, y1.baseVal.value - y2.baseVal.value))"""


@pytest.mark.parametrize("device", ["lattice", "guadalupe"])  # with coordinates, and without
def test_qubits_of_a_lattice_are_drawn_as_one(env: Shown, page: Page, device: str) -> None:
    page.goto(f"{env.url}/ui/devices/{device}")
    page.wait_for_selector("line.pair", state="attached")
    lengths = page.locator("line.pair").evaluate_all(LENGTHS)
    assert max(lengths) < 1.3 * min(lengths)


def test_figures_of_qubits_are_sorted_by_keyboard_and_downloaded(env: Shown, page: Page) -> None:
    opened(page, env, "device")
    info = env.client.device("lattice")
    errors = [each.readout_error for each in info.qubits]
    order = sorted(range(27), key=errors.__getitem__)
    region = page.get_by_role("region", name="Qubits")
    numbers = region.locator("tbody td:first-child")
    assert numbers.all_inner_texts() == [str(each) for each in range(27)]
    by_error = region.get_by_role("button", name="Readout error")
    heading = region.get_by_role("columnheader", name="Readout error")
    by_error.press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert numbers.all_inner_texts() == [str(each) for each in order]
    page.keyboard.press("Enter")
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert numbers.all_inner_texts() == [str(each) for each in reversed(order)]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").press("Enter")
    assert download.value.suggested_filename == "lattice-qubits.csv"
    with download.value.path().open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["readout_error"]) for row in rows] == errors
    assert [float(row["t2_us"]) for row in rows] == [each.t2_us for each in info.qubits]
    assert {len(row) for row in rows} == {5}
    # The median over sx, x and id: rz is a frame change, and a measurement is no gate.
    gates = [each for each in info.operations if each.name in ("sx", "x", "id")]
    wanted = [
        median(each.error for each in gates if each.qubits == (qubit,)) for qubit in range(27)
    ]
    assert [float(row["error_1q"]) for row in rows] == wanted


def test_limits_dim_the_map_and_shorten_the_lists(env: Shown, page: Page) -> None:
    opened(page, env, "device")
    device = env.client.device("lattice")
    errors = [each.readout_error for each in device.qubits]
    limit = sorted(errors)[-4]
    page.get_by_label("Qubits with readout error above").fill(str(limit))
    expect(page.get_by_text(f"3 of {len(errors)} are worse.")).to_be_visible()
    expect(page.locator("qubit-map [data-qubit].dim")).to_have_count(len(errors) - 3)
    worst = page.get_by_role("region", name="Qubits").locator("tbody td:first-child")
    assert {int(each) for each in worst.all_inner_texts()} == {
        index for index, error in enumerate(errors) if error > limit
    }
    page.get_by_role("button", name="couplings").press("Enter")
    rows = page.get_by_role("region", name="Couplings").locator("tbody tr")
    pairs = {
        tuple(sorted(each.qubits)): each.error for each in device.operations if each.name == "cz"
    }
    expect(rows).to_have_count(len(pairs))
    for _ in range(2):  # ascending, descending
        page.get_by_role("button", name=re.compile("^Error")).press("Enter")
    first = rows.first.locator("td").first.inner_text()
    assert tuple(map(int, re.findall(r"\d+", first))) == max(pairs, key=lambda pair: pairs[pair])
    page.get_by_label("Couplings with error above").fill(str(sorted(pairs.values())[-2]))
    expect(rows).to_have_count(1)
    expect(page.locator("qubit-map g.dim:not([data-qubit])")).to_have_count(len(pairs) - 1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    table = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8"))))
    assert {each["qubits"] for each in table} == {f"{a}-{b}" for a, b in pairs}
    page.get_by_label("Colour of qubits").select_option("T1")
    page.get_by_label("Qubits with T1 below, µs").fill("1")
    page.get_by_role("button", name="qubits").press("Enter")
    expect(page.get_by_text("None is worse.")).to_be_visible()


def test_one_value_for_all_qubits_is_the_error_of_each(env: Shown, page: Page) -> None:
    page.goto(f"{env.url}/ui/devices/paced")
    facts = page.locator("#content .card").first
    expect(facts).to_contain_text("Median two-qubit error0.0012")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").press("Enter")
    with download.value.path().open(newline="") as file:
        assert {row["error_1q"] for row in csv.DictReader(file)} == {"0.00005"}
    page.goto(f"{env.url}/ui/devices")
    row = page.get_by_role("row", name="paced")
    expect(row.get_by_role("cell").nth(5)).to_have_text("0.0012")


def test_map_of_device_without_qubit_figures_has_median_of_pairs(env: Shown, page: Page) -> None:
    info = httpx.get(f"{env.url}/api/v1/devices/lattice").json()
    pairs = sorted({(min(pair), max(pair)) for pair in info["coupling"]})
    info["qubits"] = []
    info["operations"] = [
        {"name": "cz", "qubits": list(pair), "error": (index % 4 + 1) / 1000, "duration_ns": 68.0}
        for index, pair in enumerate(pairs)
    ]
    assert len(pairs) % 2 == 0
    page.route("**/api/v1/devices/lattice", lambda route: route.fulfill(json=info))
    opened(page, env, "device")
    expect(page.locator("qubit-map circle")).to_have_count(27)
    facts = page.locator("#content .card").first
    expect(facts).to_contain_text("Median two-qubit error0.0025")
    expect(page.locator("qubit-map .scale")).to_have_text(re.compile(r"\(median 0\.0025\)"))


def test_terms_of_a_qubit_are_listed_with_places_and_units(env: Shown, page: Page) -> None:
    info = httpx.get(f"{env.url}/api/v1/devices/lattice").json()
    layout = design.lattice("line", 3)
    given = {
        "t1_us": 100.0, "t2_star_us": 30.0, "excited": 0.01, "leakage_2q": 0.002, "zz_khz": 40.0,
    }  # fmt: skip
    made, _ = design.snapshot_of(
        design.DeviceDesign(
            "made", 3, layout.couplings, values={name: (each,) for name, each in given.items()}
        )
    )
    terms = device_info("made", made, "").terms
    records = [schemas.TermRecord(*msgspec.structs.astuple(each)) for each in terms]
    info["terms"] = msgspec.to_builtins(records)
    page.route("**/api/v1/devices/lattice", lambda route: route.fulfill(json=info))
    opened(page, env, "device")
    facts = page.locator("#content dl").nth(1)
    for text in (
        "T2* (Ramsey)30 µs", "Population of 1 in thermal equilibrium0.01",
        "cz leakage0\u20131: 0.0021\u20130: 0.002", "ZZ interaction0\u20131: 40 kHz",
    ):  # fmt: skip
        expect(facts).to_contain_text(text)


def test_modules_and_links_are_drawn_and_are_no_gates(env: Shown, page: Page) -> None:
    """A link has a line of its own, and its error is not in the median of the gates."""
    info = httpx.get(f"{env.url}/api/v1/devices/lattice").json()
    first, second = info["coupling"][0]
    others = [qubit for qubit in range(27) if qubit != first]
    info["modules"] = [
        {"name": "<b>one</b>", "qubits": [first], "communication": [first]},
        {"name": "two", "qubits": others, "communication": [second]},
    ]
    info["links"] = [
        {"pair": [first, second], "fidelity": 0.9, "wait_ns": 101e3, "latency_ns": 5e3}
    ]
    info["operations"] = [
        {"name": "cz", "qubits": list(pair), "error": 0.002, "duration_ns": 68.0}
        for pair in info["coupling"]
    ]
    info["operations"][0]["error"] = 0.1
    info["logical"] = {
        "code": "rotated surface code", "distance": 3, "decoder": "pymatching", "chip": "fez",
        "physical_qubits": 17, "round_ns": 1100, "extrapolated": True, "patches": [],
    }  # fmt: skip
    page.route("**/api/v1/devices/lattice", lambda route: route.fulfill(json=info))
    opened(page, env, "device")
    expect(page.locator("qubit-map rect")).to_have_count(2 + 2)  # and two scales
    expect(page.locator("qubit-map text.module")).to_have_text(["<b>one</b>", "two"])
    expect(page.locator("line.link")).to_have_count(1)
    note = page.locator("g", has=page.locator("line.link")).locator("title").last
    expect(note).to_have_text(re.compile("link, infidelity 0.1, mean wait 101 µs, messages take 5"))
    facts = page.locator("#content .card").first
    expect(facts).to_contain_text("Median two-qubit error0.002")
    expect(facts).to_contain_text("two: 26 qubits")
    expect(facts).to_contain_text("rotated surface code of distance 3 on fez: 17 qubits each")
    assert not violations(page)


def test_patches_of_logical_qubits_are_drawn_on_their_chip(env: Shown, page: Page) -> None:
    opened(page, env, "logical")
    card = page.get_by_role("region", name="Patches of logical qubits on superconducting-square")
    origin = env.client.device(LOGICAL).logical
    assert origin is not None
    patches = card.locator(".patch")
    expect(patches).to_have_count(len(origin.patches))
    expect(card.locator("circle.site")).to_have_count(105)
    first = patches.first
    expect(first.locator("circle.data")).to_have_count(9)
    expect(first.locator(".check-x")).to_have_count(4)
    expect(first.locator(".check-z")).to_have_count(4)
    for number, check in enumerate(
        surface_code.rotated(3).checks
    ):  # the page numbers qubits as the code does
        corners = first.locator("polygon").nth(number).get_attribute("points") or ""
        circles = [first.locator("circle").nth(qubit) for qubit in check.data if qubit is not None]
        places = {
            ",".join(str(each.get_attribute(axis)) for axis in ("cx", "cy")) for each in circles
        }
        assert places <= set(corners.split())


def test_patches_without_their_chip_are_those_of_the_code(env: Shown, page: Page) -> None:
    chip = "**/api/v1/devices/superconducting-square"
    page.route(chip, lambda route: route.fulfill(status=404, json={"detail": "no device"}))
    opened(page, env, "logical")
    expect(page.locator(".patches .patch")).to_have_count(1)
    expect(page.get_by_text("this environment has no such device")).to_be_visible()


def test_register_and_pulses_of_a_sequence_are_drawn(env: Shown, page: Page) -> None:
    env.client.task(env.pulses).wait()
    opened(page, env, "pulses")
    register = page.get_by_role("region", name="Register of 6 atoms")
    expect(register.locator(".atom")).to_have_count(6)
    expect(register.locator(".atom title").first).to_contain_text("1 with probability")
    expect(page.locator(".outcomes code")).not_to_have_count(0)
    expect(register.locator(".blockade")).to_have_count(7)  # neighbours 6 um apart, within 7.6 um
    expect(
        page.get_by_text("Blockade radius at the largest Rabi frequency: 7.58 µm")
    ).to_be_visible()
    expect(page.locator("#content .card").first).to_contain_text("6 atoms for 700 ns")
    whole = page.get_by_role("region", name="Pulses of channel global")
    expect(whole.locator("path.area")).to_have_count(2)
    expect(whole).to_contain_text("28.6")
    local = page.get_by_role("region", name="Pulses of channel local")
    expect(local.locator("path.area")).to_have_count(3)
    expect(local.locator(".slot text")).to_have_text(["q0", "q4"])
    expect(page.get_by_text("Zero throughout: phase.")).to_be_visible()


def test_machine_of_neutral_atoms_has_limits_channels_and_noise(env: Shown, page: Page) -> None:
    faults = Faults(page, env.url)
    page.goto(f"{env.url}/ui/devices/{ATOMS}")
    channels = page.get_by_role("region", name="Channels")
    expect(channels.locator("tbody tr")).to_have_count(1)
    expect(channels).to_contain_text("0 to 15.8 rad/µs")
    expect(page.get_by_text("Least distance of atoms")).to_be_visible()
    expect(page.get_by_text("Probability that 1 is read as 0")).to_be_visible()
    expect(page.get_by_text("Coupling map")).to_have_count(0)
    assert not faults.found
    assert not violations(page)


def test_masked_atoms_of_a_sequence_have_broken_lines(env: Shown, page: Page) -> None:
    def masked(route: Route) -> None:
        route.fulfill(json=route.fetch().json() | {"masked": ["q1", "q3"], "mask_ns": 120})

    env.client.task(env.pulses).wait()
    page.route("**/pulses", masked)
    opened(page, env, "pulses")
    expect(page.locator("g.atom.masked text")).to_have_text(["q1", "q3"])
    expect(page.get_by_text("on the 2 atoms with broken lines until 120 ns.")).to_be_visible()


def test_sequence_that_cannot_be_drawn_says_why_as_text(env: Shown, page: Page) -> None:
    problem = {"detail": "<b>pulser</b> cannot sample the sequence"}
    page.route("**/pulses", lambda route: route.fulfill(status=422, json=problem))
    page.goto(env.url + env.paths["pulses"])
    expect(page.get_by_text("Not drawn: <b>pulser</b> cannot sample")).to_be_visible()


def test_unknown_task_leaves_nothing_to_wait_for(env: Shown, page: Page) -> None:
    page.goto(f"{env.url}/ui/tasks/t-zzzz")
    expect(page.get_by_role("alert")).to_have_text("no task t-zzzz here: simenv history lists them")
    expect(page.locator("#content")).to_have_text("")
    expect(page.locator("#link")).to_have_text("live")


def test_expectation_values_say_of_which_binding_they_are(env: Shown, page: Page) -> None:
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("x"), 0)
    tasks = env.client.submit_many((circuit, [[0.0], [1.0]]), observables=["Z"], shots=None)
    tasks[0].wait()
    page.goto(f"{env.url}/ui/tasks/{tasks[0].id.partition('.')[0]}")
    card = page.locator(".card", has=page.get_by_role("heading", name="Expectation values"))
    expect(card).to_contain_text("Of binding 0, the first of 2.")


def test_certificate_and_score_of_a_device_are_shown(env: Shown, page: Page) -> None:
    opened(page, env, "device")
    expect(page.get_by_text("96 %")).to_be_visible()
    plot = page.locator("time-plot canvas").last
    expect(plot).to_have_attribute("aria-label", re.compile("confirmed 0.96, score 0.93"))


def test_reader_chooses_among_stored_snapshots_of_a_device(env: Shown, page: Page) -> None:
    opened(page, env, "device")
    info = env.client.device("lattice")
    first, last = env.client.calibrations("lattice")
    assert env.client.device("lattice", first).qubits[0].t1_us == info.qubits[0].t1_us / 2
    page.get_by_label("Colour of qubits").select_option("t1_us")
    now = page.locator('[data-qubit="0"]').get_attribute("aria-label")
    choice = page.get_by_label("Snapshot")
    assert choice.locator("option").all_inner_texts() == [
        "in force now", "since 2026-03-02 06:00:00", "from 2026-03-01 06:00:00"
    ]  # fmt: skip
    facts = page.locator(".facts").first
    expect(facts).to_contain_text("+100 % since 2026-03-01 06:00:00")  # T1
    expect(facts).to_contain_text("no change since 2026-03-01 06:00:00")  # the two-qubit error
    expect(page.get_by_role("button", name="30 d")).to_have_attribute("aria-pressed", "true")
    choice.select_option(index=2)
    expect(page.get_by_role("heading", name="Stored snapshot")).to_be_visible()
    expect(facts).not_to_contain_text("since")
    expect(page.locator('[data-qubit="0"]')).not_to_have_attribute("aria-label", now or "")
    page.reload()
    expect(page.get_by_label("Snapshot")).to_have_value(str(int(first)))
    page.get_by_label("Snapshot").select_option("")
    expect(page.get_by_role("heading", name="Snapshot in force")).to_be_visible()
    assert "at=" not in page.url
    unknown = httpx.get(f"{env.url}/api/v1/devices/lattice?at_s={last + 1}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


def test_drain_by_keyboard_shows_reason_of_markup_as_text(env: Shown, page: Page) -> None:
    faults = Faults(page, env.url)
    opened(page, env, "nodes")
    reason = "<img src=x onerror=document.title='run'> fan"
    page.locator("summary", has_text="Drain").press("Enter")
    page.get_by_label("Reason").fill(reason)
    page.keyboard.press("Enter")
    expect(page.locator("tbody").first).to_contain_text(reason)
    page.get_by_role("button", name=re.compile("again")).press("Enter")
    expect(page.locator("tbody .mark").first).to_have_text("up")
    opened(page, env, "events")
    expect(page.locator("tbody")).to_contain_text(reason)
    assert page.title().startswith("Events")
    assert not faults.found


STEP_S = 10
GAP_S = 600  # in which no service ran


def series_of(begin_s: float, end_s: float, *gaps: tuple[float, float]) -> Callable[[Route], None]:
    """Answer requests for series with a value of 1 every STEP_S, and none in the gaps."""
    names = ["queue", "running", "done_per_s", "unsuccessful_per_s", "slots_used"]

    def answer(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        since, until = (float(query.get(key, [0])[0]) for key in ("since", "until"))
        times = [
            at
            for at in range(int(begin_s), int(end_s), STEP_S)
            if since <= at < (until or end_s) and not any(low < at < high for low, high in gaps)
        ]
        columns = {key: [1.0] * len(times) for key in ("mean", "least", "most")}
        name = query.get("name", [""])[0]
        route.fulfill(json={"name": name, "unit": "", "at_s": times, **columns, "names": names})

    return answer


PLOTTED = """() => {
    const { plot, data } = document.querySelectorAll('time-plot')[1];
    return [data[0], data[1], plot.scales.x.min, plot.scales.x.max];
}"""


def plotted(page: Page) -> tuple[list[float], list[float | None], float, float]:
    canvas = page.locator("time-plot canvas").nth(1)
    expect(canvas).to_have_attribute("aria-label", re.compile(r"waiting \d"))
    times, values, low, high = page.evaluate(PLOTTED)
    return times, values, low, high


def test_times_without_a_service_are_gaps_in_plots(env: Shown, page: Page) -> None:
    now_s = time.time()
    gap = now_s - 2_000, now_s - 2_000 + GAP_S
    page.route("**/api/v1/series**", series_of(now_s - 90_000, now_s, gap))
    opened(page, env, "overview")
    times, values, low, _ = plotted(page)
    absent = [at for at, value in zip(times, values, strict=True) if value is None]
    assert len(absent) == 1
    assert gap[0] - STEP_S <= absent[0] <= gap[1]
    assert now_s - low == pytest.approx(3_600, abs=60)


def test_plots_of_a_young_environment_begin_with_it(env: Shown, page: Page) -> None:
    now_s = time.time()
    page.route("**/api/v1/series**", series_of(now_s - 180, now_s))
    opened(page, env, "overview")
    times, _, low, high = plotted(page)
    assert now_s - low == pytest.approx(180, abs=2 * STEP_S)
    assert high - times[-1] < 0.2 * (high - low)


def test_plots_without_samples_say_so(env: Shown, page: Page) -> None:
    page.goto(f"{env.url}/ui/devices/trapped-ions?last=900")
    expect(page.get_by_text("No data in this range.").first).to_be_visible()


def test_tasks_are_sorted_by_any_column_and_stay_so(env: Shown, page: Page) -> None:
    opened(page, env, "tasks")
    region = page.get_by_role("region", name="Tasks")
    heading = region.get_by_role("columnheader", name="Width")
    heading.get_by_role("button").press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    column = heading.evaluate("each => each.cellIndex") + 1
    cells = region.locator(f"tbody td:nth-child({column})")
    found = [int(each) for each in cells.all_inner_texts()]
    assert found == sorted(found)
    assert len(set(found)) > 1
    heading.get_by_role("button").press("Enter")
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert [int(each) for each in cells.all_inner_texts()] == sorted(found, reverse=True)
    expect(region.locator("thead")).to_contain_text("Device")
    expect(region.locator("thead")).to_contain_text("Progress")


def uploaded(page: Page, env: Shown, name: str, body: bytes) -> None:
    opened(page, env, "run")
    page.get_by_label("File").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": body}
    )


def test_a_circuit_of_a_file_runs_as_a_task_of_its_reader(env: Shown, page: Page) -> None:
    packed = io.BytesIO()
    qpy.dump(ghz(), packed)
    for name, body in (("ghz.qasm", qasm2.dumps(ghz()).encode()), ("ghz.qpy", packed.getvalue())):
        uploaded(page, env, name, body)
        page.get_by_label("Seed").fill("7")
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Which engine?").click()
        expect(page.get_by_role("heading", name="would run it")).to_be_visible()
        page.get_by_role("button", name="Run").click()
        page.wait_for_url("**/ui/tasks/t-*")
        expect(page.locator("h1")).to_contain_text(name)
        expect(page.locator(".outcomes")).to_contain_text("111")


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("huge.qasm", b"//" + b"x" * (5 * 2**20), "the page takes 4 MiB at most"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "neither text nor a QPY file"),
        ("broken.qpy", b"QISKIT" + b"\xff" * 2_000, "QPY"),
        ("broken.qasm", b"OPENQASM 2.0;\nqreg q[2];\nh r[0];\n", "line 3"),
        ("markup.qasm", b"<img src=x onerror=document.title='run'>", ""),
        ("include.qasm", b'OPENQASM 3.0;\ninclude "/etc/passwd";\n', "passwd"),
        ("wide.qasm", b"OPENQASM 2.0;\nqreg q[100000000];\n", ""),
        ("empty.qasm", b"", "program"),
    ],
)
def test_files_that_are_no_circuits_are_refused_in_words(
    env: Shown, page: Page, name: str, body: bytes, text: str
) -> None:
    count = env.client.status().done
    uploaded(page, env, name, body)
    alert = page.get_by_role("alert")
    if name not in ("huge.qasm", "picture.png"):  # these are not sent at all
        page.get_by_role("button", name="Run").click()
    expect(alert).not_to_be_empty()
    expect(alert).to_contain_text(text)
    assert "root:" not in alert.inner_text()
    assert not page.title().startswith("run")
    assert page.url.endswith("/ui/run")
    assert env.client.status().done == count


def test_seed_above_integers_of_javascript_is_one_of_task(env: Shown, page: Page) -> None:
    seed = 2**64 - 1
    opened(page, env, "run")
    field = page.get_by_label("Seed")
    for wrong in ("-1", "1.5", "0x10", str(seed + 1)):
        field.fill(wrong)
        page.get_by_role("button", name="Run").click()
        assert "an integer from 0 to" in field.evaluate("each => each.validationMessage"), wrong
    assert page.url.endswith("/ui/run")
    field.fill(str(seed))
    page.get_by_role("button", name="Run").click()
    page.wait_for_url("**/ui/tasks/t-*")
    expect(page.get_by_text(f"1 024 shots, seed {seed}")).to_be_visible()
    assert env.client.history.submitted(page.url.rsplit("/", 1)[1]).spec.seed == seed
    page.go_back()
    expect(page.get_by_label("Circuit")).to_have_value(re.compile("OPENQASM"))


def test_refusal_is_shown_beside_the_field_that_it_names(env: Shown, page: Page) -> None:
    text = qasm2.dumps(QuantumCircuit(1, 1).compose(rotated(), [0], [0]))
    uploaded(page, env, "rotated.qasm", text.encode())
    engine = page.get_by_label("Engine")
    assert {"statevector", "stabilizer"} <= set(engine.locator("option").all_inner_texts())
    engine.select_option("stabilizer")
    page.get_by_role("button", name="Run").click()
    expect(engine).to_have_attribute("aria-invalid", "")
    expect(engine).to_have_accessible_description(re.compile("stabilizer"))
    expect(engine).to_be_focused()
    assert not violations(page)
    engine.select_option("statevector")
    page.get_by_role("button", name="Run").click()
    page.wait_for_url("**/ui/tasks/t-*")
    expect(page.get_by_text("statevector", exact=True)).to_be_visible()


def rotated() -> QuantumCircuit:
    """One qubit and an angle that no stabilizer simulator takes."""
    circuit = QuantumCircuit(1, 1)
    circuit.rx(0.3, 0)
    circuit.measure(0, 0)
    return circuit


def test_account_of_a_task_is_chosen_where_there_are_several(env: Shown, page: Page) -> None:
    opened(page, env, "run")
    expect(page.get_by_label("Account")).to_be_hidden()
    accounts = env.client.accounts
    for name in ("chem", "physics"):
        accounts.set(name, users=("ana",))
    try:
        opened(page, env, "run")
        page.get_by_label("Account").select_option("physics")
        page.get_by_role("button", name="Run").click()
        page.wait_for_url("**/ui/tasks/t-*")
        expect(page.get_by_text("physics", exact=True)).to_be_visible()
    finally:
        for name in ("chem", "physics"):
            accounts.remove(name)


DROP = """([names, bodies]) => {
    const data = new DataTransfer();
    names.forEach((name, index) => data.items.add(new File([bodies[index]], name)));
    document.body.dispatchEvent(new DragEvent('drop',
        { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def test_files_are_dropped_anywhere_and_one_at_a_time(env: Shown, page: Page) -> None:
    opened(page, env, "run")
    text = qasm2.dumps(ghz())
    page.evaluate(DROP, [["a.qasm", "b.qasm"], [text, text]])
    expect(page.get_by_role("alert")).to_contain_text("a task has one circuit")
    page.evaluate(DROP, [["a.qasm"], [text]])
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.get_by_label("Circuit")).to_have_value(text)
    expect(page.get_by_text("a.qasm: ")).to_be_visible()


def test_theme_is_kept(env: Shown, page: Page) -> None:
    page.emulate_media(color_scheme="light")
    opened(page, env, "usage")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark


def test_inline_script_and_foreign_content_are_refused(env: Shown, page: Page) -> None:
    opened(page, env, "usage")
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'document.title = "run"';
        document.head.append(script);
        const image = document.createElement('div');
        image.innerHTML = '<img src=x onerror="document.title = \\'run\\'">';
        document.body.append(image);
    }""")
    page.wait_for_timeout(100)
    assert page.title() != "run"


@pytest.fixture
def client(env: Shown) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=env.url) as result:
        yield result


def test_documents_and_files_of_the_page(client: httpx.Client) -> None:
    document = client.get("/ui/tasks/t-1")
    policy = document.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert document.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/").next_request.url.path == "/ui/"  # type: ignore[union-attr]
    files = re.findall(r'"(/ui/static/[^"]+)"', document.text)
    assert len(files) >= 5
    for path in files:
        assert "immutable" in client.get(path).raise_for_status().headers["Cache-Control"]
    stale = client.get("/ui/static/0123456789abcdef/style.css")
    assert stale.headers["Cache-Control"] == "no-store"
    for path in ("/ui/none", "/ui/tasks/a/b", "/ui/static/x/../site.py", "/ui/nodes/vm"):
        assert client.get(path).status_code == 404, path
    assert "<script>" not in document.text


def test_vendored_files_are_those_of_the_script_that_makes_them() -> None:
    root = Path(__file__).parents[4]
    script = (root / "scripts/page.sh").read_text()
    pinned = re.findall(r"^([0-9a-f]{64})  (\S+)$", script, re.MULTILINE)
    assert len(pinned) == 3
    for digest, path in pinned:
        file = root / path.replace("$static", "simenv/gateway/page/static")
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, path

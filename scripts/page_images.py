"""Make pictures of the web page: python scripts/page_images.py [--all FOLDER]

The environment is that of the tests of the page, with chromium unpacked by scripts/unpacked.sh.
Without --all the pictures of the guide are made, in docs/images: whole pages in COLORS colours, in
at most MAX_BYTES each. With it each view is shown in each of LOOKS, to be looked at.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import browser  # noqa: E402
from page_environment import Shown, ghz, shown  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page  # noqa: E402
from qiskit.circuit.random import random_circuit  # noqa: E402

from simenv.client.client import Client  # noqa: E402

MAX_BYTES = 100_000
COLORS = 256
SECONDS = 100.0  # of work before the pictures of the guide: the plots have something to show
SECONDS_OF_ALL = 45.0
READY = "#content .card, qubit-map circle"
LARGE = "fez"  # a device of qiskit-ibm-runtime, without coordinates


class Look(NamedTuple):
    """Size of the window and colours of one picture of a view."""

    width: int
    height: int
    scheme: str


GUIDE = Look(1280, 900, "light")
LOOKS = {
    "light": GUIDE, "dark": Look(1280, 900, "dark"),
    "phone": Look(390, 844, "light"), "phone-dark": Look(390, 844, "dark"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="each view in each look")
    folder: Path | None = parser.parse_args().all
    with tempfile.TemporaryDirectory() as place:
        os.environ["SIMENV_HOME"] = str(Path(place, "home"))  # for a device of its own
        with shown(Path(place)) as environment, browser.chromium() as chromium:
            if folder is None:
                _guide(environment, chromium)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                _all(environment, chromium, folder)


def _guide(environment: Shown, chromium: Browser) -> None:
    _work(environment, SECONDS)
    page = _page(chromium, GUIDE)
    for name in ("overview", "task", "device", "pulses"):
        page.goto(f"{environment.url}{environment.paths[name]}?last=900")
        page.wait_for_selector(READY)
        if name == "task":
            page.get_by_role("button", name="Compare with").click()
            page.get_by_text("Hellinger fidelity").wait_for()
        path = ROOT / "docs" / "images" / f"page_{name}.png"
        _shot(page, GUIDE).quantize(COLORS).save(path, optimize=True)
        size = path.stat().st_size
        print(f"{path}: {size} bytes")
        assert size <= MAX_BYTES, f"{path} has {size} bytes; the limit is {MAX_BYTES}"


def _all(environment: Shown, chromium: Browser, folder: Path) -> None:
    accounts = environment.client.accounts
    accounts.set("chem", share=2.0, budget_slot_h=500.0, users=("ana", "ben"))
    accounts.set("physics", share=1.0, users=("eva",))
    _fail(environment.client)
    _work(environment, SECONDS_OF_ALL)
    paths = {**environment.paths, "large": f"/ui/devices/{LARGE}"}
    for look_name, look in LOOKS.items():
        page = _page(chromium, look)
        for view, path in paths.items():
            page.goto(f"{environment.url}{path}")
            page.wait_for_selector(READY)
            _shot(page, look).save(folder / f"{view}-{look_name}.png")
        page.close()


def _page(chromium: Browser, look: Look) -> Page:
    size = {"width": look.width, "height": look.height}
    return chromium.new_page(viewport=size, color_scheme=look.scheme)  # type: ignore[arg-type]


def _work(environment: Shown, seconds: float) -> None:
    """Submit small tasks for a while."""
    end, turn = time.monotonic() + seconds, 0
    for qubits in (3, 4, 5):
        paced = {"device": "trapped-ions", "pool": "paced", "name": f"ghz-{qubits}"}
        environment.client.submit(ghz(qubits), shots=1_000, **paced)
    while time.monotonic() < end:
        turn += 1
        environment.client.submit_many([ghz(4)] * (5 + turn * 7 % 11), shots=200, name="ghz-4")
        time.sleep(0.5)


def _fail(client: Client) -> None:
    """Submit tasks that fail: one in its run, one behind it, one in the queue."""
    long = client.submit(random_circuit(24, 60, measure=True), run_timeout_s=0.2, name="too-long")
    client.submit(ghz(), shots=100, after=[long], name="behind-too-long")
    client.submit(ghz(), shots=100, pool="paced", queue_timeout_s=1.0, name="impatient")


def _shot(page: Page, look: Look) -> Image.Image:
    """Return the picture of a whole page. The window gets the height of the page, so that the
    navigation beside it does too."""
    page.wait_for_timeout(1_500)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": look.width, "height": height})
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.set_viewport_size({"width": look.width, "height": look.height})
    return picture


if __name__ == "__main__":
    main()

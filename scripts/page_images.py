"""Make the pictures of the web page for its guide: python scripts/page_images.py [FOLDER]

The environment is that of the tests of the page, with chromium unpacked by scripts/unpacked.sh.
Each picture shows a whole page in COLORS colours, in at most MAX_BYTES.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import browser  # noqa: E402
from page_environment import Shown, ghz, shown  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

MAX_BYTES = 100_000
COLORS = 256
SECONDS = 100.0  # of work, so that the plots have something to show
SIZE = {"width": 1280, "height": 900}


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.environ["SIMENV_HOME"] = str(Path(place, "home"))  # for a device of its own
        _pictures(folder, Path(place))


def _pictures(folder: Path, place: Path) -> None:
    with shown(place) as environment:
        _work(environment)
        with browser.chromium() as chromium:
            page = chromium.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
            for name, view in (("overview", "overview"), ("task", "task"), ("device", "device")):
                page.goto(f"{environment.url}{environment.paths[view]}?last=900")
                page.wait_for_selector("#content .card, qubit-map circle")
                if name == "task":
                    page.get_by_role("button", name="Compare with").click()
                    page.get_by_text("Hellinger fidelity").wait_for()
                page.wait_for_timeout(1_500)
                # The window gets the height of the page, so that the navigation beside it does too.
                height = page.evaluate("document.documentElement.scrollHeight")
                page.set_viewport_size({"width": SIZE["width"], "height": height})
                _save(page, folder / f"page_{name}.png")
                page.set_viewport_size(SIZE)  # type: ignore[arg-type]


def _work(environment: Shown) -> None:
    """Submit small tasks for a while."""
    end, turn = time.monotonic() + SECONDS, 0
    for qubits in (3, 4, 5):
        paced = {"device": "trapped-ions", "pool": "paced", "name": f"ghz-{qubits}"}
        environment.client.submit(ghz(qubits), shots=1_000, **paced)
    while time.monotonic() < end:
        turn += 1
        environment.client.submit_many([ghz(4)] * (5 + turn * 7 % 11), shots=200, name="ghz-4")
        time.sleep(0.5)


def _save(page: Page, path: Path) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLORS)
    picture.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size} bytes")
    assert size <= MAX_BYTES, f"{path} has {size} bytes; the limit is {MAX_BYTES}"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")

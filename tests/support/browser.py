"""A browser for tests of the web page: this machine's chromium, else Debian's, unpacked once.

Where it cannot be had, the test skips and says why, but not in CI.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from packages import bring
from playwright.sync_api import Browser, Page, Response, sync_playwright

FOLDER = Path(sys.prefix) / "var" / "simenv-chromium"
AXE = Path(__file__).with_name("axe.min.js")
WIDTHS = {360: 740, 1440: 900}  # heights by widths of the window


def program() -> tuple[str, dict[str, str]]:
    """The path of chromium and its environment variables. Skips the test where there is none."""
    own = shutil.which("chromium")
    if own is not None:
        return own, dict(os.environ)
    why = bring("unpacked.sh", FOLDER, "chromium", "fonts-dejavu-core")
    if why:
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    libraries = next(FOLDER.glob("usr/lib/*-linux-gnu"))
    environ = {**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{libraries / 'pulseaudio'}"}
    environ["XDG_DATA_HOME"] = str(FOLDER / "usr/share")  # fonts
    if (FOLDER / "etc/fonts").is_dir():  # else the machine's own
        environ["FONTCONFIG_PATH"] = str(FOLDER / "etc/fonts")
    return str(FOLDER / "usr/lib/chromium/chromium"), environ


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    path, environ = program()
    with sync_playwright() as playwright:
        # Its sandbox needs rights that containers lack; the only pages are those of the test.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], env={**environ}
        )
        try:
            yield browser
        finally:
            browser.close()


class Faults:
    """What a page reported: errors, exceptions, failed requests, foreign addresses."""

    def __init__(self, page: Page, url: str) -> None:
        self._url = url
        self.found: list[str] = []
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.found.append(f"exception: {error}"))
        page.on("response", self._answered)
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.found.append(f"console {kind}: {text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.found.append(f"{response.status} of {response.url}")

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self._url}/", "data:", "blob:")):
            self.found.append(f"a request to {url}")


def violations(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe-core finds, by all rules or some, one line a violation. The script runs
    outside the page's policy of content, which would refuse it."""
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE.read_text())
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = page.evaluate(
        "async (options) => (await axe.run(document, options)).violations", options
    )
    return [
        f"{each['id']}: {each['help']}: {node['html'][:160]}"
        for each in found
        for node in each["nodes"]
    ]

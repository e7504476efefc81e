"""The documentation's site builds without warnings, is complete, and loads nothing from the web."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer.main
from interpreter import python

from simenv.cli.app import application
from simenv.config.pools import KEYS

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"\bSIMENV_[A-Z][A-Z_]*[A-Z]\b")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once; every warning of MkDocs is an error."""
    if not os.environ.get("CI"):
        pytest.importorskip("mkdocs")
        pytest.importorskip("material")
        pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = python(*command, cwd=ROOT, env=environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Fetched(HTMLParser):
    """Collects what a browser loads for a page: scripts, styles, pictures, frames."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(named.get("src") or "")
        elif tag == "link" and named.get("rel") in ("stylesheet", "preload", "preconnect"):
            self.addresses.append(named.get("href") or "")


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    sources = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert len(sources) >= 29
    assert [path for path in sources if not (site / path.with_suffix(".html")).exists()] == []


def test_pages_load_nothing_from_the_web(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = Fetched()
        fetched.feed(page.read_text())
        # Pictures of notebooks are in the page; their base64 may have two slashes.
        addresses = [each for each in fetched.addresses if not each.startswith("data:")]
        assert not [each for each in addresses if "//" in each], page


def test_search_leaves_out_the_changelog_and_pages_of_figures(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/site"))
    from hooks import NOT_SEARCHED

    index = json.loads((site / "search/search_index.json").read_text())["docs"]
    found = {document["location"].partition("#")[0] for document in index}
    left_out = {Path(page).with_suffix(".html").as_posix() for page in NOT_SEARCHED}
    assert all((site / page).exists() for page in left_out)
    assert found & left_out == set()
    assert {"start/student.html", "guides/devices.html", "reference/errors.html"} <= found


def test_the_command_line_reference_has_every_command(site: Path) -> None:
    page = (site / "reference/cli.html").read_text()
    for name in typer.main.get_command(application()).commands:  # type: ignore[attr-defined]
        assert f"<code>simenv {name}</code></a>" in page or f"<code>simenv {name}</code>" in page


def test_the_python_reference_has_every_public_method_of_a_client(site: Path) -> None:
    import simenv

    page = (site / "reference/python.html").read_text()
    for owner in (simenv.Client, simenv.Task, simenv.Result, simenv.Reservation):
        for name in vars(owner):
            if not name.startswith("_") and (getattr(owner, name).__doc__ or ""):
                assert f'.{owner.__name__}.{name}"' in page, f"{owner.__name__}.{name}"


def test_configuration_reference_has_the_keys_of_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/site"))
    import configuration_reference

    page = configuration_reference.configuration_page()
    section = page.partition("## `[[pools]]`")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert sorted(key for cell in cells for key in re.findall("`(.*?)`", cell)) == sorted(KEYS)


def test_configuration_reference_has_each_variable_of_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/site"))
    import configuration_reference

    packages = ("simenv", "simulators", "launcher", "noise_models")
    sources = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    sources += (ROOT / "scripts").glob("*.sh")
    read = {name for path in sources for name in NAMED.findall(path.read_text())}
    assert read == set(configuration_reference.VARIABLES)

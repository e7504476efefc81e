"""README.md and the documentation name what exists, and their tables are complete."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from bench.harness.report import goals
from simenv.cli.app import application

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MAX_README_LINES = 90  # about one screen and a half, tables and pictures included
MAX_GUIDE_CHARACTERS = 9_000  # four screens; what is looked up is in docs/reference


def commands(page: Path) -> list[str]:
    """Return the code spans and shell lines of a page that call the command line."""
    text = page.read_text()
    spans = re.findall(r"`(simenv [^`]*)`", text)
    fenced = "".join(FENCED.findall(text))
    lines = re.findall(r"^(?:\.venv/bin/)?(simenv .*)$", fenced, re.MULTILINE)
    return spans + lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_exist(page: Path) -> None:
    called = set(re.findall(r"^simenv ([a-z]+)\b", "\n".join(commands(page)), re.MULTILINE))
    assert called <= set(typer.main.get_command(application()).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmarks_of_a_page_exist(page: Path) -> None:
    named = re.findall(r"-m bench run ([a-z_ ]+)", page.read_text())
    assert {name for names in named for name in names.split()} <= set(goals())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    # made when the site is built
    generated = ("cli.md", "configuration.md", "errors.md", "http.md")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert Path(target).name in generated or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_rows_of_a_table_have_as_many_cells(page: Path) -> None:
    text = FENCED.sub("", page.read_text())
    for table in re.findall(r"(?:^ *\|.*\n?)+", text, re.MULTILINE):
        rows = re.sub(r"`[^`\n]*`|\\\|", "", table).splitlines()
        assert len({row.count("|") for row in rows}) == 1, rows


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


def test_guides_have_at_most_four_screens() -> None:
    guides = [*(ROOT / "docs/guides").glob("*.md"), *(ROOT / "docs/start").glob("*.md")]
    lengths = {page.name: len(page.read_text()) for page in guides}
    assert {name: size for name, size in lengths.items() if size > MAX_GUIDE_CHARACTERS} == {}


def test_files_that_the_commands_write_are_ignored_by_git() -> None:
    entries = [command.split() for page in PAGES for command in commands(page)]
    options = ("--out", "--bundle", "--save")
    written = [
        after
        for line in entries
        for before, after in itertools.pairwise(line)
        if before in options and "." in after
    ]
    assert {"ana.simenv", "t-1.zip", "large.h5"} <= set(written)
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout, or no git")
    command = ["git", "check-ignore", "--no-index", *written]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == set(written)

"""Importers and commands of another distribution, as docs/guides/write_importer.md has them."""

import sys
from collections.abc import Callable
from pathlib import Path

import lab_distribution
import pytest
from shell import Shell, shell_of

from noise_models.importers import importers
from simenv.cli import completion

TABLE = (
    "qubit,t1_us,t2_us,readout_error,sx_error,cz_error\n"
    "0,120,80,0.01,0.0003,1:0.006\n1,110,90,0.012,0.0004,0:0.006\n"
)


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Shell:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("SIMENV_HOME", str(home))
    return shell_of("", capfd)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def installed(*more: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        monkeypatch.syspath_prepend(lab_distribution.install(folder, *more))

    return installed


def test_table_of_a_laboratory_is_imported_and_its_command_runs(
    shell: Shell, install: Callable[..., None], tmp_path: Path
) -> None:
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    assert shell("devices", "import", str(table)).code == 2
    install()
    result = shell("devices", "import", str(table), "--name", "chip", "--json")
    assert result.code == 0, result.err
    assert result.object["report"]["format"] == "lab-table"
    shown = shell("worst", "chip")
    assert (shown.code, shown.out) == (0, "cz (0, 1): 0.006\n")
    assert shell("worst", "chip", "--json").object["error"] == 0.006
    assert "worst" in shell("--help").out.split("Installed commands")[1]
    table.write_text(TABLE.replace("readout_error", "read_err"))
    assert "read_err: looks like noise" in shell("devices", "import", str(table)).err
    table.write_text(TABLE.replace("120", "long"))
    assert "row 2: t1_us: 'long' is not a number" in shell("devices", "import", str(table)).err


def test_an_importer_that_raises_another_error_is_named_with_it(
    shell: Shell, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    monkeypatch.setattr(importers()["lab-table"], "read", staticmethod(lambda *_: 1 // 0))
    failed = shell("devices", "import", str(table)).err
    assert "lab-table: the importer failed: ZeroDivisionError" in failed


def test_command_that_cannot_be_loaded_says_why_and_hides_no_other(
    shell: Shell, install: Callable[..., None]
) -> None:
    install("[simenv.commands]", "lost = nowhere:command\nsubmit = lab_tools:worst")
    result = shell("lost")
    assert result.code == 2
    assert "nowhere:command cannot be loaded: ModuleNotFoundError" in result.err
    assert "quantum" in shell("submit", "--help").out + "quantum"
    listed = shell("--help")
    assert (listed.code, listed.out.count("\n  submit ")) == (0, 1)


def test_completion_of_the_first_word_has_its_name_and_imports_no_command(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.delitem(sys.modules, "lab_tools", raising=False)
    monkeypatch.setenv("COMP_WORDS", "simenv wor")
    assert "worst" in completion.tree().commands
    assert "lab_tools" not in sys.modules


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("lost = nowhere:Importer", "ModuleNotFoundError"),
        ("other = lab_tools:LabTable", "not an importer of that name"),
    ],
)
def test_importer_that_cannot_be_used_is_named(
    line: str, part: str, shell: Shell, install: Callable[..., None], tmp_path: Path
) -> None:
    install("[simenv.importers]", line)
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    result = shell("devices", "import", str(table), "--format", "abacus")
    assert result.code == 2
    assert part in result.err
    assert shell("devices", "import", str(table), "--name", "chip").code == 0  # the other works
    table.write_text("qubit,colour\n0,red\n")
    assert part in shell("devices", "import", str(table)).err


def test_answer_of_the_wrong_shape_is_an_error_of_the_importer(
    shell: Shell, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    found = importers()["lab-table"]
    for answer in (None, (1, 2)):
        monkeypatch.setattr(found, "read", lambda *_, answer=answer: answer)
        result = shell("devices", "import", str(table), "--format", "lab-table")
        assert "the importer failed: TypeError" in result.err


def test_without_the_distribution_there_are_no_further_importers() -> None:
    assert "lab-table" not in importers()

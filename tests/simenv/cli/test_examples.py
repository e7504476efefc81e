"""`simenv examples`: the folder that the lines of the documentation name."""

from pathlib import Path

import pytest

from simenv.cli.app import run

ROOT = Path(__file__).parents[3]


def test_folder_has_each_example_and_a_changed_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["examples"]) == 0
    written = {path.relative_to("examples") for path in Path("examples").rglob("*")}
    there = {path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*")}
    assert written == {path for path in there if "__pycache__" not in path.parts}
    count = sum(path.is_file() for path in Path("examples").rglob("*"))
    Path("examples/bell.qasm").write_text("mine")
    assert run(["examples"]) == 0
    assert Path("examples/bell.qasm").read_text() == "mine"
    assert capfd.readouterr().out.endswith(
        f"examples: 0 files written; {count} were there already and stay as they are\n"
    )


def test_a_file_in_place_of_the_folder_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    assert run(["examples", str(taken)]) == 2
    assert f"error: {taken} is a file\n  simenv examples FOLDER" in capfd.readouterr().err


def test_a_folder_in_place_keeps_its_mode_and_a_link_without_target_is_not_followed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    elsewhere = tmp_path / "elsewhere"
    (private / "bell.qasm").symlink_to(elsewhere)
    assert run(["examples", str(private)]) == 0
    assert private.stat().st_mode & 0o777 == 0o700
    assert not elsewhere.exists()
    assert "error" not in capfd.readouterr().err

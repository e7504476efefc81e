"""The commit in the version of a build."""

import subprocess
from pathlib import Path

import pytest

from simenv import _version


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder of one commit."""
    (tmp_path / "file").write_text("before")
    for line in ("init -q", "add file", "-c user.name=a -c user.email=a@b commit -q -m first"):
        subprocess.run(["git", "-C", str(tmp_path), *line.split()], check=True)
    return tmp_path


def test_builds_of_other_commits_and_changed_files_have_other_versions(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_version, "__file__", str(clone / "simenv" / "_version.py"))
    monkeypatch.setattr(_version, "_COMMIT", "$Format:%h$")
    clean = _version.build()
    assert clean.startswith(f"{_version.__version__}+g")
    (clone / "file").write_text("after")
    assert _version.build() == f"{clean}.dirty"
    monkeypatch.setattr(_version, "_COMMIT", "1aece0b25")  # as `git archive` writes it
    assert _version.build() == f"{_version.__version__}+g1aece0b25"


def test_where_no_commit_is_known_the_version_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_version, "__file__", str(tmp_path / "simenv" / "_version.py"))
    monkeypatch.setattr(_version, "_COMMIT", "$Format:%h$")
    assert _version.build() == _version.__version__


def test_archives_write_the_commit_into_the_module() -> None:
    attributes = Path(__file__).parents[2] / ".gitattributes"
    assert "simenv/_version.py export-subst" in attributes.read_text().splitlines()

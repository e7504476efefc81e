"""The notebooks run from their first cell to the last, and the site shows them with outputs."""

import json
import re
import sys
from pathlib import Path

import pytest
from interpreter import python

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
RUNNER = ROOT / "scripts" / "site" / "notebooks.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_to_its_end(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    done = python(RUNNER, copy, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in json.loads(copy.read_text())["cells"] if "outputs" in cell]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)


def test_stored_notebooks_have_outputs_which_their_pages_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(RUNNER.parent))
    import notebooks

    assert len(NOTEBOOKS) == 6
    for name, text in notebooks.pages().items():
        assert text.startswith("# "), name
        assert "```text\n" in text, name
        assert not re.search(r"/(home|root|tmp|Users)/", text), name
    sys.modules.pop("notebooks")

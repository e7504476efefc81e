"""The engine `dense` of docs/guides/write_engine.md, as an installed distribution."""

import atexit
import re
import tempfile
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "write_engine.md"


def _written() -> Path:
    """Write the page's module and the metadata of a distribution into a temporary folder."""
    folder = tempfile.TemporaryDirectory(prefix="simenv-engine-")
    atexit.register(folder.cleanup)
    path = Path(folder.name)
    text = PAGE.read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (points,) = re.findall(r"^(dense = .*)$", text, re.MULTILINE)
    (path / "dense_engine.py").write_text(code)
    metadata = path / "dense_engine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dense-engine\nVersion: 1.0\n")
    entry = points.replace('"', "")
    (metadata / "entry_points.txt").write_text(f"[simenv.engines]\n{entry}\n")
    return path


FOLDER = _written()

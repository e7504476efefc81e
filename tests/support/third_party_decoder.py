"""An installed decoder: `table` of docs/guides/write_decoder.md."""

import atexit
import re
import tempfile
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "write_decoder.md"


def table() -> Path:
    """Return a folder for the path of Python, with the decoder of the guide."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (point,) = re.findall(r'^(\w+) = "(\w+:CARD)"$', PAGE.read_text(), re.MULTILINE)
    folder = tempfile.TemporaryDirectory(prefix="simenv-decoder-")
    atexit.register(folder.cleanup)
    path = Path(folder.name)
    (path / "table_decoder.py").write_text(code)
    metadata = path / "table_decoder-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: table-decoder\nVersion: 1.0\n")
    text = f"[simenv.decoders]\n{point[0]} = {point[1]}\n"
    (metadata / "entry_points.txt").write_text(text)
    return path

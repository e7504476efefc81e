"""The distribution of docs/guides/write_importer.md, in a folder for the path of Python."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "write_importer.md"


def install(folder: Path, *more: str) -> Path:
    """Write the module lab_tools and its metadata; `more`: further lines of entry points."""
    text = PAGE.read_text()
    code = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (folder / "lab_tools.py").write_text("\n".join(code))
    section = r'^\[project\.entry-points\."([\w.]+)"\]\n(.*?)(?=\n\n|^```)'
    points = re.findall(section, text, re.MULTILINE | re.DOTALL)
    lines = [f"[{group}]\n{names.strip()}".replace('"', "") for group, names in points]
    metadata = folder / "lab_tools-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tools\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("\n\n".join((*lines, *more)) + "\n")
    return folder

"""Installed engines: `dense` of docs/guides/write_engine.md, and one that leaks."""

import atexit
import re
import tempfile
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "write_engine.md"
LEAKED_MIB = 450
LEAKY = f"""
import time
from simulators.catalog import EngineCard
from simulators.catalog.costs import StatevectorCost
from simulators.execution.outputs import DenseState, EngineBase

CARD = EngineCard(
    name="leaky", module="leaky_engine:LeakyEngine", outputs=("counts",), max_qubits=4,
    summary="holds memory that its card does not name", costs=StatevectorCost(),
)


class LeakyEngine(EngineBase):
    card = CARD

    def final_state(self, run):
        held = [bytearray(b"leak") * 2**18 for _ in range({LEAKED_MIB})]
        for _ in range(160):
            run.control.check()
            time.sleep(0.05)
        raise ValueError(f"{{len(held)}} MiB were held for 8 s")
"""


def _distribution(name: str, code: str) -> Path:
    """Write the module NAME_engine, with a CARD, and its metadata into a temporary folder."""
    folder = tempfile.TemporaryDirectory(prefix="simenv-engine-")
    atexit.register(folder.cleanup)
    path = Path(folder.name)
    (path / f"{name}_engine.py").write_text(code)
    metadata = path / f"{name}_engine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}-engine\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(f"[simenv.engines]\n{name} = {name}_engine:CARD\n")
    return path


def leaky() -> Path:
    """Return a folder for the path of Python, with the engine `leaky`."""
    return _distribution("leaky", LEAKY)


def _dense() -> Path:
    text = PAGE.read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (point,) = re.findall(r"^(dense = .*)$", text, re.MULTILINE)
    assert point == 'dense = "dense_engine:CARD"'
    return _distribution("dense", code)


FOLDER = _dense()

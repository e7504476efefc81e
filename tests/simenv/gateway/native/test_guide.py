"""The lines of docs/guides/http.md run as they are pasted."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_stand_in import GatewayStandIn

PAGE = Path(__file__).parents[4] / "docs" / "guides" / "http.md"
BIN = Path(sys.executable).parent  # has the command `simenv`
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_examples_of_the_guide_succeed(gateway: GatewayStandIn, tmp_path: Path) -> None:
    assert len(BLOCKS) >= 6
    for block in BLOCKS:
        script = (
            f"set -euo pipefail\nPATH={BIN}:$PATH\nURL={gateway.url}/api/v1\nTOKEN=admin\n{block}"
        )
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert done.stdout or "-o " in block

"""Code blocks of the pages qpm.md and hardware_qpm.md run as they are, each in a new process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 240


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs/guides" / page).read_text(encoding="utf-8")
    matches = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in matches]


@pytest.mark.parametrize("number", [0, 1])
def test_each_python_block_of_the_qpm_page_runs_by_itself(number: int) -> None:
    block = blocks("qpm.md", "python")[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'11'" in done.stdout


def test_qpm_page_has_two_python_blocks() -> None:
    assert len(blocks("qpm.md", "python")) == 2


@pytest.mark.slow
def test_commands_of_hardware_qpm_page_run_in_order(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "SIMENV_HOME": str(tmp_path)}
    script = "\n".join(["set -e", *blocks("hardware_qpm.md", "bash")])
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert " 0 failed" in done.stdout
    finally:
        subprocess.run(["simenv", "down", "--now"], env=environ, check=False, timeout=60)

"""The documentation of the QPM, and the kit on simenv's own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simenv.cli.app import run

ROOT = Path(__file__).parents[2]
LIMIT_S = 240


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs/guides" / page).read_text(encoding="utf-8")
    matches = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in matches]


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


SOME = (
    "query.*", "admission.reason", "polling.gone", "info.width", "record.*", "counts.*",
    "execution.sync*", "execution.cancel-running", "events.once",
    "reservation.released", "credits.returned", "credits.delayed", "statevector.*", "crowd.fifty",
    "control.shutdown", "clients.*", "transport.error-stack",
)  # fmt: skip
TARGETS = ("inprocess", "defw", "hardware", "emulated")
THROUGH_A_HOST = ("crowd.*", "events.once", "polling.read", "single.*", "transport.*")


def broken(captured: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What failed, and why, of the object on the last line."""
    document = json.loads(captured.readouterr().out.splitlines()[-1])
    assert document["passed"] > 0, document
    return {row["id"]: row["why"] for row in document["rows"] if row["state"] == "failed"}


@pytest.mark.parametrize("target", TARGETS)
def test_own_qpm_passes_conformance_checks(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them in this process; `simenv.client.qpm` and the plugin have tests of the rest."""
    chosen = {"inprocess": (), "defw": (*SOME, *THROUGH_A_HOST)}.get(target, SOME)
    only = [word for pattern in chosen for word in ("--only", pattern)]
    code = run(["qpm", "check", target, "--json", *only])
    assert not broken(capsys)
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS[1:])
def test_own_qpm_passes_all_conformance(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["qpm", "check", target, "--json"])
    assert not broken(capsys)
    assert code == 0

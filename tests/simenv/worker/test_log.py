"""Where a worker writes, whoever started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from simenv.worker.main import log_of

SCRIPT = """
import os, sys
from pathlib import Path
from simenv.worker.main import write_to
write_to(Path(sys.argv[1]))
print("said", flush=True)
os.write(2, b"complained\\n")
os.system("echo from below")
"""


def written(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False
    )


def test_what_a_worker_says_goes_to_its_starter_or_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "main-0.log"
    path.write_text("before\n")
    done = written(path)
    assert (done.stdout, done.stderr) == ("", "")
    assert path.read_text() == "before\nsaid\ncomplained\nfrom below\n"


def test_a_log_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "main-0.log"
    written(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_leads_a_log_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "main-0.log").symlink_to(tmp_path / "elsewhere")
    assert written(tmp_path / "main-0.log").returncode != 0
    assert not (tmp_path / "elsewhere").exists()


def test_two_ranks_write_into_one_log() -> None:
    path = Path("/logs/main.x4-0.log")
    assert log_of(path, 0) == path
    assert log_of(path, 3) == Path("/logs/main.x4-0.r3.log")

"""Packages that tests bring: one process at a time, for what gets them is not made for several."""

import fcntl
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
LOCK = Path(sys.prefix) / "var" / "simenv-packages.lock"


def bring(script: str, *words: str | Path) -> str:
    """Run one of `scripts/`; "" or why it could not get them. The second time ends at once."""
    LOCK.parent.mkdir(exist_ok=True)
    command = [SCRIPTS / script, *words]
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"{script} failed" if done.returncode else ""

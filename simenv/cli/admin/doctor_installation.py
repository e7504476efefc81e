"""Findings of `simenv doctor` and `simenv qfw check`, and checks of the installation.

A report prints the findings. The checks cover imported packages, versions and extras.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import typer

import simenv
from simenv.cli import app, terminal

Level = Literal["ok", "warn", "fail"]


class DoctorFinding(msgspec.Struct, frozen=True):
    """Finding of a check. `level`: ok, warn (works, but not at its best) or fail. `remedy`: command
    to type."""

    level: Level
    what: str
    detail: str
    remedy: str = ""


def found(what: str, detail: str, remedy: str = "", level: Level = "warn") -> DoctorFinding:
    """Return a finding that is ok without a remedy, else of this level."""
    return DoctorFinding(level if remedy else "ok", what, detail, remedy)


def verdict(what: str, detail: str, fault: str = "", remedy: str = "") -> DoctorFinding:
    """Return a finding that fails with `fault` and its remedy, or is ok with `detail`."""
    if fault:
        return DoctorFinding("fail", what, fault, remedy)
    return DoctorFinding("ok", what, detail)


def report(context: typer.Context, findings: Iterable[DoctorFinding]) -> None:
    """Print each finding as it comes; a remedy is printed once. Exit code 1 if one fails."""
    failed = False
    remedies = {""}
    for finding in findings:
        failed |= finding.level == "fail"
        lines = [f"{terminal.paint(finding.level, width=4)}  {finding.what:<13} {finding.detail}"]
        if finding.remedy not in remedies:
            lines.append(f"{'':20}type: {finding.remedy}")
            remedies.add(finding.remedy)
        app.settings_of(context).answer(finding, lines)
    if failed:
        raise typer.Exit(1)


PACKAGES = ("simenv", "simulators", "launcher", "noise_models")
OLDEST = (3, 11)
EXTRAS = (  # without mpi: the checks of launchers print its remedy
    ("qasm3", "qiskit_qasm3_import", "OpenQASM 3 files"),
    ("plots", "matplotlib", "the picture of `simenv demo`"),
    ("qpm", "yaml", "`simenv qpm check` of plugins"),
)
CORE = ("numpy", "numba", "pyzmq", "msgspec", "qiskit")


def names() -> Iterator[DoctorFinding]:
    """Check that no other file takes the place of one of our packages."""
    root = Path(simenv.__file__).parents[1]
    problems = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).parents[1] != root:
            problems.append(f"{name} is {spec.origin if spec else 'nowhere'}")
    if problems:
        remedy = "pip install --force-reinstall --no-deps .   # in the clone of simenv"
        yield found("names", "; ".join(problems), remedy, "fail")
        return
    for candidate in (Path.cwd() / "simenv.py", Path.cwd() / "simenv" / "__init__.py"):
        if candidate.exists() and candidate.parent != root / "simenv":
            detail = f"a program started in {Path.cwd()} would import {candidate}"
            yield found("names", detail, f"mv {candidate} {candidate.with_stem('my_simenv')}")
            return
    yield found("names", f"{', '.join(PACKAGES)} of {root}")


def versions() -> Iterator[DoctorFinding]:
    """Check the version of Python; report the versions of the main dependencies."""
    result = f"Python {sys.version.split()[0]}"
    if sys.version_info < OLDEST:
        yield found("versions", result, "make a virtual environment of Python >= 3.11", "fail")
        return
    from importlib import metadata

    try:
        parts = [f"{name} {metadata.version(name)}" for name in ("simenv", *CORE)]
    except metadata.PackageNotFoundError as error:
        remedy = "pip install .   # in the clone of simenv"
        yield found("versions", f"{error.name} is missing", remedy, "fail")
        return
    yield found("versions", ", ".join((result, *parts)))


PACKAGED_NUMBA = "compiler/machine_code/numba.txt"  # of simulators; scripts/release.py writes it


def packaged_kernels() -> Iterator[DoctorFinding]:
    """Check that numba has the one version for which a wheel carries compiled kernels."""
    from importlib import metadata

    import simulators

    file = Path(simulators.__file__).parent / PACKAGED_NUMBA
    if not file.exists():
        return
    made, here = file.read_text().strip(), metadata.version("numba")
    if made == here:
        yield found("kernels", f"of this wheel, for numba {made}")
        return
    detail = (
        f"of this wheel, for numba {made}; numba {here} compiles all of them at the first start"
    )
    yield found("kernels", detail, f"pip install numba=={made}")


def extras() -> Iterator[DoctorFinding]:
    """Report the optional extras and engines."""
    from simulators import catalog  # no other file shadows it: `names` ran before
    from simulators.catalog import decoders

    engines = [
        (match[1], card.package.modules[0], f"{kind} {card.name}: {card.summary}")
        for kind, cards in (("engine", catalog.CARDS), ("decoder", (decoders.LDPC,)))
        for card in cards
        if (match := re.search(r"simenv\[(\w+)\]", card.package.install))
    ]
    for extra, module, use in (*EXTRAS, *engines):
        if importlib.util.find_spec(module) is None:
            remedy = f"pip install 'simenv[{extra}]'"
            yield found("extra", f"{extra} is not installed: {use}", remedy)
        else:
            yield found("extra", f"{extra}: {use}")

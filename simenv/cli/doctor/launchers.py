"""Checks of the start of workers: nodes of the allocation, launch agent, launchers."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from launcher import probe, selection
from launcher.allocation.discover import discover
from launcher.allocation.this_node import is_this_node
from launcher.base import AllocationError
from launcher.probe_cache import mpi4py_version
from launcher.process.agent import remote_command
from launcher.prte.node_probe import NodeProbe
from simenv import config
from simenv.cli.doctor.finding import DoctorFinding
from simenv.cli.output import terminal
from simenv.config import Config
from simenv.config.environ import worker_environ

SHOWN_NODES = 8
_LOOK_S = 0.02


def nodes() -> Iterator[DoctorFinding]:
    """Report the allocation, and check which of its nodes the agent reaches."""
    try:
        allocation = discover(os.environ)
    except AllocationError as error:
        yield DoctorFinding("fail", "nodes", str(error), error.hint)
        return
    names = [node.name for node in allocation.nodes]
    shown = ", ".join(names[:SHOWN_NODES]) + (", ..." if len(names) > SHOWN_NODES else "")
    count = terminal.counted(len(names), "node")
    slots, memory = allocation.slots, terminal.size(allocation.memory_bytes)
    yield DoctorFinding(
        "ok", "nodes", f"{allocation.source}: {count} ({shown}), {slots} slots, {memory}"
    )
    yield from _agent([name for name in names if not is_this_node(name)])


def _agent(others: list[str]) -> Iterator[DoctorFinding]:
    agent = config.launch_agent(Config())
    program = remote_command(others[0] if others else "HOST", ["true"], os.environ, agent)[0]
    if shutil.which(program) is None:
        detail = f"{program} is not here: no way to other nodes"
        remedy = "export SIMENV_LAUNCH_AGENT=/path/of/a/program"
        yield DoctorFinding("fail" if others else "warn", "agent", detail, remedy)
        return
    if not others:
        yield DoctorFinding("ok", "agent", f"{program}, used if other nodes are added")
        return
    node_probe = NodeProbe(others, os.environ, agent, time.monotonic())
    while not node_probe.poll(time.monotonic()):
        time.sleep(_LOOK_S)  # probes are only polled
    for node, why in node_probe.unreachable.items():
        yield DoctorFinding(
            "fail", "agent", f"{program} does not reach {node}: {why}", f"{program} {node} true"
        )
    if node_probe.reachable:
        yield DoctorFinding("ok", "agent", f"{program} reaches {', '.join(node_probe.reachable)}")


def launchers() -> Iterator[DoctorFinding]:
    """Start two ranks by each launcher; report the MPI to which mpi4py is bound."""
    folder = Path(tempfile.mkdtemp(prefix="simenv-doctor-"))
    try:
        environ = dict(worker_environ(os.environ))
        outcomes = selection.probe_all(os.environ, folder, worker_environ=environ)
        working = [outcome for outcome in outcomes if outcome.works]
        for outcome in outcomes:
            name = " ".join(
                filter(
                    None, (outcome.launcher, outcome.version, outcome.path and f"({outcome.path})")
                )
            )
            if outcome.works:
                detail = f"{name}: two ranks saw one another in {outcome.seconds:.1f} s"
                yield DoctorFinding("ok", "launcher", detail)
            else:
                yield DoctorFinding(
                    "warn", "launcher", f"{name}: {outcome.detail}", selection.INSTALL_COMMAND
                )
        works, mpi_detail = (
            (True, working[0].detail) if working else probe.probe_single_rank(environ)
        )
    finally:
        shutil.rmtree(folder)
    if works:
        yield DoctorFinding("ok", "mpi", f"mpi4py {mpi4py_version()} is bound to {mpi_detail}")
    else:
        detail = f"{mpi_detail}; workers have one rank each"
        yield DoctorFinding("warn", "mpi", detail, selection.INSTALL_COMMAND)

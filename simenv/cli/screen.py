"""`simenv status`: one screen that says whether an environment is well, and what happened to it."""

from __future__ import annotations

import time

from simenv.cli import out
from simenv.cli.folding import folded
from simenv.client.signs import elapsed
from simenv.model import Event, ServiceInfo

# What happened to an environment itself, among all the events of its tasks and workers.
TOLD = ("node.*", "dvm.*", "launcher.*", "pool.*", "allocation.*", "worker.lost", "journal.damaged")
AT_THE_START = ("allocation.found", "launcher.chosen", "dvm.started")  # of every start
SHOWN_EVENTS = 5
INDENT = 9  # of a line's text, behind its word
STATES = ("up", "drained", "lost")  # of nodes


def happened(events: list[Event], info: ServiceInfo) -> list[Event]:
    """What is worth a line, since this service began."""
    since_s = time.time() - info.up_s
    found = [event for event in events if event.time_s >= since_s]
    while found and found[0].kind in AT_THE_START:  # later they are news
        del found[0]
    return found[-SHOWN_EVENTS:]


def lines(info: ServiceInfo, events: list[Event]) -> list[str]:
    """The screen, line by line."""
    counts = (
        f"{out.number(info.done)} done, {info.failed} failed, {info.cancelled} cancelled, "
        f"{info.expired} expired, {info.lost_attempts} attempts lost"
    )
    return [
        f"SERVICE  {info.name}  process {info.pid} on {info.node}  up {elapsed(info.up_s)}  "
        f"version {info.version}  durability {info.durability}",
        f"TASKS    {counts}",
        f"LOAD     waiting {out.number(info.queued)}   running {info.running}   "
        f"oldest {elapsed(info.oldest_s)}   completions unread {out.number(info.unread)}",
        f"NODES    {nodes(info)}",
        f"MEMORY   {out.size(info.memory_bytes)} for circuits up to {info.max_qubits} qubits   "
        f"service {out.size(info.rss_bytes)}, loop lag p99 {info.loop_lag_p99_ms:.1f} ms",
        *([f"LAUNCHER {out.clean(info.launcher)}"] if info.launcher else []),
        f"POOLS    {pools(info)}",
        *(f"EVENT    {_event(each)}" for each in events),
        *_warnings(info),
    ]


def nodes(info: ServiceInfo) -> str:
    """`2 up, 1 drained   slots 28/32 used   Slurm job 17, ends in 1:59:00`."""
    states = [node.state for node in info.nodes]
    counted = [f"{states.count(state)} {state}" for state in STATES if state in states]
    words = [", ".join(counted) or "1 up"]
    words.append(f"slots {info.slots_granted}/{info.slots} used")
    if info.max_ranks > 1:
        words.append(f"workers of up to {info.max_ranks} ranks")
    if info.allocation:
        words.append(out.clean(info.allocation))
    if info.end_s:
        words.append(f"ends in {elapsed(info.end_s - time.time())}")
    return "   ".join(words)


def pools(info: ServiceInfo) -> str:
    """`sv 4/4   mps 2/2`."""
    return "   ".join(f"{pool.name} {pool.workers}/{pool.target}" for pool in info.pools)


def machines(info: ServiceInfo) -> str:
    """`gpu[07-08], 32 slots`; "" where the service does not say."""
    if not info.nodes:
        return ""
    return f"{folded(node.name for node in info.nodes)}, {out.counted(info.slots, 'slot')}"


def _warnings(info: ServiceInfo) -> list[str]:
    """Nodes and pools that are not well are among the service's own warnings; one that only waits
    for something is not."""
    known = "\n".join(info.warnings)
    waiting = [
        f"pool {pool.name}: {pool.reason}"
        for pool in info.pools
        if pool.reason and pool.reason not in known
    ]
    return [f"{out.paint('WARN')}     {out.clean(each)}" for each in (*info.warnings, *waiting)]


def _event(event: Event) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(event.time_s))
    return out.clean(f"{when}  {event.kind}  {event.subject}  {event.message}".rstrip())

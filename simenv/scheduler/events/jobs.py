"""Events of the jobs by which nodes of a pool come: listed, refused, joined, leaving, over.

A node is known from the start of the service, as the cloud nodes of Slurm are, so that programs are
accepted for it; `NodeState.job` says whether it is there. Invariant: a job that is over leaves no
worker on its node; the tasks that ran there wait again and none of them is charged.
"""

from __future__ import annotations

from launcher.base import Node
from simenv.scheduler import core
from simenv.scheduler.events.workers import declare_worker_lost
from simenv.scheduler.scaling import jobs
from simenv.scheduler.state import nodes, scheduler_state


def _host(
    state: scheduler_state.SchedulerState, name: str
) -> tuple[nodes.NodeState, nodes.NodeJob] | None:
    host = state.cluster.nodes.hosts.get(name)
    return None if host is None or host.job is None else (host, host.job)


def job_listed(state: scheduler_state.SchedulerState, name: str, detail: str) -> list[core.Action]:
    """Record the identifier of a submitted job, and why it waits."""
    found = _host(state, name)
    if found is None or found[1].phase is not nodes.NodeJobPhase.SUBMITTED:
        return []
    job = found[1]
    is_first, job.detail = not job.detail, detail
    return [core.RecordEvent("job.submitted", name, detail)] if is_first else []


def job_refused(
    state: scheduler_state.SchedulerState,
    name: str,
    reason: str,
    now_ns: int,
    *,
    blame: bool = True,
) -> list[core.Action]:
    """Record that a job was not submitted, or has ended before its node joined. With `blame` it is
    a failure of its pool: the next submission waits, and after several none follows."""
    found = _host(state, name)
    if found is None or found[1].phase is not nodes.NodeJobPhase.SUBMITTED:
        return []
    host, _ = found
    host.job = nodes.NodeJob()
    pool = state.cluster.pools[host.node.pool]
    actions: list[core.Action] = [core.RecordEvent("job.failed", name, reason)]
    if blame:
        actions.append(pool.starts.record_failure(f"job of {name}: {reason}", now_ns))
    else:
        pool.starts.back_off(now_ns)
    return actions


def node_joined(
    state: scheduler_state.SchedulerState, node: Node, source: str, end_ns: int, now_ns: int
) -> list[core.Action]:
    """Use a node whose job has begun. `node`: as its agent reports it; it keeps its name, pool and
    block. `end_ns`: when the site ends the job; 0: never."""
    found = _host(state, node.name)
    if found is None or found[1].phase is not nodes.NodeJobPhase.SUBMITTED:
        return []
    host, job = found
    pool = state.cluster.pools[host.node.pool]
    jobs.learn_start(pool, job, now_ns)
    host.node = node
    host.free_slots, host.free_memory = node.slots, node.memory_bytes
    host.free_gpus = list(node.gpu_names)
    host.avoid_until_ns = 0
    host.job = nodes.NodeJob(
        nodes.NodeJobPhase.UP, job.detail, source, job.submitted_ns, now_ns, end_ns
    )
    state.cluster.nodes_changed()
    took_s = (now_ns - job.submitted_ns) / 1e9
    left = f", ends in {(end_ns - now_ns) / 1e9:.0f} s" if end_ns else ""
    text = f"{source}, {took_s:.1f} s after its submission{left}"
    return [core.RecordEvent("node.joined", node.name, text)]


def node_leaving(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """Start nothing more on a node whose job the site is about to end."""
    found = _host(state, name)
    if found is None or found[1].phase is not nodes.NodeJobPhase.UP:
        return []
    return jobs.drain(state, found[0], reason, now_ns)


def job_over(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """Record the end of the job of a node that had joined."""
    found = _host(state, name)
    if found is None or found[0].is_absent:
        return []
    host, job = found
    was_ending = job.phase is nodes.NodeJobPhase.ENDING
    actions: list[core.Action] = []
    for worker in list(host.workers.values()):
        text = f"node {name} has left: {reason}"
        actions += declare_worker_lost(state, worker, text, now_ns, blame=False)
    pool = state.cluster.pools[host.node.pool]
    if not pool.starts.failures:
        pool.starts.resume()  # other jobs are sound
    host.job, host.drained, host.lost = nodes.NodeJob(), "", ""
    state.cluster.nodes_changed()
    kind = "node.left" if was_ending and not actions else "node.lost"
    return [core.RecordEvent(kind, name, f"{job.source}: {reason}"), *actions]

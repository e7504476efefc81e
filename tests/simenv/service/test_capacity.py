"""A node that is lost or drained takes no part in routing, views and refusals until it is back."""

import time

import msgspec
from service import LIMITS, ServiceHarness, program, spec

from launcher.base import Node
from simenv.model import ServiceInfo, TaskOptions, TaskSpec, TaskState
from simenv.scheduler.core import ClusterLimits
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import GetPools, Pools
from simenv.wire.messages.explain import Explain, Explained, Explanation

MIB = 2**20
NODES = (Node("n1", 1, 100 * MIB), Node("n2", 1, 1024 * MIB))
TWO: ClusterLimits = msgspec.structs.replace(LIMITS, slots=2, memory_bytes=1124 * MIB, nodes=NODES)
WIDE = 24  # qubits: 256 MiB of amplitudes
POOL = {"name": "main", "engine": "statevector", "min": 1, "max": 2}
OPTIONS = {"limits": TWO, "pools": [POOL]}


def wide() -> TaskSpec:
    return TaskSpec(program(WIDE).packed(), 100, 1)


def submit(bench: ServiceHarness, key: str, **terms: object) -> m.Accepted | m.Refused:
    return bench.submit(wide(), key=key, terms=TaskOptions(**terms))


def lose(bench: ServiceHarness) -> None:
    bench.loop.executor.execute(bench.scheduler.node_lost("n2", "no answer", time.monotonic_ns()))


def status(bench: ServiceHarness) -> ServiceInfo:
    return bench.get(m.Status, m.GetStatus(2)).info


def explained(bench: ServiceHarness) -> Explanation:
    return bench.get(Explained, Explain(3, TaskOptions(), program(WIDE).packed(), 100)).explanation


def test_program_for_a_lost_node_is_refused_until_it_is_back(bench: ServiceHarness) -> None:
    assert isinstance(submit(bench, "a"), m.Accepted)
    lose(bench)
    (refusal,) = submit(bench, "b").refusals
    assert refusal.code == "infeasible"
    assert "n2 is lost: no answer" in refusal.message
    assert "queue_timeout_s" in refusal.hint
    bench.loop.executor.execute(bench.scheduler.node_back("n2"))
    assert isinstance(submit(bench, "c"), m.Accepted)


def test_program_with_a_queue_timeout_waits_for_the_lost_node(bench: ServiceHarness) -> None:
    lose(bench)
    answer = submit(bench, "a", queue_timeout_s=60.0)
    (queue,) = bench.say(m.GetTasks(4, [answer.first]))
    assert "n2 is lost: no answer" in queue.tasks[0].reason
    bench.loop.executor.execute(bench.scheduler.tick(time.monotonic_ns() + 61 * 10**9))
    assert bench.state.tasks.ended[TaskState.EXPIRED] == 1


def test_task_that_fits_no_node_any_more_is_in_queue_and_events(bench: ServiceHarness) -> None:
    accepted = submit(bench, "a")
    bench.submit(spec(1))
    lose(bench)
    (queue,) = bench.say(m.GetTasks(4, [accepted.first]))
    assert "more than the nodes in use have: n2 is lost: no answer" in queue.tasks[0].reason
    (value,) = bench.events("task.unplaceable")
    assert value.subject == "main"
    assert value.message.startswith("1 waiting tasks fit no node")


def test_status_and_explain_count_only_nodes_that_are_up(bench: ServiceHarness) -> None:
    before = status(bench)
    assert explained(bench).engines[0].able
    lose(bench)
    after = status(bench)
    assert (before.slots, after.slots, after.memory_bytes) == (2, 1, 100 * MIB)
    assert after.max_qubits < WIDE <= before.max_qubits
    choice = explained(bench).engines[0]
    assert not choice.able
    assert "n2 is lost" in choice.why
    assert bench.get(Pools, GetPools(6)).pools[0].max_qubits < WIDE


def test_tasks_are_accepted_while_no_node_is_up(bench: ServiceHarness) -> None:
    lose(bench)
    bench.loop.executor.execute(bench.scheduler.drain_node("n1", "fan", time.monotonic_ns()))
    assert isinstance(submit(bench, "a"), m.Accepted)

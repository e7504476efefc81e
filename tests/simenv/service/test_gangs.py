"""Programs over several ranks, and workers kept for reservations, over a restart too."""

import msgspec
from reservation_harness import ReservationHarness
from service import LIMITS, ServiceHarness, program, spec

from launcher.base import Node
from simenv.model import TaskOptions
from simenv.scheduler.views.cluster_info import pool_infos
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import GetPools, Pools, Release, Released
from simenv.wire.messages.explain import Explain, Explained

MIB = 2**20
NODES = (Node("here", 2, 320 * MIB), Node("there", 2, 320 * MIB))
CLUSTER = msgspec.structs.replace(
    LIMITS, slots=4, memory_bytes=640 * MIB, nodes=NODES, max_ranks=16, memory_per_slot=160 * MIB
)
WIDE = spec(program=program(23).packed())
EXACT = TaskOptions(engine="statevector")  # its bonds are small: `auto` takes mps
OPTIONS = {"limits": CLUSTER}


def test_wide_program_runs_on_worker_of_its_ranks_after_restart(bench: ServiceHarness) -> None:
    assert isinstance(bench.submit(WIDE, terms=EXACT), m.Accepted)
    bench.restart()
    assert bench.replayed.queued == 1
    command = bench.paper.commands["main.x4-0"]
    assert {share.node: share.ranks for share in command.shares} == {"here": 2, "there": 2}
    assert command.argv[command.argv.index("--ranks") + 1] == "4"
    bench.join("main.x4-0")
    bench.finish(bench.assigned())
    assert not bench.state.tasks
    (info,) = (i for i in pool_infos(bench.state) if i.name == "main.x4")
    assert (info.on_demand, info.workers, info.max_qubits) == (True, 1, 23)


def test_explain_reports_ranks_and_refuses_too_many(bench: ServiceHarness) -> None:
    first = bench.get(Explained, Explain(3, EXACT, WIDE.program, 100)).explanation.engines[0]
    assert (first.engine, first.ranks, first.nodes) == ("statevector", 4, 2)
    assert 100 * MIB < first.memory_bytes <= 160 * MIB
    assert "over 4 ranks" in first.why
    assert "8 ranks were asked for" in bench.refused(WIDE, terms=TaskOptions(ranks=8)).message


def test_dedicated_worker_serves_its_reservation_after_crash(office: ReservationHarness) -> None:
    assert office.reserve(4, workers=1).status == "delayed"  # no worker is there yet
    office.join()
    decision = office.reserve(4, workers=1)
    assert (decision.status, decision.bound_ns) == ("accepted", 100_000_000)
    number = decision.reservation
    assert office.info(number).workers_kept == 1
    office.say(m.Submit(5, "~o", 0, TaskOptions(), [spec()]))
    assert office.assigned() == []
    assert office.view(1).reason.startswith("all workers of pool main are kept")
    office.begin_again()
    office.join()
    assert office.assigned() == []
    assert isinstance(office.under(number, 100), m.Accepted)
    sent = office.assigned()
    assert [each.task for each in sent] == [2]
    assert [pool.kept for pool in office.get(Pools, GetPools(1)).pools] == [1]
    office.finish(sent)
    assert office.assigned() == []
    office.get(Released, Release(2, number))
    assert [each.task for each in office.assigned()] == [1]
    assert office.info(number).workers_kept == 0

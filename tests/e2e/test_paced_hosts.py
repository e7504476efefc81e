"""Times of a paced device as QPM hosts of both revisions and QRMI see them."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import live
import pytest
from emulated import stored
from qiskit import qasm2
from small_chip import CHIP, flip
from waiting import until

from simenv.client.client import Client
from simenv.frontends.qrmi import Payload, QuantumResource, statuses
from simenv.qpm.contract import InProgressError

SHOTS = 60_000
LENGTH_S = 1e-9 * (50_000 + SHOTS * (4_000 + 40 + 1_000))  # 0.3 s
CLOCK_S = 1e-5  # of a wall clock as a double, and of a microsecond
REQUEST = {"qasm": qasm2.dumps(flip()), "num_shots": SHOTS, "seed": 3, "num_qubits": 1}
STAGES = (
    *("creation_time", "resources_consumed_time", "launch_time", "exec_time", "completion_time"),
    *("cq_enqueue_time", "cq_dequeue_time"),
)


@pytest.fixture(scope="module")
def up() -> Iterator[live.Live]:
    path = stored("chip", CHIP)
    pools = [{"name": "lab", "device": "chip", "pace": True, "min": 1, "max": 1}]
    with live.environment(pools=pools) as result:
        yield result
    path.unlink()


@pytest.fixture(scope="module")
def env(up: live.Live) -> Iterator[Client]:
    with up.client() as client:
        client.run(flip(), pool="lab", shots=10)  # loads what must be loaded
        yield client


def records(qpm: Any, revision: int, count: int) -> list[dict[str, Any]]:
    """Completions of tasks that were submitted together."""
    if revision == 2:
        cids = [qpm.async_run(REQUEST)["cid"] for _ in range(count)]
        return [
            until(lambda cid=cid: (result := qpm.read_cq(cid))["completion_ready"] and result)
            for cid in cids
        ]

    def read(cid: str) -> Any:
        try:
            return qpm.revision1.read_cq(cid)
        except InProgressError:
            return None

    cids = [qpm.revision1.async_run(REQUEST) for _ in range(count)]
    return [until(lambda cid=cid: read(cid)) for cid in cids]


@pytest.mark.parametrize("revision", [1, 2])
def test_times_of_records_are_those_of_the_machine(env: Client, revision: int) -> None:
    begun_s = time.time()
    result = records(env.qpm_with(pool="lab"), revision, 4)
    ended_s = time.time()
    for record in result:
        times = [record[stage] for stage in STAGES]
        assert begun_s - CLOCK_S <= times[0]
        assert times == sorted(times)
        assert record["completion_time"] - record["exec_time"] == pytest.approx(
            LENGTH_S, abs=CLOCK_S
        )
        assert record["resources_consumed_time"] == record["launch_time"] == record["exec_time"]
        assert record["metadata"]["device_time_s"] == pytest.approx(LENGTH_S, rel=1e-12)
    runs = sorted((record["exec_time"], record["completion_time"]) for record in result)
    for (_, end_s), (following_s, _) in itertools.pairwise(runs):
        assert following_s >= end_s - CLOCK_S
    assert runs[-1][1] <= ended_s
    assert runs[-1][1] - runs[0][0] >= 4 * LENGTH_S - CLOCK_S


def test_task_timing_of_a_host_is_that_of_its_record(env: Client) -> None:
    qpm = env.qpm_with(pool="lab")
    accepted = qpm.async_run(REQUEST)
    early = qpm.get_task_timing(task_id=accepted["qtask_id"])["timing"]
    assert early["exec_time"] == early["completion_time"] == -1.0
    until(lambda: qpm.peek_cq(accepted["cid"])["completion_ready"])
    before = qpm.get_task_timing(task_id=accepted["qtask_id"])["timing"]
    qpm.read_cq(accepted["cid"])
    after = qpm.get_task_timing(task_id=accepted["qtask_id"])["timing"]
    assert before["completion_time"] - before["exec_time"] == pytest.approx(LENGTH_S, abs=CLOCK_S)
    assert {**before, "cq_dequeue_time": after["cq_dequeue_time"]} == after


def test_evaluation_counts_the_queue_of_the_device(env: Client) -> None:
    qpm = env.qpm_with(pool="lab")
    tasks = env.submit_many([flip()] * 40, pool="lab", shots=SHOTS)
    request = {"task_class": {"qubit_count": 1, "measurement_count": 1, "shots": 10}}
    ended_s = time.time() + 40 * LENGTH_S  # of the queue, at the earliest
    begin_s = 1e-9 * qpm.evaluate(request=request)["estimated_start_ns"]
    queue_s = 1e-9 * qpm.get_queue_metrics()["wait_estimate"]["estimated_ns"]
    now_s = time.time()
    env.cancel(task.id for task in tasks)
    assert begin_s - now_s >= 0.8 * queue_s > 5.0
    assert begin_s == pytest.approx(ended_s, abs=20 * LENGTH_S)
    decision = qpm.evaluate(request={"task_class": {"qubit_count": 60}})
    assert decision["message"] == "60 qubits are asked for; lab has 2"


def test_qrmi_tasks_take_the_time_of_the_machine(up: live.Live) -> None:
    text = 'OPENQASM 3.0;include "stdgates.inc"; bit[1] c; qubit[1] q; x q[0]; c[0] = measure q[0];'
    payload = Payload(json.dumps({"pubs": [[text, None, SHOTS]], "version": 2}), "sampler")
    resource = QuantumResource(
        "lab", environ={"lab_QRMI_SIMENV_SERVICE": str(up.home / "connection.json")}
    )
    try:
        begun_s = time.monotonic()
        tasks = [resource.task_start(payload) for _ in range(2)]
        assert resource.task_status(tasks[1]) != statuses().Completed
        for task in tasks:
            until(lambda task=task: resource.task_status(task) == statuses().Completed)
        assert time.monotonic() - begun_s >= 2 * LENGTH_S
        for task in tasks:
            (pub,) = json.loads(resource.task_result(task).value)["results"]
            assert pub["metadata"]["device_time_s"] == pytest.approx(LENGTH_S, rel=1e-12)
    finally:
        resource.close()

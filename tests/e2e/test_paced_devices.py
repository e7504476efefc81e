"""Time on emulated devices: what results say of it, and devices as slow as their machines."""

import itertools
import math
import time
from collections.abc import Iterator

import live
import msgspec
import pytest
from emulated import stored
from failing import fails
from qiskit import QuantumCircuit
from small_chip import CHIP, flip

from noise_models.calibration import QubitCalibration
from simenv.client.client import Client
from simenv.errors import InfeasibleError, TaskCancelledError

SHOT_NS = 4_000 + 40 + 1_000
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "lab", "device": "chip", "pace": True, "min": 2, "max": 2},
]


@pytest.fixture(scope="module")
def up() -> Iterator[live.Live]:
    path = stored("chip", CHIP)
    with live.environment(pools=POOLS) as result:
        yield result
    path.unlink()


def task_ns(shots: int) -> int:
    return 50_000 + shots * SHOT_NS


def test_device_time_is_shots_of_reset_and_schedule_and_the_overhead(env: Client) -> None:
    result = env.run(flip(), device="chip", shots=300, pool="main")
    assert result.device_time_s == pytest.approx(task_ns(300) * 1e-9, rel=1e-12)
    assert result.timing.begun_s == 0.0
    assert env.run(flip(), shots=300, pool="main").device_time_s is None
    ideal = env.run(flip(), device="chip", shots=300, pool="main", noise="off")
    assert ideal.device_time_s == result.device_time_s


def test_feed_forward_latency_is_part_of_the_device_time(env: Client) -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    circuit.measure(1, 1)
    result = env.run(circuit, device="chip", shots=10, pool="main")
    shot_ns = 4_000 + 40 + 1_000 + 700 + 40 + 1_000
    assert result.device_time_s == pytest.approx((50_000 + 10 * shot_ns) * 1e-9, rel=1e-12)


@pytest.mark.parametrize("latency_us", [0.0, 50.0])
def test_a_qubit_relaxes_while_it_waits_for_feed_forward(env: Client, latency_us: float) -> None:
    qubit = QubitCalibration(t1_us=100.0, t2_us=80.0)
    chip = msgspec.structs.replace(
        CHIP, qubits=(qubit, qubit), gates=(), feed_forward_ns=1e3 * latency_us
    )
    path = stored(f"latency-{latency_us:.0f}", chip)
    circuit = QuantumCircuit(1, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.rz(0.5, 0)
    circuit.measure(0, 1)
    probabilities = env.run(
        circuit, device=path.stem, pool="main", shots=None, outputs=("probabilities",)
    ).probabilities
    path.unlink()
    assert probabilities["11"] == pytest.approx(math.exp(-latency_us / 100.0), abs=1e-9)


def test_5000_tasks_on_a_paced_device_do_not_overlap(env: Client) -> None:
    shots = [1 + k % 17 for k in range(5_000)]
    tasks = [
        task
        for group in range(17)
        for task in env.submit_many([flip()] * shots.count(1 + group), shots=1 + group, pool="lab")
    ]
    entries = [task.result() for task in tasks]
    runs = sorted((r.timing.begun_s, r.timing.device_s, r.shots) for r in entries)
    assert [round(1e9 * length) for _, length, _ in runs] == [task_ns(n) for _, _, n in runs]
    for (begin, length, _), (following, _, _) in itertools.pairwise(runs):
        assert following >= begin + length - 1e-6  # of the wall clock as a double


def test_paced_device_takes_the_time_of_the_machine(env: Client) -> None:
    begun = time.monotonic()
    tasks = [env.submit(flip(), pool="lab", shots=100_000) for _ in range(3)]
    entries = [task.result() for task in tasks]
    took = time.monotonic() - begun
    length_s = 1e-9 * task_ns(100_000)
    assert took >= 3 * length_s
    assert [r.device_time_s for r in entries] == [pytest.approx(length_s, rel=1e-12)] * 3


def test_wait_is_forecast_by_the_clock_of_the_device(env: Client) -> None:
    tasks = [env.submit(flip(), pool="lab", shots=400_000) for _ in range(3)]
    try:
        time.sleep(0.3)  # until the first one is on the device
        wait_s = env.tasks([tasks[2].id])[0].wait_us / 1e6
        assert wait_s == pytest.approx(2 * 400_000 * SHOT_NS * 1e-9 - 0.3, abs=1.9)
        assert tasks[2].expected_start == pytest.approx(time.time() + wait_s, abs=0.5)
        assert tasks[0].expected_start is None  # it is on the device
        (pool,) = [pool for pool in env.status().pools if pool.name == "lab"]
        assert pool.wait_us / 1e6 == pytest.approx(3 * 400_000 * SHOT_NS * 1e-9, abs=1.9)
    finally:
        env.cancel([task.id for task in tasks])
    fails(TaskCancelledError, "", tasks[0].result)
    assert tasks[2].expected_start is None
    begun = time.monotonic()
    assert env.run(flip(), pool="lab", shots=10).counts
    assert time.monotonic() - begun < 2.0


def test_explain_shows_the_time_on_the_device(env: Client) -> None:
    (best, *_) = env.explain(flip(), pool="lab", shots=100_000).engines
    assert best.seconds == pytest.approx(1e-9 * task_ns(100_000), rel=1e-12)
    assert best.why.endswith("; 0.504 s on the device")
    (best, *_) = env.explain(flip(), device="chip", pool="main", shots=100_000).engines
    assert best.seconds < 0.1


def test_exact_result_of_a_paced_device_is_refused(env: Client) -> None:
    with pytest.raises(InfeasibleError, match="exact result of the paced device"):
        env.run(flip(), pool="lab", shots=None, outputs=("probabilities",))


def test_run_on_the_device_goes_on_after_a_restart_of_the_service(up: live.Live) -> None:
    chip = msgspec.structs.replace(CHIP, rep_delay_ns=1e6)  # 1 ms a shot
    stored("chip", chip)
    length_s = 1e-9 * (50_000 + 2_500 * (1_000_000 + 1_040))
    with up.client() as client:
        task = client.submit(flip(), pool="lab", shots=2_500, seed=5)
        second = client.submit(flip(), pool="lab", shots=10, seed=6)
        time.sleep(1.5)
        killed_s = time.time()
        up.crash()
        up.up()
        first, last = task.result(), second.result()
    assert first.timing.device_s == pytest.approx(length_s)
    assert first.timing.begun_s < killed_s
    assert last.timing.begun_s >= first.timing.begun_s + length_s - 1e-6
    stored("chip", CHIP)


def test_short_runs_keep_their_places_after_a_restart_of_the_service(up: live.Live) -> None:
    chip = msgspec.structs.replace(CHIP, rep_delay_ns=1e6)  # 1 ms a shot
    stored("chip", chip)
    length_s = 1e-9 * (50_000 + 700 * (1_000_000 + 1_040))
    for _ in range(8):  # a busy machine may kill the service when the first run is over
        begun_s, killed_s = _killed_while_the_second_run_is_sent_ahead(up)
        if killed_s < begun_s[0] + length_s:
            break
    assert begun_s[0] < killed_s < begun_s[0] + length_s
    assert begun_s[1] == pytest.approx(begun_s[0] + length_s, abs=1e-6)
    assert begun_s[2] >= begun_s[1] + length_s - 1e-6
    stored("chip", CHIP)


def _killed_while_the_second_run_is_sent_ahead(up: live.Live) -> tuple[list[float], float]:
    """When three runs began on the device, and when the service was killed and started anew."""
    pid = up.service().pid
    with up.client() as client:
        tasks = client.submit_many([flip()] * 3, pool="lab", shots=700, seed=5)
        while not tasks[0].done() and "on device" not in client.tasks([tasks[0].id])[0].reason:
            time.sleep(0.01)
        # It is sent 0.2 s before the device is free.
        while tasks[1].state != "RUNNING" and not tasks[1].done():
            time.sleep(0.01)
        killed_s = time.time()
        up.kill_service()
        up.wait_dead(pid)
        up.up()
        return [task.result().timing.begun_s for task in tasks], killed_s

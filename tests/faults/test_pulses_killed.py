"""kill -9 of worker and service during the evolution of a pulse sequence, through client and QPM.

The bit string of each shot is that of an undisturbed run with the same seed.
"""

from collections.abc import Callable
from typing import Any

import psutil
import pytest
from live import PATIENCE_S, environment, resurrected
from waiting import until

import simenv
from simenv.client.client import Client
from simenv.model import TaskInfo

pulser = pytest.importorskip("pulser")
pytestmark = pytest.mark.usefixtures("no_leaks")

SHOTS, SEED = 400, 11
BUSY_S = 0.25  # of CPU time, after which a worker is in the evolution
TRIES = 3  # of which one at least is killed
POINTS = ("accepted.sent:1", "finished.received:1", "")


def sequence(atoms: int, pulses: int) -> Any:
    """Detuned pulses on a chain of atoms in blockade of their neighbours."""
    register = pulser.Register.from_coordinates([(5.5 * k, 0) for k in range(atoms)], prefix="a")
    result = pulser.Sequence(register, pulser.MockDevice)
    result.declare_channel("laser", "rydberg_global")
    for number in range(pulses):
        result.add(pulser.Pulse.ConstantPulse(200, 7.0, 4.0 - number, 0.3 * number), "laser")
    return result


# Half a second at least: one evolution, and many with jumps.
CASES: dict[str, dict[str, Any]] = {
    "evolution": {"circuit": sequence(15, 8)},
    "trajectories": {
        "circuit": sequence(9, 3),
        "noise": pulser.NoiseModel(relaxation_rate=0.2, temperature=50.0),
        "options": {"trajectories": 100},
    },
}
Outcome = dict[str, int] | list[str]


def through_client(env: Client, case: dict[str, Any]) -> tuple[str, Callable[[], Outcome]]:
    """Submit a case; return the id of its task, and a function that waits for its bit strings."""
    options = {key: value for key, value in case.items() if key != "circuit"}
    task = env.submit(case["circuit"], shots=SHOTS, seed=SEED, outputs="memory", **options)

    def outcome() -> Outcome:
        result: Any = task.result(PATIENCE_S)
        return list(result.memory)

    return task.id, outcome


def through_qpm(env: Client, case: dict[str, Any]) -> tuple[str, Callable[[], Outcome]]:
    """As `through_client`, with the counts."""
    data = {"format": "pulser-abstract", "data": case["circuit"].to_abstract_repr()}
    info = {**case, "circuit": data, "num_shots": SHOTS, "seed": SEED}
    if "noise" in case:
        info["noise"] = case["noise"].to_abstract_repr()
    envelope = env.qpm.async_run(info)
    cid = envelope["cid"]

    def completion() -> dict[str, Any] | None:
        try:
            answer = env.qpm.read_cq(cid)
        except simenv.errors.NoServiceError:
            return None
        return answer if answer["completion_ready"] else None

    def outcome() -> Outcome:
        record: dict[str, Any] = until(completion, PATIENCE_S)
        assert record["rc"] == 0, record
        return dict(record["result"]["counts"])

    return str(env.qpm.task_status(cid)["scheduler_task_id"]), outcome


WAYS = {"client": through_client, "qpm": through_qpm}


@pytest.fixture(scope="module")
def oracles() -> dict[tuple[str, str], Outcome]:
    """Bit strings of undisturbed runs, by way and case."""
    with simenv.local(workers=1) as env:
        return {
            (way, name): submit(env, case)[1]()
            for way, submit in WAYS.items()
            for name, case in CASES.items()
        }


def wait_until_busy(env: Client, task: str) -> psutil.Process | None:
    """Wait until a worker has computed a task for BUSY_S; None if the task has ended before."""

    def info() -> TaskInfo:
        return env.tasks(task)[0]

    def ended() -> bool:
        return info().state in simenv.model.FINAL_STATES

    workers = until(lambda: [w for w in env.workers() if w.task == task] or ended(), look_s=0.002)
    if workers is True:
        return None
    process = psutil.Process(workers[0].pid)
    first = process.cpu_times().user
    until(lambda: process.cpu_times().user >= first + BUSY_S or ended(), look_s=0.005)
    return None if ended() else process


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_sequence_of_a_killed_worker_has_the_same_bit_strings(
    oracles: dict[tuple[str, str], Outcome], name: str
) -> None:
    pools = [{"name": "main", "min": 1, "max": 1}]
    with environment(pools=pools) as live, live.client() as env:
        for way, submit in WAYS.items():
            for _ in range(TRIES):
                task, outcome = submit(env, CASES[name])
                process = wait_until_busy(env, task)
                if process is not None:
                    process.kill()
                result = outcome()
                attempts = env.task(task).result(PATIENCE_S).attempts
                if attempts > 1:
                    break
            assert attempts == 2
            assert result == oracles[way, name], way


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", POINTS)
def test_sequences_of_a_killed_service_have_the_same_bit_strings(
    oracles: dict[tuple[str, str], Outcome], point: str
) -> None:
    """The service dies at a point on the way of a task, or, without a point, in the evolution."""
    name = "evolution" if not point else "trajectories"
    with (
        environment(faults=f"{point}:kill" if point else "") as live,
        resurrected(live) as deaths,
        live.client() as env,
    ):
        outcomes = {}
        for way, submit in WAYS.items():
            task, outcomes[way] = submit(env, CASES[name])
        if not point:
            assert wait_until_busy(env, task) is not None
            live.kill_service()
        for way, outcome in outcomes.items():
            assert outcome() == oracles[way, name], way
        assert deaths == live.pids[:1], f"{point} was never hit"
        ended = [done.task.id for done in env.completions(since=0)]
        assert len(ended) == len(set(ended)) == len(WAYS)

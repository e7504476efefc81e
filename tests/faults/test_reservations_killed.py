"""kill -9 of the service while tasks run under reservations: no unit is lost, none spent twice.

One environment dies at each named point in turn; its client lives through all of it.
"""

from collections.abc import Iterator

import pytest
from circuits import layered
from ledger import Ledger
from live import Live, resurrected

import simenv
from simenv.model import AdmissionPolicy, DeviceProfile, Workload
from simenv.wire.messages.admin import SetPolicy, SetProfile

pytestmark = pytest.mark.usefixtures("no_leaks")

POINTS = (
    "reservation.changed:1",  # as the policy is set
    "reservation.changed:1",  # as one is made, or released
    "reservation.changed:2",
    "submit.admitted:1",
    "accepted.sent:1",
    "assign.sent:2",
    "finished.received:2",
    "completion.before:2",
    "completion.sent:2",
    *(f"journal.commit.{when}:{nth}" for nth in (8, 11) for when in ("before", "after")),
)
TASKS = 10
# Four measurements of 100 ms at each shot: 40 shots are a unit of 16 s, 200 shots are five. No
# task takes so long, so each spends one unit and gives four back.
BASE = Workload(1, 4, 1, 0, 0, 4, 40)
PROFILE = DeviceProfile(one_q_gate_ns=0, two_q_gate_ns=0, measurement_ns=100_000_000, baseline=BASE)
UNITS = 20  # four tasks at a time


class Drilled(Live):
    """Each start is armed with the next point; none is left when `armed` is empty."""

    def __init__(self, points: tuple[str, ...]) -> None:
        super().__init__()
        self._points: Iterator[str] = iter(points)

    def up(self, **changes: object) -> int:
        self.armed = next(self._points, "")
        return super().up(**{**changes, "faults": f"{self.armed}:kill" if self.armed else ""})


@pytest.fixture(scope="module")
def circuits() -> list[object]:
    return [layered(4, 3, seed) for seed in range(TASKS)]


@pytest.fixture(scope="module")
def oracle(circuits: list[object]) -> dict[int, dict[str, int]]:
    """Counts of an undisturbed run, by seed."""
    with simenv.local(workers=1) as env:
        tasks = env.submit_many(circuits, shots=200, seed=list(range(TASKS)))
        return {seed: task.result().counts for seed, task in enumerate(tasks)}


def test_reservation_credits_are_spent_once_through_service_kills(
    circuits: list[object], oracle: dict[int, dict[str, int]]
) -> None:
    live = Drilled(POINTS)
    live.up()
    ledger = Ledger(oracle)
    try:
        with resurrected(live), live.client() as env:
            env._session.request(SetProfile(0, "main", PROFILE))
            policy = AdmissionPolicy("credit", BASE, total_credits=2 * UNITS)
            env._session.request(SetPolicy(0, "main", policy))
            rounds = 0
            while live.armed:
                rounds += 1
                assert rounds < 6 * len(POINTS), f"{live.armed} was never hit"
                result = env.reserve(
                    "main", count=UNITS, qubits=4, measurements=4, shots=40, timeout_s=60
                )
                assert result.id == rounds, "one was made twice, or an id was used twice"
                seeds = list(range(TASKS))
                tasks = env.submit_many(circuits, shots=200, seed=seeds, reservation=result)
                ledger.accepted(tasks, seeds)
                for task in simenv.as_completed(tasks, timeout_s=60):
                    task.result()
                info = result.info()
                assert (info.credits_reserved, info.credits_consumed) == (UNITS, TASKS)
                assert (info.credits_held, info.parked, info.waiting) == (0, 0, 0)
                assert result.release() == []
            ledger.check(env)
            infos = env.reservations()
            assert [info.id for info in infos] == list(range(1, rounds + 1))
            assert {info.state for info in infos} == {"released"}
    finally:
        live.down()

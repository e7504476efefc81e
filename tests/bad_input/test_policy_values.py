"""Policies, profiles and reservations with extreme values: refused, or applied and answered."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reservation_harness import ReservationHarness
from service import spec

from simenv import model
from simenv.wire.messages import admin, client as m

ROUNDS = 16
MESSAGES = 300  # of each round, before the service restarts
EXTREME = (-(2**63), -1, 2**31, 2**53, 2**62 - 1, 2**62, 2**62 + 1, 2**63 - 1)
USUAL = (0, 0, 1, 100, 10**12, 2**62, 2**62)
TEXTS = (
    *("", "main", "all", "nowhere", "\x1b[31m", "\n", "x" * 255, "plugin:os.system", "keys"),
    *("fifo", "ordered", "priority", "round_robin", "fair_share", "credit", "rate", "unlimited"),
)
KEYS = ("priority", "shortest,fifo", "fifo,fifo", "", ",", "\0", "longest, priority", "x" * 255)
ADMISSIONS = ("credit", "rate", "unlimited")
TIMES = [name for name in model.DeviceProfile.__struct_fields__ if name.endswith("_ns")]


def message(rng: random.Random) -> Any:
    """A request of an admin or client that is well-formed as a message; seldom in its values."""

    def figure() -> int:
        return rng.choice(EXTREME if rng.random() < 0.1 else USUAL)

    def work() -> model.Workload:
        values = [rng.choice((1, 1, 2, 100, 10**6)) for _ in range(7)]
        if rng.random() < 0.2:
            values[rng.randrange(7)] = figure()
        return model.Workload(*values)

    device = "main" if rng.random() < 0.6 else rng.choice(("", "", *TEXTS))
    match rng.randrange(8):
        case 0:
            own, rate = (figure(), 0, 0), (0, figure(), figure())
            figures = rng.choice(((0, 0, 0), own, rate, (figure(), figure(), figure())))
            name = rng.choice((*ADMISSIONS, *ADMISSIONS, rng.choice(TEXTS)))
            return admin.SetPolicy(1, device, model.AdmissionPolicy(name, work(), *figures))
        case 1:
            few: list[tuple[tuple[str, str], ...]] = [(), ((rng.choice(TEXTS), "1"),)]
            keys = tuple(("keys", rng.choice(KEYS)) for _ in range(rng.choice((1, 1, 2))))
            name = rng.choice(("ordered", rng.choice(TEXTS)))
            return admin.SetOrder(1, device, name, rng.choice((keys, *few)))
        case 2:
            return admin.SetDispatch(1, device, figure())
        case 3:
            fields = {name: figure() for name in TIMES if rng.random() < 0.2}
            profile = msgspec.structs.replace(model.DeviceProfile(), **fields)
            return admin.SetProfile(1, device, profile)
        case 4:
            return m.Submit(5, f"~{rng.random()}", 0, model.TaskOptions(), [spec(1)])
        case 5:
            questions: tuple[type, ...] = (admin.GetTarget, admin.GetPolicy, admin.GetProfile)
            return rng.choice((*(ask(1, device) for ask in questions), admin.GetReservations(1)))
        case _:
            walltime_ns = rng.choice((0, 1, 10**9, 10**16, figure()))
            request = model.ReservationRequest(device=device, workload=work())
            return admin.Reserve(
                2, msgspec.structs.replace(request, walltime_ns=walltime_ns, ttl_ns=figure())
            )


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_extreme_policies_are_refused_or_applied_and_others_are_served(
    tmp_path: Path, turn: int
) -> None:
    changes = (admin.SetPolicy, admin.SetOrder, admin.SetDispatch, admin.SetProfile)
    applied: set[type] = set()
    rng = random.Random(f"policies {turn}")
    office = ReservationHarness(tmp_path)
    office.join()
    for _ in range(MESSAGES):
        sent = message(rng)
        answers = office.say(sent, office.ops if isinstance(sent, changes) else office.ana)
        assert answers, sent
        if not isinstance(answers[-1], m.Refused):
            applied.add(type(sent))
    assert applied >= {*changes, admin.Reserve}
    office.begin_again()
    for device in ("", "main"):
        office.get(admin.PolicyReply, admin.SetPolicy(1, device, model.AdmissionPolicy()))
        office.get(admin.TargetReply, admin.SetOrder(1, device, "fifo"))
        office.get(admin.TargetReply, admin.SteerTarget(1, device, "resume"))
    assert isinstance(office.submit(key="~last"), m.Accepted)

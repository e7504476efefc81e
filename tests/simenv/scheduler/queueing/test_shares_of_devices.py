"""Order by share on paced devices and on machines of providers, whose time is charged."""

import pytest
from checked_scheduler import SECOND, CheckedScheduler, route

from simenv.model import PoolSpec
from simenv.model.accounts import Account, AccountTree, Billing
from simenv.scheduler import core

SHARES = {"a": 1.0, "b": 1.0, "c": 2.0}
LENGTHS_NS = {"a": 200_000_000, "b": 600_000_000, "c": 300_000_000}  # of one run on the device
RUN_S = 48.0
PACED = PoolSpec("dev", min=2, max=2, device="chip", pace=True)
QPU = PoolSpec("dev", "hardware", provider="machines:ideal")


def _length_ns(record: core.TaskRecord) -> int:
    return LENGTHS_NS[record.batch.account]


def machine_of(spec: PoolSpec, billing: Billing) -> CheckedScheduler:
    """A device for which each account has more tasks than it runs."""
    machine = CheckedScheduler(specs=(PoolSpec("main"), spec))
    machine.scheduler.set_clock(1_700_000_000 * SECOND, machine.now_ns)
    tree = AccountTree({name: Account(share=share) for name, share in SHARES.items()})
    machine.scheduler.set_accounts(tree, billing, {})
    for account, length_ns in LENGTHS_NS.items():
        if spec.pace:
            along = route(pool="dev", device_shot_ns=length_ns / 100, paced=True)
        else:
            along = route(length_ns / 1e3, pool="dev", engine="hardware")
        machine.submit(90, along=along, owner=f"user-{account}", account=account)
    return machine


def device_time(machine: CheckedScheduler, *, is_paced: bool) -> dict[str, float]:
    """Let the device run; return the part of its time of each account."""
    end_ns = machine.now_ns + round(RUN_S * SECOND)
    while machine.now_ns < end_ns:
        machine.hear()
        sent: list[core.TaskRecord] = []
        while sends := machine.assign():
            sent = [record for send in sends for record in send.records]
            for record in sent if is_paced else ():  # simulated at once, held until it has run
                machine.finish([record], device_ns=_length_ns(record), run_us=1_000)
        if is_paced:
            machine.tick(0.1)
            continue
        (record,) = sent
        machine.tick(_length_ns(record) / SECOND)
        machine.finish([record], device_ns=_length_ns(record))
    used = dict.fromkeys(SHARES, 0)
    for ending in machine.endings:
        used[ending.record.batch.account] += ending.used.device_us
    return {account: each / sum(used.values()) for account, each in used.items()}


@pytest.mark.parametrize(
    ("spec", "price"),
    [
        pytest.param(PACED, 1.0, id="paced"),
        pytest.param(PACED, 100.0, id="paced, at a high price"),
        pytest.param(QPU, 0.0, id="machine, for the time of its worker"),
        pytest.param(QPU, 100.0, id="machine, at a high price"),
    ],
)
def test_accounts_get_their_shares_of_the_time_of_a_device(spec: PoolSpec, price: float) -> None:
    machine = machine_of(spec, Billing(device_s={"dev": price}))
    found = device_time(machine, is_paced=spec.pace)
    assert found == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5}, rel=0.05)

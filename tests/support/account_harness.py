"""A service with accounts and classes of service."""

import re
from pathlib import Path
from typing import Any

from memory_transport import MemoryConnection
from multi_user_harness import MultiUserHarness
from service import spec

from simenv.model import TaskOptions
from simenv.model.accounts import SLOT_HOUR, Account, Qos
from simenv.scheduler.core import SubmitBatch
from simenv.wire.messages import accounting, client as m

ACCOUNTS: dict[str, Any] = {
    "physics": {"share": 3},
    "chem": {"parent": "physics", "users": ["ana"], "qos": ["normal", "urgent"]},
    "bio": {"users": ["ana", "@lab"]},
}
SHOTS = 100_000
QOS: dict[str, Any] = {
    "normal": {"usage_factor": 0.5},
    "urgent": {"priority": 7, "max_run_s": 60, "limits": {"max_queued_tasks": 2}},
    "idle": {"preempt": True},
}


class AccountHarness(MultiUserHarness):
    """A service with accounts, the users ana and ben, and an admin."""

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(folder, **{"accounts": ACCOUNTS, "qos": QOS, **options})

    def begin_again(self, **options: object) -> None:
        """Start again, with other settings."""
        if options:
            self.config = module_config(self, **options)
        self.restart()
        self.arrive()

    def sent(
        self, peer: MemoryConnection | None = None, count: int = 1, key: str = "~k",
        shots: int = SHOTS, **terms: Any,
    ) -> m.Accepted | m.Refusal:  # fmt: skip
        """Submit; the acceptance, or the refusal."""
        tasks = [spec(seed, shots=shots) for seed in range(count)]
        answer = self.submit(*tasks, key=key, terms=TaskOptions(**terms), peer=peer or self.ana)
        return answer if isinstance(answer, m.Accepted) else answer.refusals[0]

    def batch(self, peer: MemoryConnection | None = None, **order: Any) -> SubmitBatch:
        """Submit; the batch of the accepted tasks."""
        answer = self.sent(peer, **order)
        assert isinstance(answer, m.Accepted), answer
        return self.state.tasks[answer.first].batch

    def refused_by(
        self, code: str, peer: MemoryConnection | None = None, **order: Any
    ) -> m.Refusal:
        """Submit; the refusal."""
        answer = self.sent(peer, **order)
        assert isinstance(answer, m.Refusal), answer
        assert answer.code == code, answer
        return answer

    def set_account(self, name: str, account: Account | None) -> accounting.Accounts:
        return self.get(accounting.Accounts, accounting.SetAccount(1, name, account), self.ops)

    def set_qos(self, name: str, qos: Qos | None) -> accounting.Accounts:
        return self.get(accounting.Accounts, accounting.SetQos(1, name, qos), self.ops)

    def listed(self, peer: MemoryConnection) -> accounting.Accounts:
        return self.get(accounting.Accounts, accounting.GetAccounts(1), peer)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return list(self.journal.records.rows(query))


def module_config(town: AccountHarness, **options: object) -> Any:
    from simenv.config import convert

    pools = [{"name": "main", "min": 1, "max": 1}]
    settings = {"durability": "process", "accounts": ACCOUNTS, "qos": QOS, **options}
    return convert({"pools": pools, **settings})


def budgeted(folder: Path, units: float, **options: Any) -> AccountHarness:
    """With a budget of so many units for physics, above chem."""
    accounts = {
        "physics": {"budget_slot_h": units / SLOT_HOUR, **options},
        "chem": {"parent": "physics", "users": ["ana"]},
    }
    return AccountHarness(folder, accounts=accounts, billing={"gib_s": 0.0})


def hours(text: str) -> list[float]:
    """The numbers of slot-hours in a text."""
    return [float(each) for each in re.findall(r"\d[\d.e+-]*", text.partition(":")[2])]

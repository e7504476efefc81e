"""The audit log: who changed what, from where; it is stored before the change is acknowledged."""

import pytest
from reservation_harness import ReservationHarness

from simenv.service import fault_injection
from simenv.wire import codec
from simenv.wire.messages import accounting, admin, client as m, credentials


@pytest.mark.parametrize(
    ("question", "kind", "subject", "what"),
    [
        (credentials.AddKey(1, "eve", "client", "x" * 40), "keys.add", "eve", "role client"),
        (credentials.RevokeKey(1, "ben"), "keys.revoke", "ben", "revoked"),
        (
            accounting.SetLimits(1, "ana", {"max_priority": 5}),
            "limits.set",
            "ana",
            "max_priority = 5",
        ),
        (admin.Scale(1, "main", 1, 2), "scale", "main", "1 to 2 workers"),
        (admin.DrainNode(1, "", "repair"), "drain", "", "repair"),
        (admin.ResumeNode(1, "main"), "resume", "main", ""),
        (admin.SteerTarget(1, "main", "pause", "lunch"), "device.paused", "main", "lunch"),
        (admin.SetOrder(1, "main", "fifo"), "device.ordered", "main", "fifo"),
        (m.Shutdown(1), "shutdown", "default", ""),
    ],
)
def test_changes_by_admin_are_recorded_in_audit_log(
    office: ReservationHarness, question: object, kind: str, subject: str, what: str
) -> None:
    before = len(office.events("audit"))
    office.say(question, office.ops)
    office.restart()
    entry = office.events("audit")[before]
    assert (entry.kind, entry.subject) == (f"audit.{kind}", subject)
    by = "by ops (admin) from this process"
    assert what in entry.message
    assert entry.message.endswith(f"; {by}" if what else by)
    assert not entry.message.startswith(";")
    assert entry.time_s > 0


def test_cancel_and_release_are_audited_for_other_owners_alone(office: ReservationHarness) -> None:
    before = len(office.events("audit"))
    office.say(m.Cancel(1, [office.order(office.ana, "~a")]), office.ana)
    assert len(office.events("audit")) == before
    office.say(m.Cancel(1, [office.order(office.ana, "~b")]), office.ops)
    number = office.reserve(1, office.ana).reservation
    office.say(admin.Release(1, number), office.ops)
    assert [(each.kind, each.subject) for each in office.events("audit")[before:]] == [
        ("audit.cancel", "ana"), ("audit.reservation.release", str(number)),
    ]  # fmt: skip


def test_audit_log_is_not_shown_to_clients(office: ReservationHarness) -> None:
    assert office.events("audit", peer=office.ops)
    assert not office.events("audit", peer=office.ana)


def test_a_change_is_acknowledged_after_its_entry_is_stored(office: ReservationHarness) -> None:
    fault_injection.install("journal.commit.before:1:error,journal.commit.before:2:error")
    office.ops.send(codec.encode(accounting.SetLimits(1, "ana", {"max_priority": 5})))
    office.loop.run_once(timeout_s=0.0)
    assert office.loop.lifecycle.store_error
    assert not office.heard(office.ops)
    fault_injection.install("")
    office.step()
    assert office.heard(office.ops)
    assert office.events("audit")[-1].kind == "audit.limits.set"


def test_key_revocation_alone_is_done_while_journal_fails(office: ReservationHarness) -> None:
    fault_injection.install(",".join(f"journal.commit.before:{n}:error" for n in range(1, 30)))
    office.say(admin.SetOrder(1, "main", "fifo"))
    assert office.loop.lifecycle.store_error
    assert office.refusal(admin.Scale(1, "main", 1, 1), office.ops).code == "journal"
    answers = office.say(credentials.RevokeKey(1, "ana"), office.ops)
    assert [type(answer).__name__ for answer in answers] == ["Keys"]
    assert "ana" not in office.key_commands.names
    fault_injection.install("")
    office.step()
    assert office.events("audit")[-1].kind == "audit.keys.revoke"

"""The audit log: who changed what, from where; it is stored before the change is acknowledged."""

import pytest
from reservation_harness import ReservationHarness
from service import spec

from simenv.model import Event, TaskOptions
from simenv.service import fault_injection
from simenv.wire import codec
from simenv.wire.messages import accounting, admin, client as m, credentials


def entries(office: ReservationHarness) -> list[Event]:
    events = office.get(m.Events, m.GetEvents(1), office.ops).events
    return [event for event in events if event.is_of(["audit"])]


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
    before = len(entries(office))
    office.say(question, office.ops)
    office.restart()
    office.arrive() if kind != "keys.revoke" else None
    events = office.get(m.Events, m.GetEvents(1)).events
    entry = [event for event in events if event.is_of(["audit"])][before]
    assert (entry.kind, entry.subject) == (f"audit.{kind}", subject)
    assert what in entry.message
    by = "by ops (admin) from this process"
    assert entry.message.endswith(f"; {by}" if what else by)
    assert not entry.message.startswith(";")
    assert entry.time_s > 0


def test_cancel_is_audited_only_for_tasks_of_another_owner(office: ReservationHarness) -> None:
    def submit(key: str) -> int:
        answers = office.say(m.Submit(5, key, 0, TaskOptions(), [spec()]), office.ana)
        return next(a.first for a in answers if isinstance(a, m.Accepted))

    before = len(entries(office))
    office.say(m.Cancel(1, [submit("~a")]), office.ana)
    assert len(entries(office)) == before
    office.say(m.Cancel(1, [submit("~b")]), office.ops)
    (entry,) = entries(office)[before:]
    assert (entry.kind, entry.subject) == ("audit.cancel", "ana")


def test_release_of_reservation_of_another_owner_is_audited(office: ReservationHarness) -> None:
    number = office.reserve(1, office.ana).reservation
    office.say(admin.Release(1, number), office.ops)
    entry = entries(office)[-1]
    assert (entry.kind, entry.subject) == ("audit.reservation.release", str(number))


def test_audit_log_is_not_shown_to_clients(office: ReservationHarness) -> None:
    assert entries(office)
    events = office.get(m.Events, m.GetEvents(1), office.ana).events
    assert not [event for event in events if event.is_of(["audit"])]


def test_a_change_is_acknowledged_after_its_entry_is_stored(office: ReservationHarness) -> None:
    fault_injection.install("journal.commit.before:1:error,journal.commit.before:2:error")
    office.ops.send(codec.encode(accounting.SetLimits(1, "ana", {"max_priority": 5})))
    office.loop.run_once(timeout_s=0.0)
    assert office.loop.lifecycle.store_error
    assert not office.heard(office.ops)
    fault_injection.install("")
    office.step()
    assert office.heard(office.ops)
    assert entries(office)[-1].kind == "audit.limits.set"


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
    assert entries(office)[-1].kind == "audit.keys.revoke"

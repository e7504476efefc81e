"""Each defect is found, by the row that speaks of it, and by no row that does not."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import qpm_defects
from kit import assembled, checked, own_qpm

from simenv.client.client import Client
from simenv.qpm_check.check import VerdictState

WAIT_S = 2.0  # for what never comes
TOKEN = "open sesame"


NEEDS = {"needs_a_variable": {"OF_THE_AUTHOR": "1"}, "any_token": {"OF_THE_PLUGIN": TOKEN}}


class Defect(NamedTuple):
    """`failed`: row to words of its verdict; `passed`: neighbours that must not be failed."""

    revision: int
    failed: dict[str, str]
    passed: tuple[str, ...] = ("record.fields",)


DEFECTS = {
    "wrong_sum": Defect(2, {"counts.sum": "of 1 shots is 2, not 1"}, ("counts.bits",)),
    "numpy_scalar": Defect(2, {"counts.plain": "int64", "values.plain": "int64"}, ("counts.sum",)),
    "lost_completion": Defect(2, {"crowd.fifty": "not within"}, ("polling.unknown",)),
    "doubled_event": Defect(2, {"events.once": "cids that were pushed"}, ("events.type",)),
    "missing_time": Defect(
        1, {"record.times": "'launch_time'", "record.fields": "'launch_time'"}, ("counts.sum",),
    ),
    "times_out_of_order": Defect(
        1, {"record.order": "before"}, ("record.times", "record.dequeued"),
    ),
    "reversed_bits": Defect(
        1, {"counts.bits": "'001' in 0%", "counts.registers": "'10 001'"},
        ("counts.sum", "counts.right"),
    ),
    "cancel_ignored": Defect(
        2, {"execution.cancel-queued": "rc of what was cancelled is 0"},
        ("execution.cancel-unknown",),
    ),
    "reservation_not_checked": Defect(
        2, {"reservation.unknown": "not refused", "reservation.released": "not refused"},
        ("admission.release",),
    ),
    "released_runs": Defect(
        2, {"reservation.released": "async_run under a reservation that was released"},
        ("reservation.cancelled", "reservation.unknown"),
    ),
    "expiry_ignored": Defect(2, {"admission.expires": "still active"}, ("admission.renew",)),
    "eager_start": Defect(
        2, {"load.start-false-idle": "thread", "load.lookups": "threads"}, ("load.bare",),
    ),
    "slow_start": Defect(1, {"load.start-false": " ms"}, ("load.start-false-idle",)),
    "traceback_error": Defect(
        1, {"single.bad-sync": "DEFwRemoteError", "transport.errors": "DEFwRemoteError"},
        ("single.bad-async",),
    ),
    "uuid_reservations": Defect(
        2, {"admission.ids": "not a whole number"}, ("admission.evaluate", "query.properties"),
    ),
    "blocking_async": Defect(2, {"execution.at-once": "it waited"}, ("execution.sync",)),
    "no_send_lock": Defect(2, {"transport.send-lock": "install a send lock"}, ("events.pushed",)),
    "anybody_stops_it": Defect(1, {"single.shutdown": "what was under way"}, ("single.release",)),
    "read_keeps": Defect(2, {"polling.read": "twice"}, ("polling.peek",)),
    "none_fields": Defect(
        2, {"execution.envelope": "what is None is left out"}, ("execution.ids",),
    ),
    "credits_leak": Defect(
        2, {"credits.returned": "", "credits.cancelled": "cancelled"},
        ("credits.never", "policy.credit"),
    ),
    "timeout_forgets": Defect(
        2, {"execution.sync-timeout": "completion of"}, ("execution.cancel-on-timeout",),
    ),
    "one_put_ends_all": Defect(2, {"events.put-fails": "no event within"}, ("events.once",)),
    "half_applied_policy": Defect(2, {"policy.refused": "the policy after"}, ("policy.set",)),
    "untyped_refusal": Defect(2, {"input.info": "KeyError"}, ("info.unknown",)),
    "leaves_threads": Defect(2, {"load.uninitialize": "thread left"}, ("load.lookups",)),
    "needs_a_variable": Defect(
        1, {"load.start-false-anywhere": "OF_THE_AUTHOR"}, ("load.start-false",),
    ),
    "shows_tokens": Defect(2, {"token.hidden": "get_service_lifecycle"}, ("admission.ids",)),
    "any_token": Defect(2, {"token.refused": "with another token was not refused"}),
    "query_raises": Defect(2, {"query.selector": "KeyError"}, ("load.import",)),
    "odd_allocations": Defect(
        2,
        {
            "telemetry.allocations": "list_scheduler_allocations has no 'schema'",
            "telemetry.capability-map": "['get_device_info']",
            "control.summary": "get_service_summary has no 'schema'",
            "admission.release-code": "reason=1: a text",
        },
        ("telemetry.backend",),
    ),
    "without_gateway": Defect(
        2,
        {
            "reservation.text": ": a number", "reservation.info": "no reservation_id was given",
            "admission.release-job": "accepted: not within",
        },
        ("admission.release", "reservation.queues"),
    ),
    "begins_everywhere": Defect(
        1, {"load.launcher": "started 1 processes"}, ("load.import", "load.initialize"),
    ),
    "starts_sys_executable": Defect(
        2, {"load.executable": "python3 ['-c pass']"}, ("load.launcher", "load.start-false-idle"),
    ),
    "thread_for_each_listener": Defect(
        1, {"load.clients": "30 clients"}, ("single.pushed", "load.lookups"),
    ),
    "plain_simulator": Defect(1, {"query.examples": "no example"}, ("query.bits", "query.lookup")),
    "width_believed": Defect(2, {"info.width": "num_qubits=0"}, ("info.unknown",)),
    "slow_ready": Defect(1, {"single.ready-cost": " ms longer"}, ("single.ready",)),
    "raises_on_no_qasm": Defect(
        1, {"single.bad-async": "this is no circuit"}, ("single.bad-sync",),
    ),
    "forgets_ended": Defect(
        2, {"execution.status-after-read": "'no-longer-retained'"}, ("execution.retained",),
    ),
    "other_reason": Defect(2, {"polling.gone": "'completion-read'"}, ("polling.read",)),
    "enum_in_reason": Defect(2, {"admission.reason": "'reason-<Code.NO_DEVICE: 2>'"}),
    "stack_in_error": Defect(2, {"transport.error-stack": "quil-9"}, ("transport.errors",)),
    "pending_on_timeout": Defect(
        2, {"execution.cancel-on-timeout": "'CANCEL_PENDING'"}, ("execution.sync-timeout",),
    ),
    "one_sender": Defect(
        1, {"clients.leave-with-event": "client 2", "clients.stopped": "beside a stopped client"},
        ("single.pushed", "single.push-fails", "clients.own-events"),
    ),
    "one_registration": Defect(
        1, {"clients.own-events": "no event within"}, ("single.push-last", "clients.own-queue"),
    ),
    "one_queue": Defect(
        1, {"clients.own-queue": "read_cq() of another client"}, ("single.read", "single.by-cid"),
    ),
    "outage_unseen": Defect(
        1, {"restart.pollers": "but ['DEFwInProgress']"}, ("single.in-progress",),
    ),
    "asleep_after_outage": Defect(1, {"restart.pollers": "after its return"}, ("single.read",)),
    "ready_and_not": Defect(
        2, {"restart.first-poll": "completed, and that it is not ready"}, ("polling.oldest",),
    ),
    "reversed_atoms": Defect(
        2, {"analog.counts": "'100' in 0%", "analog.paradigms": "annealing has neither"},
        ("analog.queue", "counts.bits"),
    ),
    "wrong_binding": Defect(2, {"query.bindings": "no binding 'admission'"}, ("query.selector",)),
}  # fmt: skip


def test_in_revision_2_only_check_with_stopped_client_finds_one_sender(tmp_path: Path) -> None:
    """There a call to a client that has left ends at once."""
    only = ("clients.stopped", "clients.leave-with-event", "events.once")
    report = checked(assembled(tmp_path, "one_sender"), *only, revisions=(2,), wait_s=WAIT_S)
    verdicts = {verdict.id: verdict for verdict in report.verdicts}
    assert "beside a stopped client" in verdicts.pop("clients.stopped").why
    assert {verdict.state for verdict in verdicts.values()} == {VerdictState.PASSED}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_found_by_its_checks_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: Client
) -> None:
    defect = DEFECTS[name]
    only = (*defect.failed, *defect.passed)
    for variable, value in NEEDS.get(name, {}).items():
        monkeypatch.setenv(variable, value)
    own = hasattr(qpm_defects, "".join(word.title() for word in name.split("_")))
    plugin = own_qpm(env, name) if own else assembled(tmp_path, name)
    run = partial(
        checked, plugin, revisions=(defect.revision,), token=TOKEN if name == "any_token" else ""
    )
    report = run(*only, wait_s=WAIT_S)
    verdicts = {verdict.id: verdict for verdict in report.verdicts}
    assert set(verdicts) == set(only)
    late = [row for row in defect.passed if verdicts[row].state is VerdictState.FAILED]
    if late:  # the machine may have been busy for so long
        verdicts |= {verdict.id: verdict for verdict in run(*late, wait_s=10 * WAIT_S).verdicts}
    failed = {row: v.why for row, v in verdicts.items() if v.state is VerdictState.FAILED}
    assert set(failed) == set(defect.failed), failed
    for row, result in defect.failed.items():
        assert result in failed[row], (row, failed[row])
    assert all(verdicts[row].state is VerdictState.PASSED for row in defect.passed), verdicts
    assert not report.ok

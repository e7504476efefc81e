"""Defects of the honest plugin, one in each class; `kit.assembled` makes a plugin of one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid

from .base import HonestQPM
from .ledger import Refused


class AnybodyStopsIt(HonestQPM):
    """Shutdown by any client of revision 1 stops the pool."""

    def shutdown(self, *given, **named):
        answer = super().shutdown(*given, **named)
        if self.desk.single:
            self.asked, self.state = {"mode": "cancel"}, "stopped"
            for task in self.desk.open():
                self.desk.cancel(task)
        return answer


class AsleepAfterOutage(HonestQPM):
    """After an outage polling alone finds nothing, until another call comes."""

    asleep = False

    def _reached(self):
        AsleepAfterOutage.asleep = AsleepAfterOutage.asleep or self.desk.away()
        super()._reached()

    def is_ready(self, token=None):
        AsleepAfterOutage.asleep = False
        return super().is_ready(token)

    def _poll(self, operation, cid, reservation_id, token, *, keep):
        if AsleepAfterOutage.asleep and not self.desk.away():
            cid = "none"
        return super()._poll(operation, cid, reservation_id, token, keep=keep)


class BlockingAsync(HonestQPM):
    """Async_run waits until the circuit is done."""

    def async_run(self, *given, **named):
        answer = super().async_run(*given, **named)
        cid = answer if isinstance(answer, str) else answer["cid"]
        task, _ = self.desk.find(cid)
        if task is not None:
            task.over.wait()
        return answer if isinstance(answer, str) or task is None else self.envelope(task)


class CancelIgnored(HonestQPM):
    """A cancel is acknowledged and nothing is stopped."""

    def cancel_task(self, cid=None, reservation_id=None, token=None, reason=None, qtask_id=None):
        task, _ = self._find(cid, qtask_id)
        if task is None or task.over.is_set():
            return super().cancel_task(cid, reservation_id, token, reason, qtask_id)
        return {**self.envelope(task), **self._stands("cancelled", "CANCELLED")}


class CreditsLeak(HonestQPM):
    """What a task held is never given back."""

    def prepare(self, desk):
        desk.ledger.settle = lambda *_: None


class DoubledEvent(HonestQPM):
    """Each event is put twice."""

    def prepare(self, desk):
        put = desk._put
        desk._put = lambda who, payload: put(who, payload) and put(who, payload)


class EagerStart(HonestQPM):
    """QPM(start=False) starts a thread."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class ExpiryIgnored(HonestQPM):
    """Reservations never expire."""

    def reserve(self, *given, token=None, request=None):
        decision = super().reserve(*given, token=token, request=request)
        if isinstance(decision, dict) and decision.get("reservation_id"):
            record = self.desk.ledger.records[decision["reservation_id"]]
            record["expires_at_ns"] = max(record["expires_at_ns"], time.time_ns() + 10**10)
        return decision


class ForgetsEnded(HonestQPM):
    """Task_status knows nothing of a task whose completion was read."""

    def task_status(self, cid=None, reservation_id=None, token=None, qtask_id=None):
        item = self._find(cid, qtask_id)[1]
        if item is not None:
            gone_for_good = self._stands("no-longer-retained", "NO_LONGER_RETAINED")
            return {**self.envelope(item[0]), **gone_for_good}
        return super().task_status(cid, reservation_id, token, qtask_id)


class HalfAppliedPolicy(HonestQPM):
    """A policy that is refused has taken effect by then."""

    def set_admission_policy(self, token=None, device_id=None, configuration=None):
        if isinstance(configuration, dict) and isinstance(configuration.get("capacity"), dict):
            ledger = self.desk.ledger
            ledger.rules = {**ledger.rules, "capacity": dict(configuration["capacity"])}
        return super().set_admission_policy(token, device_id, configuration)


class LeavesThreads(HonestQPM):
    """Uninitialize leaves threads behind."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        for _ in range(3 if start else 0):
            threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()


class LostCompletion(HonestQPM):
    """Every tenth completion is lost."""

    def prepare(self, desk):
        completed = desk._completed
        desk._completed = lambda task: None if task.number % 10 == 0 else completed(task)


class MissingTime(HonestQPM):
    """Records lack launch_time."""

    def prepare(self, desk):
        outcome = desk.record

        def record(task, poll):
            result = outcome(task, poll)
            del result["launch_time"]
            return result

        desk.record = record


class NeedsAVariable(HonestQPM):
    """QPM(start=False) needs a variable that its author happens to have set."""

    def __init__(self, *given, start=True, **named):
        if not os.environ.get("OF_THE_AUTHOR"):
            raise KeyError("OF_THE_AUTHOR")
        super().__init__(*given, start=start, **named)


class NoneFields(HonestQPM):
    """Envelopes carry fields that are None."""

    def envelope(self, task):
        return {"message": None, "provider_handle": None, **super().envelope(task)}


class OddAllocations(HonestQPM):
    """What the newest hosts ask for is there, and answers something else."""

    def list_scheduler_allocations(self, token=None, filters=None):
        return {"allocation_id": "honest/1"}

    def capability_map(self, token=None):
        return ["get_device_info"]

    def get_service_summary(self, token=None):
        return {**self.get_service_status(), "target_id": "honest"}

    def release(self, token=None, reservation_id=None, reason=None):
        self._text("reason", reason)
        return super().release(token, reservation_id)


class OnePutEndsAll(HonestQPM):
    """One put that fails ends all registrations."""

    def prepare(self, desk):
        put = desk._put

        def all_or_none(registration, payload):
            if put(registration, payload):
                return True
            desk.registrations.clear()
            return False

        desk._put = all_or_none


class OneQueue(HonestQPM):
    """All clients of revision 1 share one queue of records."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        self.owner = 0


class Last(dict):
    """A table in which every owner finds the last that was entered."""

    def __contains__(self, owner):
        return bool(self)

    def __getitem__(self, owner):
        return list(self.values())[-1]


class OneRegistration(HonestQPM):
    """All clients of revision 1 share one registration: the last one gets every event."""

    def prepare(self, desk):
        desk.listening = Last()


class OneSender(HonestQPM):
    """One thread sends all events, and waits for the answer of each client in turn."""

    def prepare(self, desk):
        put, turn = desk._put, threading.Lock()

        def one_after_the_other(registration, payload):
            with turn:
                return put(registration, payload)

        desk._put = one_after_the_other


class OtherReason(HonestQPM):
    """The reason of a completion that is gone is none of the contract's."""

    def _poll(self, *given, **named):
        answer = super()._poll(*given, **named)
        if answer.get("outcome") == "NO_LONGER_RETAINED":
            answer["reason"] = "completion-read"
        return answer


class OutageUnseen(HonestQPM):
    """While its machine is away, pollers are told that their circuits are in progress."""

    def _reached(self):
        """Nobody looks."""


class PendingOnTimeout(HonestQPM):
    """Sync_run with cancel_on_timeout does not wait for the end of the task."""

    def sync_run(self, *given, **named):
        answer = super().sync_run(*given, **named)
        if named.get("cancel_on_timeout"):
            answer |= {"outcome": "CANCEL_PENDING", "provider_cancel_status": "asked"}
        return answer


class QueryRaises(HonestQPM):
    """In one revision a look at its record raises."""

    def query(self):
        if self.revision2():
            raise KeyError("properties")
        return super().query()


class RaisesOnNoQasm(HonestQPM):
    """Async_run raises where the text is no OpenQASM at all."""

    def async_run(self, info, *given, **named):
        if "OPENQASM" not in info.get("qasm", ""):
            raise self.error("this is no circuit")
        return super().async_run(info, *given, **named)


class ReadKeeps(HonestQPM):
    """Read_cq leaves the completion in the queue."""

    def read_cq(self, cid=None, reservation_id=None, token=None):
        return self._poll("read_cq", cid, reservation_id, token, keep=True)


class ReadyAndNot(HonestQPM):
    """After an outage a task is said to be completed, and its completion not ready."""

    polled = False

    def _poll(self, operation, cid, reservation_id, token, *, keep):
        if cid and not ReadyAndNot.polled:
            ReadyAndNot.polled = True
            polled = {"completion_ready": False, "poll_operation": operation}
            return {**self._stands("completed", "COMPLETED"), "cid": cid, **polled}
        return super()._poll(operation, cid, reservation_id, token, keep=keep)


class ReleasedRuns(HonestQPM):
    """A reservation that was released still runs circuits."""

    def _needs(self, number):
        if self.desk.single:
            return
        if number is None:
            raise self.error("a reservation is needed")
        try:
            record = self.desk.ledger.find(number)
        except Refused as bad:
            raise self.error(str(bad)) from bad
        if record["state"] in ("expired", "cancelled"):
            raise self.error("it is over")


class ReservationNotChecked(HonestQPM):
    """Any number passes for a reservation."""

    def _needs(self, number):
        if not self.desk.single and number is None:
            raise self.error("a reservation is needed")


class ReversedBits(HonestQPM):
    """Clbit 0 stands leftmost."""

    def prepare(self, desk):
        outcome = desk.record

        def record(task, poll):
            result = outcome(task, poll)
            turned = {key[::-1]: count for key, count in task.counts.items()}
            if desk.single:
                return {**result, "result": turned} if result["rc"] == 0 else result
            return {**result, "result": {**result["result"], "counts": turned}}

        desk.record = record


class ShowsTokens(HonestQPM):
    """A token that was sent stands in what the service tells of its life."""

    def reserve(self, token=None, request=None):
        self.events.append(self.event("reconciliation", f"reserve by {token}"))
        return super().reserve(token, request)


class SlowReady(HonestQPM):
    """Is_ready asks its machine each time."""

    def is_ready(self, token=None):
        time.sleep(0.002)
        return super().is_ready(token)


class SlowStart(HonestQPM):
    """QPM(start=False) opens its device first."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        time.sleep(0.005)


class StackInError(HonestQPM):
    """An error is constructed inside `except`: DEFw puts that stack into it."""

    def error(self, words):
        import defw_exception

        return defw_exception.DEFwExecutionError(words)


class StartsSysExecutable(HonestQPM):
    """A helper is started with sys.executable, which is the host's own program."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            subprocess.run([sys.executable, "-c", "pass"], check=False)


class ThreadForEachListener(HonestQPM):
    """Each registration has a thread that never ends."""

    def register_event_notification(self, *given, **named):
        threading.Thread(target=threading.Event().wait, name="listener", daemon=True).start()
        return super().register_event_notification(*given, **named)


class TimeoutForgets(HonestQPM):
    """What sync_run gave up waiting for is thrown away."""

    def sync_run(self, *given, **named):
        answer = super().sync_run(*given, **named)
        if isinstance(answer, dict) and answer.get("outcome") == "TIMEOUT":
            self.delete_circuit(answer["cid"])
        return answer


class TimesOutOfOrder(HonestQPM):
    """Circuits end before they begin."""

    def prepare(self, desk):
        outcome = desk.record

        def record(task, poll):
            result = outcome(task, poll)
            result["exec_time"], result["completion_time"] = task.ended, task.began
            return result

        desk.record = record


class TracebackError(HonestQPM):
    """What is wrong with a circuit is a ValueError, which travels as a traceback."""

    def sync_run(self, info, *given, **named):
        import defw_exception

        try:
            return super().sync_run(info, *given, **named)
        except defw_exception.DEFwExecutionError as bad:
            raise ValueError(str(bad)) from None


class UntypedRefusal(HonestQPM):
    """A field of a wrong type is met by a KeyError or TypeError, wherever it strikes."""

    def _read(self, info):
        return {
            "text": info["qasm"].strip(), "shots": int(info["num_shots"]),
            "amplitudes": bool(info.get("return_statevector")),
        }  # fmt: skip


class UuidReservations(HonestQPM):
    """Reservation ids are UUID texts."""

    def reserve(self, *given, token=None, request=None):
        decision = super().reserve(*given, token=token, request=request)
        if isinstance(decision, dict) and decision.get("reservation_id"):
            decision["reservation_id"] = str(uuid.uuid4())
        return decision


class WidthBelieved(HonestQPM):
    """Num_qubits is believed, and not read from the circuit."""

    def _read(self, info):
        result = super()._read(info)
        if info.get("num_qubits") == 0:
            raise self.error("num_qubits=0")
        return result


class WrongBinding(HonestQPM):
    """Five bindings, one of them by a name nobody looks for."""

    def properties(self):
        outcome = super().properties()
        outcome["api_bindings"] = outcome["api_bindings"][:-1]
        outcome["api_bindings"][1]["binding_name"] = "reservations"
        return outcome


class WrongSum(HonestQPM):
    """One shot more than was asked for."""

    def _accept(self, info, reservation_id, token):
        task = super()._accept(info, reservation_id, token)
        task.shots += 1
        return task

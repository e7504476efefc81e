"""Defects of revision 2, one in each class: put before the classes of simenv's own QPM."""

import time
import uuid
from collections import Counter
from typing import Any, ClassVar

import numpy as np

from simenv.qpm.contract import ExecutionError

Plain = dict[str, Any]


def _stands(answer: Plain, outcome: str) -> Plain:
    state = outcome.lower().replace("_", "-")
    return {**answer, "outcome": outcome, "lifecycle_state": state, "state": state}


class BlockingAsync:
    """Async_run waits until the circuit is done."""

    def async_run(self, info, reservation_id=None, *given, **named):
        answer = super().async_run(info, reservation_id, *given, **named)
        while answer["outcome"] == "ACCEPTED":
            time.sleep(0.005)
            answer = self.task_status(answer["cid"], reservation_id)
        return answer


class CancelIgnored:
    """A cancel is acknowledged and nothing is stopped."""

    def cancel_task(self, cid=None, reservation_id=None, *given, **named):
        answer = self.task_status(cid, reservation_id)
        if answer["outcome"] == "UNKNOWN":
            return super().cancel_task(cid, reservation_id, *given, **named)
        return _stands(answer, "CANCELLED")


class CreditsLeak:
    """What a task held is never given back."""

    leaked: ClassVar = Counter()

    def async_run(self, info, reservation_id=None, *given, **named):
        before = super().get_reservation(None, reservation_id)["credits_consumed"]
        answer = super().async_run(info, reservation_id, *given, **named)
        after = super().get_reservation(None, reservation_id)["credits_consumed"]
        self.leaked[reservation_id] += after - before
        return answer

    def sync_run(self, info, reservation_id=None, *given, **named):
        cid = self.async_run(info, reservation_id)["cid"]
        while not (record := self.read_cq(cid, reservation_id))["completion_ready"]:
            time.sleep(0.005)
        return {**record, "result": record}

    def get_reservation(self, token=None, reservation_id=None):
        answer = super().get_reservation(token, reservation_id)
        return {**answer, "credits_consumed": self.leaked[reservation_id]}


class Twice:
    """Endpoint that gets each event twice."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def put(self, event):
        self._endpoint.put(event)
        self._endpoint.put(event)


class DoubledEvent:
    """Each event is put twice."""

    def register_event_notification(self, ep, *given, **named):
        return super().register_event_notification(Twice(ep), *given, **named)


class ExpiryIgnored:
    """Reservations never expire."""

    def reserve(self, token=None, request=None):
        request = {key: value for key, value in request.items() if key != "ttl_ns"}
        return super().reserve(token, request)


class ForgetsEnded:
    """Task_status knows nothing of a task whose completion was read."""

    def task_status(self, cid=None, reservation_id=None, *given, **named):
        answer = super().task_status(cid, reservation_id, *given, **named)
        gone = super().peek_cq(cid, reservation_id)["outcome"] == "NO_LONGER_RETAINED"
        return _stands(answer, "NO_LONGER_RETAINED") if gone else answer


class HalfAppliedPolicy:
    """A policy that is refused has taken effect by then."""

    configuration: ClassVar = {}

    def set_admission_policy(self, token=None, device_id=None, configuration=None):
        type(self).configuration = configuration
        return super().set_admission_policy(token, device_id, configuration)

    def get_admission_policy(self, token=None, device_id=None):
        answer = super().get_admission_policy(token, device_id)
        return {**answer, "configuration": {**answer["configuration"], **self.configuration}}


class LostCompletion:
    """Every tenth completion is lost."""

    def read_cq(self, cid=None, reservation_id=None, *given, **named):
        if self.task_status(cid, reservation_id).get("qtask_id", 1) % 10 == 0:
            cid = "lost"
        return super().read_cq(cid, reservation_id, *given, **named)


class NoneFields:
    """Envelopes carry fields that are None."""

    def sync_run(self, *given, **named):
        return {"message": None, "provider_handle": None, **super().sync_run(*given, **named)}


class NumpyScalar:
    """Counts are NumPy's integers."""

    def sync_run(self, *given, **named):
        answer = super().sync_run(*given, **named)
        counts = answer["result"]["result"]["counts"]
        counts |= {key: np.int64(count) for key, count in counts.items()}
        return answer


class OddAllocations:
    """What the newest hosts ask for is there, and answers something else."""

    def list_scheduler_allocations(self, token=None, filters=None):
        return {"allocation_id": "odd/1"}

    def capability_map(self, token=None):
        return ["get_device_info"]

    def get_service_summary(self, token=None):
        return self.get_service_status()

    def release(self, token=None, reservation_id=None, reason=None):
        if not isinstance(reason, str | None):
            raise ExecutionError(f"reason={reason}: a text")
        return super().release(token, reservation_id)


class WithoutGateway:
    """What QFw's gateway for Slurm and its variables need is not there."""

    def async_run(self, info, reservation_id=None, *given, **named):
        if isinstance(reservation_id, str):
            raise ExecutionError(f"reservation_id={reservation_id!r}: a number")
        info = {key: value for key, value in info.items() if key != "reservation_id"}
        return super().async_run(info, reservation_id, *given, **named)

    def release(self, token=None, reservation_id=None, reason=None):
        answer = super().release(token, reservation_id, reason)
        return {**answer, "status": "pending"} if isinstance(reason, int) else answer


class AllOrNone:
    """Endpoint of registrations that all end with the circuit whose put fails for one of them."""

    last: str | None = None

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def put(self, event):
        if AllOrNone.last not in (None, event.payload["cid"]):
            return
        try:
            self._endpoint.put(event)
        except Exception:
            AllOrNone.last = event.payload["cid"]
            raise


class OnePutEndsAll:
    """One put that fails ends all registrations."""

    def register_event_notification(self, ep, *given, **named):
        return super().register_event_notification(AllOrNone(ep), *given, **named)


class OtherReason:
    """The reason of a completion that is gone is none of the contract's."""

    def read_cq(self, *given, **named):
        answer = super().read_cq(*given, **named)
        gone = answer["outcome"] == "NO_LONGER_RETAINED"
        return {**answer, "reason": "completion-read"} if gone else answer


class PendingOnTimeout:
    """Sync_run with cancel_on_timeout does not wait for the end of the task."""

    def sync_run(self, *given, **named):
        answer = super().sync_run(*given, **named)
        if named.get("cancel_on_timeout"):
            answer |= {"outcome": "CANCEL_PENDING", "provider_cancel_status": "asked"}
        return answer


class ReadKeeps:
    """Read_cq leaves the completion in the queue."""

    def read_cq(self, *given, **named):
        return {**super().peek_cq(*given, **named), "poll_operation": "read_cq"}


class ReservationNotChecked:
    """Any number passes for a reservation."""

    def _checked(self, number):
        return self.reserve(request={})["reservation_id"]

    def async_run(self, info, reservation_id=None, *given, **named):
        return super().async_run(info, self._checked(reservation_id), *given, **named)

    def sync_run(self, info, reservation_id=None, *given, **named):
        return super().sync_run(info, self._checked(reservation_id), *given, **named)


class ReleasedRuns(ReservationNotChecked):
    """A reservation that was released still runs circuits."""

    def _checked(self, number):
        records = {record["reservation_id"]: record for record in self.list_reservations()}
        released = records.get(number, {}).get("state") == "released"
        return super()._checked(number) if released else number


class ShowsTokens:
    """A token that was sent stands in what the service tells of its life."""

    sent: ClassVar = []

    def reserve(self, token=None, request=None):
        self.sent.append(token)
        return super().reserve(token, request)

    def get_service_lifecycle_telemetry(self, *given, **named):
        answer = super().get_service_lifecycle_telemetry(*given, **named)
        return {**answer, "reserved_by": list(self.sent)}


class TimeoutForgets:
    """What sync_run gave up waiting for is thrown away."""

    def sync_run(self, info, reservation_id=None, *given, **named):
        answer = super().sync_run(info, reservation_id, *given, **named)
        if answer["outcome"] == "TIMEOUT":
            self.delete_circuit(answer["cid"], reservation_id)
        return answer


class ReversedAtoms:
    """Bits of atoms come in the order of classical bits, and paradigms without a reason."""

    def sync_run(self, info, *given, **named):
        answer = super().sync_run(info, *given, **named)
        result = answer["result"]["result"]
        if "circuit" in info:
            result["counts"] = {key[::-1]: count for key, count in result["counts"].items()}
        return answer

    def capability_map(self, token=None):
        table = super().capability_map()
        table["paradigms"]["annealing"] = {"libraries": [], "formats": []}
        return table


class UntypedRefusal:
    """A field of a wrong type is met by a KeyError or TypeError, wherever it strikes."""

    def async_run(self, info, *given, **named):
        info["qasm"].strip(), int(info["num_shots"])
        return super().async_run(info, *given, **named)


class UuidReservations:
    """Reservation ids are UUID texts."""

    def reserve(self, token=None, request=None):
        return {**super().reserve(token, request), "reservation_id": str(uuid.uuid4())}


class WidthBelieved:
    """Num_qubits is believed, and not read from the circuit."""

    def sync_run(self, info, *given, **named):
        if info["num_qubits"] == 0:
            raise ExecutionError("num_qubits=0")
        return super().sync_run(info, *given, **named)


class WrongSum:
    """One shot more than was asked for."""

    def sync_run(self, info, *given, **named):
        info = {**info, "num_shots": info["num_shots"] + 1}
        return super().sync_run(info, *given, **named)

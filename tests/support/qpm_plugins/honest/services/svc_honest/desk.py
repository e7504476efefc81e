"""Tasks of the honest plugin: accepted, parked, run by one worker, completed, pushed.

Everything changes under `lock`; events are put by one thread, without it.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections import OrderedDict

from .ledger import Ledger, Refused
from .simulate import Circuit, Stopped, Unreadable, run

KEPT = 1024
AWAY_S = 0.02
OUTCOMES = {"pending-capacity": "DELAYED", "queued": "ACCEPTED", "submitted": "ACCEPTED",
            "completed": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED"}  # fmt: skip
ENDED = ("completed", "failed", "cancelled")


class Task:
    def __init__(self, number, reservation, shots, amplitudes):
        self.cid, self.number, self.reservation = str(uuid.uuid4()), number, reservation
        self.shots, self.amplitudes = shots, amplitudes
        self.state, self.why, self.reason = "queued", "", None
        self.circuit, self.vector, self.counts = None, None, {}
        self.stop, self.over = threading.Event(), threading.Event()
        self.held, self.work, self.owner = 0, {}, None
        self.created = time.time()
        self.began = self.ended = self.queued = self.read = -1.0

    @property
    def rc(self):
        return {"completed": 0, "failed": 1}.get(self.state, 2)

    def times(self):
        return {
            "creation_time": self.created, "resources_consumed_time": self.began,
            "launch_time": self.began, "exec_time": self.began, "completion_time": self.ended,
            "cq_enqueue_time": self.queued, "cq_dequeue_time": self.read,
        }  # fmt: skip


class Desk:
    """`single`: revision 1, where what is pushed is not queued."""

    def __init__(self, single):
        self.single = single
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.ledger = Ledger()
        self.tasks, self.gone, self.cids, self.kept = {}, {}, {}, {}
        self.parked, self.waiting, self.ready = [], [], OrderedDict()
        self.running = None
        self.registrations = []  # of revision 2
        self.listening = {}  # revision 1: an owner's one registration
        self.paused = self.draining = False
        self.policy = {"policy_name": "fifo", "options": {}}
        self.most = 1
        self._numbers = itertools.count(1)
        self.closed = False
        threading.Thread(target=self._work, name="honest-worker", daemon=True).start()

    def close(self):
        """Its threads end; what runs is stopped."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()
        for task in self.open():
            self.cancel(task)

    @staticmethod
    def away():
        """Is the machine away? A file says so, where a test names one."""
        path = os.environ.get("HONEST_OUTAGE")
        return path is not None and os.path.exists(path)

    # --- accepting ----------------------------------------------------------------------------

    def accept(self, request, reservation, owner=None):
        """A task; Refused where its reservation can never pay for it. `owner`: of revision 1."""
        with self.lock:
            if self.draining:
                raise Refused("the target is draining")
            task = Task(next(self._numbers), reservation, request["shots"], request["amplitudes"])
            task.owner = owner
            try:
                task.circuit = Circuit(request["text"])
            except Unreadable as bad:
                task.why, task.reason = str(bad), "provider-submission-failed"
                self._enter(task)
                self._end(task, "failed")
                return task
            one, two, measured = task.circuit.counted()
            task.work = {"count": 1, "one_q_gate_count": one, "two_q_gate_count": two,
                         "measurement_count": measured, "shots": task.shots}  # fmt: skip
            task.held, _ = self.ledger.hold(reservation, task.work)
            self._enter(task)
            if task.held is None:
                task.state = "pending-capacity"
                self.parked.append(task)
            else:
                self.waiting.append(task)
            self.changed.notify_all()
            return task

    def _enter(self, task):
        self.tasks[task.cid], self.cids[task.number] = task, task.cid

    def release(self, number, *, kill):
        """Ends what a reservation has; the ids of what still runs."""
        with self.lock:
            for task in [*self.parked, *self.waiting]:
                if task.reservation == number:
                    self._end(task, "cancelled")
            if self.running is None or self.running.reservation != number:
                return []
            if kill:
                self.running.stop.set()
            return [self.running.number]

    def cancel(self, task):
        with self.lock:
            if task is self.running:
                task.stop.set()
            else:
                self._end(task, "cancelled")

    def open(self):
        with self.lock:
            return [*self.parked, *self.waiting, *([self.running] if self.running else [])]

    # --- the worker ---------------------------------------------------------------------------

    def _work(self):
        while True:
            with self.lock:
                self.changed.wait_for(lambda: self.closed or (self.waiting and not self.paused))
                if self.closed:
                    return
                task = self.running = self.waiting.pop(0)
                task.state, task.began = "submitted", time.time()
            state = "completed"
            try:
                task.counts, task.vector = run(task.circuit, task.shots, task.stop)
                while self.away():  # what it computed is lost: again, once the machine is back
                    time.sleep(AWAY_S)
                    if not self.away():
                        task.counts, task.vector = run(task.circuit, task.shots, task.stop)
            except Stopped:
                state = "cancelled"
            with self.lock:
                self.running = None
                task.ended = time.time()
                self._end(task, state)

    def _end(self, task, state):
        for group in (self.parked, self.waiting):
            if task in group:
                group.remove(task)
        task.state = state
        if state == "cancelled":
            task.reason = "cancelled"
        task.ended = time.time() if task.ended < 0 else task.ended
        actual = task.ended - task.began if task.began > 0 else 0
        self.ledger.settle(task.reservation, task.held, round(actual * 1e9))
        self._completed(task)
        task.over.set()
        for other in list(self.parked):
            other.held, _ = self.ledger.hold(other.reservation, other.work)
            if other.held is not None:
                self.parked.remove(other)
                other.state = "queued"
                self.waiting.append(other)
        self.changed.notify_all()

    # --- completions and events ---------------------------------------------------------------

    def _completed(self, task):
        task.queued = time.time()
        if task.cid not in self.tasks:  # nobody wants to hear of it
            return
        if self.single and task.owner in self.listening:
            self.listening[task.owner].offer(task)
            return
        self.ready[task.cid] = task
        count = self.kept[task.reservation] = self.kept.get(task.reservation, 0) + 1
        if count > KEPT:
            entries = (each for each in self.ready.values() if each.reservation == task.reservation)
            self.forget(next(entries), "max-records-exceeded")
        for registration in self.registrations:
            registration.offer(task)

    def take(self, cid, reservation, owner=None, *, keep):
        """A task that has ended, the oldest where no cid is given; None."""
        with self.lock:
            entries = (
                each for each in self.ready.values()
                if reservation in (None, each.reservation) and each.owner == owner
            )  # fmt: skip
            task = next(entries, None) if cid is None else self.ready.get(cid)
            if task is None or task.owner != owner:
                return None
            if not keep:
                task.read = time.time()
                self.forget(task, "completion-read")
            return task

    def leave(self, owner):
        """Its object is gone: nobody can ask for its records any more."""
        with self.lock:
            self.listening.pop(owner, None)
            for task in [each for each in self.ready.values() if each.owner == owner]:
                self.forget(task, "client-gone")

    def forget(self, task, why):
        with self.lock:
            if self.ready.pop(task.cid, None) is not None and task.reservation in self.kept:
                self.kept[task.reservation] -= 1
            self.tasks.pop(task.cid, None)
            self.gone[task.cid] = (task, time.time_ns(), why)

    def find(self, cid=None, number=None):
        """(task, None), (None, (task, when, why)) of what is gone, or (None, None)."""
        with self.lock:
            cid = self.cids.get(number) if cid is None else cid
            return self.tasks.get(cid), self.gone.get(cid)

    def _put(self, registration, payload):
        try:
            registration.put(payload)
        except Exception:  # noqa: BLE001 - whatever it is, its reader has gone
            with self.lock:
                if registration in self.registrations:
                    self.registrations.remove(registration)
                for owner, value in list(self.listening.items()):
                    if value is registration:
                        del self.listening[owner]
            return False
        return True

    # --- shapes -------------------------------------------------------------------------------

    def record(self, task, poll):
        """A completion in the shape of the revision."""
        vector = None
        if task.amplitudes and task.vector is not None:
            data = [[each.real, each.imag] for each in task.vector]
            vector = {"type": "statevector", "format": "complex128",
                      "num_qubits": task.circuit.qubits, "num_amplitudes": len(data),
                      "data": data}  # fmt: skip
        result = {"counts": task.counts}
        if vector is not None:
            result["statevector"] = vector
        if self.single:
            if task.rc:
                result = task.why or task.state
            elif vector is None:
                result = task.counts
            return {"cid": task.cid, "result": result, "rc": task.rc, **task.times()}
        table = {
            "cid": task.cid, "qtask_id": task.number, "reservation_id": task.reservation,
            "outcome": OUTCOMES[task.state], "result": result, "rc": task.rc,
            "completion_ready": True, "qpm_cq_enqueue_time_ns": round(task.queued * 1e9),
            "qpm_cq_dequeue_time_ns": -1 if task.read < 0 else round(task.read * 1e9),
            **task.times(),
        }  # fmt: skip
        if poll:
            table["poll_operation"] = poll
        if task.reason:
            table |= {"reason": task.reason, "message": task.why or task.state}
        return table


def text_of(info):
    """The circuit's text of an `info`; ValueError where it has none that can be read."""
    circuit = info.get("circuit")
    if circuit is None:
        if not isinstance(info.get("qasm"), str):
            raise ValueError("info has no qasm")
        return info["qasm"]
    if not isinstance(circuit, dict):
        raise ValueError("circuit is no table")
    kind, data = circuit.get("format"), circuit.get("data")
    if kind == "openqasm2" and isinstance(data, str):
        return data
    raise ValueError(f"circuit format {kind!r:.60} cannot be read")

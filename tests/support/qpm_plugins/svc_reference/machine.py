"""Tasks of the reference plugin, the thread that runs them, and the senders of their events."""

import os
import threading
import time
import uuid
from collections import Counter, deque

MAX_QUBITS = 16
AWAY_S = 0.02
OUTCOMES = {"queued": "ACCEPTED", "submitted": "ACCEPTED", "completed": "COMPLETED",
            "failed": "FAILED", "cancelled": "CANCELLED"}  # fmt: skip
ENDED = ("completed", "failed", "cancelled")
BEGUN = ("resources_consumed_time", "launch_time", "exec_time")
LATER = (*BEGUN, "completion_time", "cq_enqueue_time", "cq_dequeue_time")


class Stopped(Exception):
    """The task was cancelled while it ran."""


class Task:
    """`owner`: a client of revision 1 or a reservation of revision 2; `number`: its qtask_id."""

    def __init__(self, text, shots, vector, owner):
        self.text, self.shots, self.vector, self.owner = text, shots, vector, owner
        self.cid, self.number, self.state, self.why = str(uuid.uuid4()), 0, "queued", ""
        self.counts, self.amplitudes = {}, None
        self.stop, self.over = threading.Event(), threading.Event()
        self.times = {"creation_time": time.time(), **dict.fromkeys(LATER, -1.0)}

    def run(self):
        """Run it, in the one thread that ever loads Qiskit; return its last state."""
        try:
            self._simulate()
        except Stopped:
            return "cancelled"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the circuit
            self.why = f"not run: {error}"
            return "failed"
        return "completed"

    def _simulate(self):
        from qiskit import qasm2
        from qiskit.quantum_info import Statevector

        circuit = qasm2.loads(self.text, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
        if circuit.num_qubits > MAX_QUBITS:
            raise ValueError(f"{circuit.num_qubits} qubits; {MAX_QUBITS} can be run")
        state, bits = Statevector.from_int(0, 2**circuit.num_qubits), {}
        for item in circuit.data:
            if self.stop.is_set():
                raise Stopped
            qubits = [circuit.find_bit(qubit).index for qubit in item.qubits]
            if item.operation.name == "measure":
                bits[circuit.find_bit(item.clbits[0]).index] = qubits[0]
            elif item.operation.name == "reset":
                state = state.reset(qubits)
            elif item.operation.name != "barrier":
                state = state.evolve(item.operation, qubits)
        sizes = [register.size for register in circuit.cregs]
        self.counts = Counter()
        for key, count in state.sample_counts(self.shots).items():
            word = ["0"] * sum(sizes)
            for clbit, qubit in bits.items():
                word[clbit] = str(key)[-1 - qubit]
            parts = [word[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
            self.counts[" ".join("".join(part[::-1]) for part in reversed(parts))] += int(count)
        self.counts = dict(self.counts)
        if self.vector:
            self.amplitudes = [[each.real, each.imag] for each in state.data.tolist()]


class Machine:
    """All tasks of the process. Everything changes under `changed`."""

    def __init__(self, single):
        self.single = single
        self.changed = threading.Condition(threading.RLock())
        self.tasks, self.waiting, self.ready, self.registrations = {}, [], {}, []
        self.closed = False
        threading.Thread(target=self._work, daemon=True).start()

    def close(self):
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for task in list(self.tasks.values()):
            self.cancel(task)

    @staticmethod
    def is_away():
        """Is the machine away? A file says so, where a test names one."""
        path = os.environ.get("REFERENCE_OUTAGE")
        return path is not None and os.path.exists(path)

    def submit(self, task):
        with self.changed:
            task.number = len(self.tasks) + 1
            self.tasks[task.cid] = task
            self.waiting.append(task)
            self.changed.notify_all()

    def cancel(self, task):
        with self.changed:
            task.stop.set()
            if task in self.waiting:
                self.waiting.remove(task)
                self._end(task, "cancelled")

    def _work(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or self.waiting)
                if self.closed:
                    return
                task = self.waiting.pop(0)
                task.state = "submitted"
                task.times.update(dict.fromkeys(BEGUN, time.time()))
            state = task.run()
            while self.is_away():  # what it computed is lost: again, once the machine is back
                time.sleep(AWAY_S)
                state = state if self.is_away() else task.run()
            with self.changed:
                self._end(task, state)

    def _end(self, task, state):
        task.state = state
        task.times.update(dict.fromkeys(("completion_time", "cq_enqueue_time"), time.time()))
        listening = [each for each in self.registrations if each.owner in (None, task.owner)]
        if not (self.single and listening):
            self.ready[task.cid] = task
        for each in listening:
            each.offer(task)
        task.over.set()

    def take(self, cid, owner, *, keep):
        """A task that has ended, the oldest where no cid is given; None."""
        with self.changed:
            found = [each for each in self.ready.values()
                     if each.owner == owner and cid in (None, each.cid)]  # fmt: skip
            if found and not keep:
                found[0].times["cq_dequeue_time"] = time.time()
                del self.ready[found[0].cid]
            return found[0] if found else None

    def put(self, registration, payload):
        """Send one event; a registration whose client does not take it has ended."""
        try:
            registration.put(payload)
        except Exception:  # noqa: BLE001 - whatever it is, its reader has gone
            with self.changed:
                if registration in self.registrations:
                    self.registrations.remove(registration)
            return False
        return True

    def record(self, task):
        """A completion in the shape of the revision."""
        result = {"counts": task.counts}
        if task.amplitudes is not None:
            size = len(task.amplitudes)
            result["statevector"] = {
                "type": "statevector", "format": "complex128", "data": task.amplitudes,
                "num_qubits": size.bit_length() - 1, "num_amplitudes": size,
            }  # fmt: skip
        record = {"cid": task.cid, "rc": int(task.state != "completed"), **task.times}
        if self.single:
            plain = result if len(result) > 1 else task.counts
            return {**record, "result": (task.why or task.state) if record["rc"] else plain}
        moments = {f"qpm_{name}_ns": -1 if (s := task.times[name]) < 0 else round(s * 1e9)
                   for name in ("cq_enqueue_time", "cq_dequeue_time")}  # fmt: skip
        return {**record, **moments, "qtask_id": task.number, "reservation_id": task.owner,
                "outcome": OUTCOMES[task.state], "reason": task.state, "completion_ready": True,
                "result": result}  # fmt: skip


class Registration:
    """Events of one endpoint: a queue, and a thread while something is in it."""

    def __init__(self, machine, endpoint, evtype, class_id, owner):
        self.machine, self.endpoint, self.evtype = machine, endpoint, evtype
        self.class_id, self.owner = class_id, owner
        self._tasks, self._sends, self._ended = deque(), False, False

    def put(self, record):
        import api_events

        proxy = api_events.BaseEventAPI(class_id=self.class_id, target=self.endpoint)
        proxy.put(api_events.Event(self.evtype, record))

    def offer(self, task):
        """Called under the machine's lock."""
        self._tasks.append(task)
        if not self._sends:
            self._sends = True
            threading.Thread(target=self._send, daemon=True).start()

    def _send(self):
        while True:
            with self.machine.changed:
                if not self._tasks:
                    self._sends = False
                    return
                task = self._tasks.popleft()
            sent = self.evtype in (1, "completion") and not self._ended
            if sent:
                sent = self.machine.put(self, self.machine.record(task))
                self._ended = not sent
            if self.machine.single and not sent:
                with self.machine.changed:
                    self.machine.ready[task.cid] = task

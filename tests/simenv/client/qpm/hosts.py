"""What a host does: infos, waiting for a state, an endpoint that collects what it is put."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from busy_circuits import ENDLESS, busy
from live import Live
from waiting import until

from simenv.client.qpm.provider import QPM
from simenv.model import TaskState
from simenv.qpm.envelopes import EventEnvelope

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
BELL = HEAD + "qreg q[2];\ncreg c[2];\nh q[0];\ncx q[0],q[1];\nmeasure q -> c;\n"
PLAIN = HEAD + "qreg q[2];\ncreg c[2];\nh q[0];\ncx q[0],q[1];\n"
MIDDLE = HEAD + "qreg q[1];\ncreg c[1];\nh q[0];\nmeasure q -> c;\nh q[0];\n"
LONG, LESS = ENDLESS, busy(20)
BAD = HEAD + "qreg q[2];\nnonsense q[0];\n"
TIMES = (
    "creation_time", "resources_consumed_time", "launch_time", "exec_time", "completion_time",
    "cq_enqueue_time", "cq_dequeue_time",
)  # fmt: skip
WAIT_S = 60.0


def info(qasm: str = BELL, **more: Any) -> dict[str, Any]:
    """As the host's backend sends it."""
    return {"qasm": qasm, "num_qubits": 60, "num_shots": 200, "compiler": "staq", **more}


def completion(qpm: QPM, cid: str | None = None) -> dict[str, Any]:
    """Read it as a host does: again and again until it is ready."""

    def ready() -> dict[str, Any] | None:
        answer = qpm.read_cq(cid)
        return answer if answer["completion_ready"] else None

    table: dict[str, Any] = until(ready)
    return table


def running(qpm: QPM) -> dict[str, Any]:
    """The envelope of a circuit that a worker has begun and will be long about."""
    accepted = qpm.async_run(info(LONG))
    until(lambda: qpm.task_status(accepted["cid"])["lifecycle_state"] == "submitted")
    return accepted


@contextmanager
def held_up(live: Live) -> Iterator[None]:
    """The worker sits over somebody's long circuit."""
    with live.client() as client:
        task = client.submit(LONG)
        until(lambda: task.state is TaskState.RUNNING)
        try:
            yield
        finally:
            task.cancel()
            task.wait(timeout_s=WAIT_S)


class Endpoint:
    """Keeps what it is put; `broken`: its reader has gone."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.tried = 0
        self._events: queue.Queue[EventEnvelope] = queue.Queue()

    def put(self, event: EventEnvelope) -> None:
        self.tried += 1
        if self.broken:
            raise ConnectionError("the client has gone")
        self._events.put(event)

    def get(self) -> EventEnvelope:
        return self._events.get(timeout=WAIT_S)

    def empty(self) -> bool:
        return self._events.empty()

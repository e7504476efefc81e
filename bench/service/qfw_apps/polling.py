"""Application that submits circuits and polls for them until they end or 200 s have passed.

Half of them are polled for by cid, half without one; polling goes on while the service is down. In
revision 2 an event is due for each as well.
"""

import os
import sys
import time
from typing import Any

from defw import me
from defw_event_baseapi import BaseEventAPI
from defw_exception import DEFwInProgress, DEFwNotReady
from drill_output import print_record
from lookup import connect

import simenv.frontends.qfw.client  # noqa: F401 - locks DEFw's sending

WIDE = 24
LAYERS = 16  # long enough that some circuits run whenever the service is killed
layer = "".join(f"h q[{k}];\nrx(0.1) q[{k}];\n" for k in range(WIDE))
ladder = "".join(f"cx q[{k}],q[{k + 1}];\n" for k in range(WIDE - 1))
CIRCUIT = (
    f'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[{WIDE}];\ncreg c[{WIDE}];\n'
    + (layer + ladder) * LAYERS
    + "measure q -> c;\n"
)


def read(cid: str | None) -> dict[str, Any] | None:
    """Read the completion of a circuit, or the oldest; None if it is not ready."""
    try:
        record: dict[str, Any] = qpm.read_cq(cid)
    except DEFwInProgress:
        return None
    return record if first or record["completion_ready"] else None


qpm, first = connect()
events = BaseEventAPI()
if not first:
    events.register_external()
    qpm.register_event_notification(me.my_endpoint(), 1, events.class_id())
info = {"qasm": CIRCUIT, "num_qubits": WIDE, "num_shots": 100, "compiler": "staq"}
answers = [qpm.async_run(info) for _ in range(int(sys.argv[1]))]
cids = answers if first else [answer["cid"] for answer in answers]
print_record("submitted", cids=len(cids))
half = set(cids[: len(cids) // 2])
left, not_ready = set(cids), 0
unheard = set() if first else set(cids)
end = time.monotonic() + 200
while (left or unheard) and time.monotonic() < end:
    for cid in [None, *(left & half)]:
        try:
            record = read(cid)
        except DEFwNotReady:
            not_ready += 1
            if not_ready == 1:
                print_record("not-ready")
            break
        if record is None:
            continue
        left.discard(record["cid"])
        print_record("result", rc=record["rc"], left=len(left))
    unheard.difference_update(event.get_event()["cid"] for event in events.get())
    time.sleep(0.2)
print_record("end", left=len(left), unheard=len(unheard), not_ready=not_ready)
os._exit(0)

"""Application that submits circuits and polls for them until they end or 200 s have passed.

Half of them are polled for by cid, half without one; polling goes on while the service is down.
"""

import os
import sys
import time

from api_qpm import QPM  # noqa: F401 - known to DEFw's lookup
from defw_exception import DEFwInProgress, DEFwNotReady
from drill_output import print_record
from qfw_qiskit.qfw_lookup_service import get_qpm

import simenv.frontends.qfw.client  # noqa: F401 - locks DEFw's sending

WIDE = 22  # long enough that some circuits run whenever the service is killed
layer = "".join(f"h q[{k}];\nrx(0.1) q[{k}];\n" for k in range(WIDE))
ladder = "".join(f"cx q[{k}],q[{k + 1}];\n" for k in range(WIDE - 1))
CIRCUIT = (
    f'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[{WIDE}];\ncreg c[{WIDE}];\n'
    + (layer + ladder) * 4
    + "measure q -> c;\n"
)
qpm = get_qpm()
info = {"qasm": CIRCUIT, "num_qubits": WIDE, "num_shots": 100, "compiler": "staq"}
cids = [qpm.async_run(info) for _ in range(int(sys.argv[1]))]
print_record("submitted", cids=len(cids))
half = set(cids[: len(cids) // 2])
left, not_ready = set(cids), 0
end = time.monotonic() + 200
while left and time.monotonic() < end:
    for cid in [None, *(left & half)]:
        try:
            record = qpm.read_cq(cid)
        except DEFwInProgress:
            continue
        except DEFwNotReady:
            not_ready += 1
            if not_ready == 1:
                print_record("not-ready")
            break
        left.discard(record["cid"])
        print_record("result", rc=record["rc"], left=len(left))
    time.sleep(0.2)
print_record("end", left=len(left), not_ready=not_ready)
os._exit(0)

"""Applications that the drills of `qfw_host` start: application.py NAME [ARGUMENT ...].

An application is a function of this module, or the module of that name. It prints lines that the
drill reads, and ends at once: threads of the host do not end by themselves.
"""

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from qiskit import QuantumCircuit

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
FLIP = f"{HEAD}qreg q[2];\ncreg c[2];\nx q[0];\nmeasure q -> c;\n"


def print_record(kind: str, **fields: Any) -> None:
    print("@@@ " + json.dumps({"kind": kind, **fields}), flush=True)


def run_rows(rows: Iterable[Callable[[], None]]) -> None:
    """Run each row and print how it ended: `why` is empty where it passes."""
    for row in rows:
        try:
            row()
            why = ""
        except BaseException as error:  # noqa: BLE001 - a row that fails says why
            why = f"{type(error).__name__}: {error}"[:300]
        print_record("row", name=row.__name__, why=why)


def connect() -> tuple[Any, bool]:
    """Connect to the QPM, in revision 2 to its binding `execution`; return it, and whether this is
    revision 1."""
    try:
        from qfw_qiskit.qfw_lookup_service import get_qpm
    except ImportError:
        from defw_app_util import defw_connect_service_by_name, defw_get_directory_service

        directory = defw_get_directory_service()
        settings = {"service_type": "qfw.qpm", "binding_name": "execution"}
        return defw_connect_service_by_name(directory, "QPM", **settings)[0], False
    return get_qpm(), True


def qfw_backend() -> Any:
    from qfw_qiskit import QFwBackend

    return QFwBackend()


def ghz(qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    circuit.h(0)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return circuit


def leaving() -> None:
    """Register, submit one circuit, and exit on its event (QFw's own backend)."""
    circuit, backend = ghz(4), qfw_backend()
    begin = time.monotonic()
    counts = backend.run(circuit, shots=1024).result().get_counts()
    print_record("result", seconds=time.monotonic() - begin, counts=counts)


def second_client() -> None:
    """Connect, report it, and run circuits one by one once the file `go` exists."""
    circuit, backend = ghz(2), qfw_backend()
    print_record("connected")
    while not Path("go").exists():
        time.sleep(0.05)
    for _ in range(10):
        begin = time.monotonic()
        backend.run(circuit, shots=100).result()
        print_record("result", seconds=time.monotonic() - begin)


def stopping(count: str) -> None:
    """Register and submit slow circuits, during which the drill stops the process."""
    circuit = QuantumCircuit(18, 18)
    for _ in range(4):
        circuit.h(range(18))
        circuit.rx(0.1, range(18))
        for qubit in range(17):
            circuit.cx(qubit, qubit + 1)
    circuit.measure(range(18), range(18))
    job = qfw_backend().run([circuit] * int(count), shots=10)
    print_record("submitted")
    print_record("result", all=len(job.result().results))


def backends(count: str, *all_bits: str) -> None:
    """Use a backend for each string of bits at once; each circuit's counts identify its backend."""

    def work(backend: Any, bits: str) -> None:
        circuit = QuantumCircuit(len(bits), len(bits))
        for qubit, bit in enumerate(reversed(bits)):
            if bit == "1":
                circuit.x(qubit)
        circuit.measure(range(len(bits)), range(len(bits)))
        try:
            result = backend.run([circuit] * int(count), shots=10).result()
            own = sum(result.get_counts(k) == {bits: 10} for k in range(len(result.results)))
            print_record("own", bits=bits, own=own, all=len(result.results))
        except Exception as error:  # noqa: BLE001 - the drill counts the results it gets
            print_record("failed", bits=bits, why=f"{type(error).__name__}: {error}")

    pairs = [(qfw_backend(), bits) for bits in all_bits]
    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wide_text(qubits: int, layers: int) -> str:
    """Return OpenQASM of h, rx on each qubit and a ladder of cx, that often; all measured."""
    layer = "".join(f"h q[{k}];\nrx(0.1) q[{k}];\n" for k in range(qubits))
    layer += "".join(f"cx q[{k}],q[{k + 1}];\n" for k in range(qubits - 1))
    head = f"{HEAD}qreg q[{qubits}];\ncreg c[{qubits}];\n"
    return head + layer * layers + "measure q -> c;\n"


def polling(count: str) -> None:
    """Submit circuits and poll for them until they end or 200 s have passed.

    Half of them are polled for by cid, half without one; polling goes on while the service is down.
    In revision 2 an event is due for each as well. The circuits are so long that some of them run
    whenever the service is killed.
    """
    from defw import me
    from defw_event_baseapi import BaseEventAPI
    from defw_exception import DEFwInProgress, DEFwNotReady

    qpm, first = connect()
    events = BaseEventAPI()
    if not first:
        events.register_external()
        qpm.register_event_notification(me.my_endpoint(), 1, events.class_id())
    text = wide_text(24, 16)
    info = {"qasm": text, "num_qubits": 24, "num_shots": 100, "compiler": "staq"}
    answers = [qpm.async_run(info) for _ in range(int(count))]
    cids = answers if first else [answer["cid"] for answer in answers]
    print_record("submitted", cids=len(cids))
    half = set(cids[: len(cids) // 2])
    left, not_ready = set(cids), 0
    unheard = set() if first else set(cids)
    end = time.monotonic() + 200
    while (left or unheard) and time.monotonic() < end:
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
            if first or record["completion_ready"]:
                left.discard(record["cid"])
                print_record("result", rc=record["rc"], left=len(left))
        unheard.difference_update(event.get_event()["cid"] for event in events.get())
        time.sleep(0.2)
    print_record("end", left=len(left), unheard=len(unheard), not_ready=not_ready)


if __name__ == "__main__":
    sys.modules["application"] = sys.modules["__main__"]
    name, *arguments = sys.argv[1:]
    (globals().get(name) or importlib.import_module(name).run)(*arguments)
    os._exit(0)

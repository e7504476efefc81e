"""Write the environment that tests/compatibility/test_stored_environment.py resumes.

Run after a change of what is stored, with another number of the format:

    .venv/bin/python tests/support/make_stored_environment.py ARCHIVE.tar.xz

It holds ended tasks (done, failed, cancelled, done by its key), a cursor, a key for other machines,
a reservation, policies, a scaled pool, a journal that was not checkpointed, and three tasks that
wait: the service was killed while they did. Left out is what the machine would have lost as well,
or has anew: sockets, locks, logs, kernels.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
import tempfile
from pathlib import Path

LEFT_OUT = {
    *("connection.json", "journal.lock", "journal.db-shm", "worker.json", "service.log"),
    *("journal.spare", "kernels-1.log", "keys.json.lock", "telemetry.db-journal"),
}
NAME = "stored"
FOR_S = 9.9 * 365 * 86_400
KEEP_DAYS = 36_500.0
FAULT_RAISE = 1_000_004.0  # an angle at which the engine `fault` raises


def main(archive: str) -> None:
    home = tempfile.mkdtemp(prefix="simenv-stored-")
    os.environ["SIMENV_HOME"] = home
    import psutil
    from qiskit import QuantumCircuit

    from simenv.cli.app import run
    from simenv.client import environments
    from simenv.client.client import connect
    from simenv.model import AdmissionPolicy, DeviceProfile, Workload
    from simenv.wire.messages.admin import SetDispatch, SetOrder, SetPolicy, SetProfile

    def ghz(qubits: int, measured: bool = True) -> QuantumCircuit:
        circuit = QuantumCircuit(qubits)
        circuit.h(0)
        for qubit in range(qubits - 1):
            circuit.cx(qubit, qubit + 1)
        if measured:
            circuit.measure_all()
        return circuit

    failing = QuantumCircuit(1, 1)
    failing.rx(FAULT_RAISE, 0)
    failing.measure(0, 0)

    pools = [
        {"name": "main", "min": 1, "max": 1},
        {"name": "faulty", "engine": "fault", "min": 0, "max": 1},
    ]
    settings = {"listen": "tcp://127.0.0.1:0", "history": {"keep_days": KEEP_DAYS}}
    pid = environments.up({"name": NAME, "pools": pools, **settings}).pid
    assert run(["keys", "add", "ana", "--name", NAME, "--out", f"{home}/ana.simenv"]) == 0
    with connect(NAME) as client:
        base = Workload(1, 2, 1, 0, 0, 2, 100)
        profile = DeviceProfile(
            one_q_gate_ns=0, two_q_gate_ns=0, measurement_ns=100_000, baseline=base
        )
        policy = AdmissionPolicy("credit", base, total_credits=40)
        client._session.request(SetProfile(0, "main", profile))
        client._session.request(SetPolicy(0, "main", policy))
        client._session.request(SetOrder(0, "main", "fifo"))
        client._session.request(SetDispatch(0, "main", 1))
        reservation = client.reserve(
            "main", count=8, qubits=2, measurements=2, shots=100, for_s=FOR_S
        )
        tasks = {
            "finished": client.submit(ghz(3), shots=1000, seed=5),
            "reserved": client.submit(ghz(2), shots=100, seed=1, reservation=reservation),
            "amplitudes": client.submit(ghz(3, False), shots=None, outputs=("statevector",)),
            "keyed": client.submit(ghz(2), shots=100, seed=9, idempotency_key="once"),
        }
        table = {name: task.result(timeout_s=60) for name, task in tasks.items()}
        tasks["failed"] = client.submit(failing, engine="fault", shots=1)
        tasks["failed"].wait(timeout_s=60)
        client.ack(3, "reader")
        client.scale("faulty", min_workers=0, max_workers=2)
        (worker,) = [each for each in client.workers() if each.pool == "main"]
        suspended = psutil.Process(worker.pid)
        suspended.suspend()  # what is submitted now waits
        tasks["waiting"] = client.submit(ghz(3), shots=1000, seed=5)
        tasks["waiting, another seed"] = client.submit(ghz(3), shots=1000, seed=6)
        tasks["waiting, reserved"] = client.submit(
            ghz(2), shots=100, seed=1, reservation=reservation
        )
        tasks["cancelled"] = client.submit(ghz(4), shots=10, seed=2)
        client.cancel([tasks["cancelled"]])
        tasks["cancelled"].wait(timeout_s=60)
        mapping = {
            "tasks": {name: str(task.id) for name, task in tasks.items()},
            "counts": {name: dict(each.counts) for name, each in table.items() if each.shots},
            "events": [event.kind for event in client.events()],
        }
        below = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        suspended.kill()
        for process in below:
            if process.is_running():
                process.kill()
    folder = Path(home) / NAME
    config = json.loads((folder / "config.json").read_text())
    config["import_from"] = []
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "expected.json").write_text(json.dumps(mapping, indent=1))
    with tarfile.open(archive, "w:xz") as out:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and path.name not in LEFT_OUT and inside.parts[0] != "logs":
                out.add(path, str(inside), filter=_anonymous)
        out.add(Path(home) / "ana.simenv", "ana.simenv", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(sys.argv[1])

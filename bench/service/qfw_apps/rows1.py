"""Requirements of applications of revision 1, one row each, with QFw's backend and primitives."""

import time
from collections.abc import Callable

from application import FLIP, ghz, run_rows
from defw_exception import DEFwExecutionError, DEFwInProgress
from qfw_qiskit import QFwBackend, QFwBackendCapability, QFwBackendType
from qfw_qiskit.qfw_lookup_service import get_qpm

MEASURED = ghz(2)
INFO = {"qasm": FLIP, "num_qubits": 2, "num_shots": 10, "compiler": "staq"}
qpm = get_qpm()


def read(cid: str | None, call: Callable[[str | None], dict] = qpm.read_cq) -> dict:
    end = time.monotonic() + 30
    while True:
        try:
            return call(cid)
        except DEFwInProgress:
            assert time.monotonic() < end, "no record"
            time.sleep(0.02)


def backend_counts() -> None:
    counts = QFwBackend().run(MEASURED, shots=1000).result().get_counts()
    assert set(counts) == {"00", "11"}, counts
    assert sum(counts.values()) == 1000, counts


def batch_of_50() -> None:
    result = QFwBackend().run([MEASURED] * 50, shots=10).result()
    assert [sum(result.get_counts(k).values()) for k in range(50)] == [10] * 50


def statevector() -> None:
    capability = QFwBackendCapability.QFW_CAP_STATEVECTOR
    backend = QFwBackend(betype=QFwBackendType.QFW_TYPE_NWQSIM, capability=capability)
    result = backend.run(MEASURED).result().get_statevector()
    assert abs(abs(result.data[0]) ** 2 - 0.5) < 1e-9, result


def tensor_network_type() -> None:
    capability = QFwBackendCapability.QFW_CAP_TENSORNETWORK
    backend = QFwBackend(betype=QFwBackendType.QFW_TYPE_TNQVM, capability=capability)
    assert sum(backend.run(MEASURED, shots=7).result().get_counts().values()) == 7


def qb_type() -> None:
    backend = QFwBackend(betype=QFwBackendType.QFW_TYPE_QB)
    assert sum(backend.run(MEASURED, shots=7).result().get_counts().values()) == 7


def sync_run() -> None:
    record = qpm.sync_run(INFO)
    assert (record["rc"], record["result"]) == (0, {"01": 10}), record


def async_and_read() -> None:
    cid = qpm.async_run(INFO)
    assert read(cid)["cid"] == cid


def peek_keeps() -> None:
    cid = qpm.async_run(INFO)
    assert read(cid, qpm.peek_cq)["cid"] == cid
    assert read(cid)["cid"] == cid


def width_is_an_estimate() -> None:
    assert qpm.sync_run({**INFO, "num_qubits": 0})["rc"] == 0


def bad_circuit_is_a_record() -> None:
    for text in ("this is not qasm", "OPENQASM 2.0;\nnothing;\n"):
        assert read(qpm.async_run({**INFO, "qasm": text}))["rc"] != 0


def bad_circuit_raises_in_sync() -> None:
    try:
        qpm.sync_run({**INFO, "qasm": "OPENQASM 2.0;\nnothing;\n"})
    except DEFwExecutionError as error:
        message = str(error)
    else:
        raise AssertionError("it was run")
    assert "Traceback" not in message, message
    assert "simenv/" not in message, message


def seven_times() -> None:
    record = qpm.sync_run(INFO)
    names = ("creation", "resources_consumed", "launch", "exec", "completion", "cq_enqueue")
    times = [record[f"{name}_time"] for name in names]
    assert all(isinstance(seconds, float) for seconds in times)
    assert times[0] <= times[3] <= times[4]


def ready_and_test() -> None:
    assert qpm.is_ready() is True
    assert isinstance(qpm.test(), str)


def delete_is_silent() -> None:
    assert qpm.delete_circuit("no-such-circuit") is None
    cid = qpm.async_run(INFO)
    assert qpm.delete_circuit(cid) is None


def shutdown_of_one_client_stops_no_other() -> None:
    other = get_qpm()
    other.shutdown()
    assert qpm.sync_run(INFO)["rc"] == 0


ROWS: list[Callable[[], None]] = [
    backend_counts, batch_of_50, statevector, tensor_network_type, qb_type, sync_run,
    async_and_read, peek_keeps, width_is_an_estimate, bad_circuit_is_a_record,
    bad_circuit_raises_in_sync, seven_times, ready_and_test, delete_is_silent,
    shutdown_of_one_client_stops_no_other,
]  # fmt: skip


def run() -> None:
    run_rows(ROWS)

"""Probes of a pool's QPM in addition to the circuits: queries and invalid requests.

A probe is a name and a call; it costs the pool at most one circuit of FEW_SHOTS shots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

FEW_SHOTS = 16
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
FAR = 2**40  # a number that no task and no reservation has
Probe = tuple[str, Callable[[], Any]]

# Invalid requests by their error: values that replace fields of a valid request; ...: no field.
_MISTAKES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("num_shots=0", {"num_shots": 0}),
    ("num_shots=text", {"num_shots": "many"}),
    ("num_shots missing", {"num_shots": ...}),
    ("seed=-1", {"seed": -1}),
    ("priority=text", {"priority": "first"}),
    ("no circuit", {"qasm": ..., "circuit": ...}),
    ("circuit is no QASM", {"qasm": "OPENQASM 2.0;\nqreg q[2]\nthis is none;", "circuit": ...}),
    ("gate that is none", {"qasm": "OPENQASM 2.0;\nqreg q[1];\nnosuch q[0];", "circuit": ...}),
    ("circuit format unknown", {"qasm": ..., "circuit": {"format": "other", "data": "x;"}}),
    ("num_qubits=0", {"num_qubits": 0}),
)


def revision2(qpm: Any, info: dict[str, Any], pool: str) -> Iterator[Probe]:
    """Yield the probes of revision 2. `info`: a valid request for the pool."""
    few = {**info, "num_shots": FEW_SHOTS}
    yield "sync_run", partial(qpm.sync_run, few)
    yield "sync_run(timeout=-1)", partial(qpm.sync_run, few, timeout=-1)
    yield "sync_run(reservation_id=none of mine)", partial(qpm.sync_run, few, FAR)
    yield from _invalid_calls("sync_run", qpm.sync_run, few)
    yield from _invalid_calls("async_run", qpm.async_run, few)
    for call in (qpm.read_cq, qpm.peek_cq, qpm.task_status, qpm.cancel_task, qpm.delete_circuit):
        yield f"{call.__name__}(unknown)", partial(call, UNKNOWN_ID)
        yield f"{call.__name__}(cid=7)", partial(call, 7)
    yield "read_cq() of nothing", qpm.read_cq
    for call in (qpm.get_task_timing, qpm.get_task_metadata):
        yield f"{call.__name__}(unknown)", partial(call, task_id=FAR)
        yield f"{call.__name__}(task_id=text)", partial(call, task_id="one")
    yield from _telemetry(qpm, pool)
    yield from _management_probes(qpm)
    for call in (qpm.query, qpm.test, qpm.is_ready, qpm.get_service_status):
        yield call.__name__, call


def revision1(qpm: Any, info: dict[str, Any]) -> Iterator[Probe]:
    """Yield the probes of revision 1, the single class; their names begin with `r1.`."""
    few = {**info, "num_shots": FEW_SHOTS}
    yield "r1.sync_run", partial(qpm.sync_run, few)
    yield from _invalid_calls("r1.sync_run", qpm.sync_run, few)
    yield "r1.read_cq(unknown)", partial(qpm.read_cq, UNKNOWN_ID)
    yield "r1.peek_cq(cid=7)", partial(qpm.peek_cq, 7)
    yield "r1.delete_circuit(unknown)", partial(qpm.delete_circuit, UNKNOWN_ID)
    for call in (qpm.query, qpm.test, qpm.is_ready):
        yield f"r1.{call.__name__}", call


def _invalid_calls(name: str, call: Callable[[Any], Any], valid: dict[str, Any]) -> Iterator[Probe]:
    yield f"{name}(info=[])", partial(call, [])
    for what, changes in _MISTAKES:
        invalid = {key: value for key, value in {**valid, **changes}.items() if value is not ...}
        yield f"{name}({what})", partial(call, invalid)


def _management_probes(qpm: Any) -> Iterator[Probe]:
    """Yield queries only: none of them reserves anything or changes the pool's settings."""
    for call in (
        qpm.get_scheduler_status, qpm.get_scheduler_policy, qpm.get_scheduler_queue_state,
        qpm.get_device_profile, qpm.get_admission_policy, qpm.list_reservations,
    ):  # fmt: skip
        yield call.__name__, call
    for call in (qpm.get_reservation, qpm.renew, qpm.release, qpm.cancel):
        yield f"{call.__name__}(none of mine)", partial(call, reservation_id=FAR)
    yield "evaluate(request=none)", qpm.evaluate
    yield "evaluate(request=[])", partial(qpm.evaluate, request=[])


def _telemetry(qpm: Any, pool: str) -> Iterator[Probe]:
    by_library = (
        qpm.get_backend_info, qpm.get_device_info, qpm.get_dynamic_backend_info,
        qpm.get_calibration_snapshot, qpm.get_coupling_graph,
    )  # fmt: skip
    for call in by_library:
        yield call.__name__, partial(call, lib=pool)
        yield f"{call.__name__}(lib=none)", partial(call, lib="no-such-pool")
    for call in (qpm.get_capacity_snapshot, qpm.get_queue_metrics):
        yield call.__name__, partial(call, device_id=pool)
        yield f"{call.__name__}(device_id=none)", partial(call, device_id="no-such-pool")

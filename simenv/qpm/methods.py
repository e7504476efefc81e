"""Methods of the contract by binding, with argument order and defaults.

Every argument of revision 2 but `info`, `cid` and those of an event registration has a default. All
methods are thread-safe and may block. They return plain data, see `envelopes`, `telemetry`,
`admission` and `scheduler`, and raise the errors of `errors`. A QPM without a token of its own
ignores the argument `token`. `lib`: a pool; None: the whole environment. `device_id`: a device's
name or number; None: the target as a whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

NEEDED = inspect.Parameter.empty
Arguments = tuple[tuple[str, object], ...]


TOKEN: Arguments = (("token", None),)


_RUN: Arguments = (
    ("info", NEEDED), ("reservation_id", None), ("token", None), ("timeout", None),
    ("cancel_on_timeout", False),
)  # fmt: skip


_POLL: Arguments = (("cid", None), ("reservation_id", None), ("token", None))


_ASK: Arguments = (("token", None), ("reservation_id", None), ("task_id", None))


_DEVICE: Arguments = (("token", None), ("device_id", None))


_LIB: Arguments = (("lib", None), ("token", None))


_CALIBRATION: Arguments = (("calibration_set_id", None), *_LIB)


_END: Arguments = (("token", None), ("reservation_id", None), ("reason", None))


_REGISTER1: Arguments = (("ep", NEEDED), ("evtype", NEEDED), ("class_id", NEEDED))


_REGISTER: Arguments = (*_REGISTER1, ("token", None), ("reservation_id", None), ("filters", None))


REVISION2: Mapping[str, Mapping[str, Arguments]] = {
    "execution": {
        "sync_run": _RUN,
        "async_run": _RUN,
        "read_cq": _POLL,
        "peek_cq": _POLL,
        "task_status": (*_POLL, ("qtask_id", None)),
        "cancel_task": (*_POLL, ("reason", None), ("qtask_id", None)),
        "get_task_timing": _ASK,
        "get_task_metadata": _ASK,
        "register_event_notification": _REGISTER,
        "delete_circuit": (("cid", NEEDED), ("reservation_id", None), ("token", None)),
    },
    "admission": {
        "evaluate": (*TOKEN, ("request", None)),
        "reserve": (*TOKEN, ("request", None)),
        "renew": (*TOKEN, ("reservation_id", None), ("request", None)),
        "release": _END,
        "cancel": _END,
        "get_reservation": (*TOKEN, ("reservation_id", None)),
        "list_reservations": (*TOKEN, ("filters", None)),
    },
    "admission-policy": {
        "configure_device_profile": (*_DEVICE, ("profile", None)),
        "get_device_profile": _DEVICE,
        "set_admission_policy": (*_DEVICE, ("configuration", None)),
        "get_admission_policy": _DEVICE,
    },
    "scheduler": {
        "get_scheduler_status": _DEVICE,
        "get_scheduler_policy": _DEVICE,
        "configure_scheduler_policy": (*_DEVICE, ("configuration", None)),
        "pause_execution_target": (*_DEVICE, ("reason", None)),
        "resume_execution_target": (*_DEVICE, ("reason", None)),
        "drain_execution_target": (*_DEVICE, ("mode", "graceful"), ("timeout_s", None)),
        "configure_dispatch_limits": (*_DEVICE, ("limits", None)),
        "get_scheduler_queue_state": (*_DEVICE, ("include_restricted", False)),
    },
    "telemetry": {
        "get_backend_info": _LIB,
        "get_device_info": _LIB,
        "get_dynamic_backend_info": _CALIBRATION,
        "get_calibration_snapshot": _CALIBRATION,
        "get_coupling_graph": _CALIBRATION,
        "get_telemetry_access_model": TOKEN,
        "get_capacity_snapshot": (*_DEVICE, ("scope_id", None), ("access_class", None)),
        "get_queue_metrics": (*_DEVICE, ("access_class", None)),
        "get_service_lifecycle_telemetry": (*TOKEN, ("access_class", None)),
    },
    "control": {
        "test": TOKEN,
        "is_ready": TOKEN,
        "get_service_status": TOKEN,
        "reconcile_runtime_state": (*TOKEN, ("reason", None)),
        "shutdown": (*TOKEN, ("mode", "graceful"), ("timeout_s", None), ("reason", None)),
    },
}


REVISION1: Mapping[str, Arguments] = {
    "query": (),
    "reserve": (("svc", NEEDED), ("client_ep", NEEDED)),
    "release": (("services", None),),
    "test": (),
    "is_ready": (),
    "sync_run": (("info", NEEDED),),
    "async_run": (("info", NEEDED),),
    "read_cq": (("cid", None),),
    "peek_cq": (("cid", None),),
    "delete_circuit": (("cid", NEEDED),),
    "register_event_notification": _REGISTER1,
    "shutdown": (),
}


# Methods of simenv that the contract does not require.
EXTENSIONS: Mapping[str, Mapping[str, Arguments]] = {
    "telemetry": {
        "capability_map": TOKEN,
        "list_scheduler_allocations": (*TOKEN, ("filters", None)),
        "get_telemetry_history": (
            *(*TOKEN, ("series", None), ("since_s", None), ("until_s", None)),
            *(("step_s", None), ("access_class", None)),
        ),
    },
    "control": {"get_service_summary": TOKEN},
    "scheduler": {"calibrate_execution_target": (*_DEVICE, ("reason", None))},
}


EXTENSIONS1: Mapping[str, Arguments] = {"expire": ()}


def revision2_methods() -> dict[str, Arguments]:
    """Methods of simenv in revision 2: those of all bindings, and the extensions."""
    return {
        name: arguments
        for methods in (*REVISION2.values(), *EXTENSIONS.values())
        for name, arguments in methods.items()
    }


def method_signature(arguments: Arguments) -> inspect.Signature:
    """Signature of a method with these arguments, with self."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, default=value) for name, value in arguments]
    return inspect.Signature([inspect.Parameter("self", kind), *parameters])

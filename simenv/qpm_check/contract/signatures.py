"""Methods of the contract by binding, with argument order and defaults."""

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
        "register_event_notification": (
            ("ep", NEEDED),
            ("evtype", NEEDED),
            ("class_id", NEEDED),
            ("token", None),
            ("reservation_id", None),
            ("filters", None),
        ),
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
    "register_event_notification": (("ep", NEEDED), ("evtype", NEEDED), ("class_id", NEEDED)),
    "shutdown": (),
}
CLIENTS: Mapping[str, tuple[str, str]] = {
    "execution": ("api_qpm_execution", "QPMExecution"),
    "admission": ("api_qpm_admission_control", "QPMAdmissionControl"),
    "admission-policy": ("api_qpm_admission_policy_config", "QPMAdmissionPolicyConfig"),
    "scheduler": ("api_qpm_scheduler_control", "QPMSchedulerControl"),
    "telemetry": ("api_qpm_telemetry", "QPMTelemetry"),
    "control": ("api_qpm_control", "QPMControl"),
}
_BINDING_OF = {method: name for name, methods in REVISION2.items() for method in methods}


def binding_of(method: str) -> str:
    """Binding whose client has the method; "" for a method of the class itself."""
    return _BINDING_OF.get(method, "")


def misfits(method: str, signature: inspect.Signature | None, wanted: Arguments) -> list[str]:
    """Reasons why a host's call would not match the signature; the `reserve` of the two revisions
    differs in names only."""
    if signature is None:
        return [f"there is no method {method}"]
    names = list(signature.parameters)
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    takes_named = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    settings = []
    for place, (name, default) in enumerate(wanted):
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not (takes_any and takes_named):
                settings.append(f"{method} has no argument {name!r}")
            continue
        by_name_only = parameter.kind is parameter.KEYWORD_ONLY
        if not by_name_only and names.index(name) != place:
            settings.append(
                f"{method}: {name!r} is argument {names.index(name) + 1}, not {place + 1}"
            )
        if default is not NEEDED and parameter.default is NEEDED:
            settings.append(f"{method}: {name!r} must be given, but a host may leave it out")
        elif default is not NEEDED and parameter.default != default:
            settings.append(
                f"{method}: {name!r} is {parameter.default!r} by default, not {default!r}"
            )
    wanted_names = {name for name, _ in wanted}
    settings += [
        f"{method} needs an argument {name!r} that no host gives"
        for name, parameter in signature.parameters.items()
        if name not in wanted_names and parameter.default is NEEDED
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]  # fmt: skip
    return settings

"""Every text, list and map of a body that the gateway decodes has a bound; what is of any type is
bounded by the size of the body, above 64 KiB in a process with a bound of memory."""

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest

from simenv import gateway
from simenv.gateway.native.openapi import _REQUESTS

# Bodies, beside those of the native API.
OTHERS = {
    "simenv.gateway.ibm.job_request": ("JobRequest",),
    "simenv.gateway.ibm.service": ("SessionRequest",),
    "simenv.gateway.ibm.options": ("Parameters",),
    "simenv.gateway.iqm.circuits": ("Definition", "IqmOperation", "IqmCircuit"),
    "simenv.gateway.pasqal.requests": ("BatchBody", "JobBody"),
    "simenv.gateway.page.views": ("DrainReason",),
    "simenv.gateway.app": ("SignIn",),
}
DECODED_ELSEWHERE = {"ProgramRequest", "GatewaySettings", "Account", "Qos", "PulseCall"}
BODIES = {kind.__name__: kind for kind in _REQUESTS.values()} | {
    name: getattr(importlib.import_module(module), name)
    for module, names in OTHERS.items()
    for name in names
}


def unbounded(kind: Any, path: str) -> list[str]:
    """Return the paths of parts of a type that have no greatest length."""
    found: list[str] = []
    info = msgspec.inspect
    if isinstance(kind, info.UnionType):
        return [each for part in kind.types for each in unbounded(part, path)]
    if isinstance(kind, info.Metadata):
        return unbounded(kind.type, path)
    if isinstance(kind, info.StructType):
        return [
            each for field in kind.fields for each in unbounded(field.type, f"{path}.{field.name}")
        ]
    sized = info.StrType | info.BytesType | info.ListType | info.VarTupleType | info.DictType
    if isinstance(kind, sized) and kind.max_length is None:
        found.append(path)
    if isinstance(kind, info.ListType | info.VarTupleType):
        found += unbounded(kind.item_type, f"{path}[]")
    if isinstance(kind, info.DictType):
        found += unbounded(kind.key_type, f"{path} key") + unbounded(kind.value_type, f"{path}{{}}")
    return found


@pytest.mark.parametrize("name", BODIES)
def test_every_list_and_map_of_a_body_is_bounded(name: str) -> None:
    assert unbounded(msgspec.inspect.type_info(BODIES[name]), name) == []


def test_every_struct_that_refuses_unknown_fields_is_walked() -> None:
    """Bodies are the structs that refuse unknown fields: a new one is walked too."""
    found = set()
    for module in pkgutil.walk_packages(gateway.__path__, f"{gateway.__name__}."):
        if module.name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
            if is_struct and kind.__struct_config__.forbid_unknown_fields:
                found.add(kind.__name__)
    assert found - DECODED_ELSEWHERE <= set(BODIES)

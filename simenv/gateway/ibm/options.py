"""Options of the sampler and the estimator: read, honoured, or refused by name.

The models are those of ibm-quantum-schemas. An option that this environment cannot honour is
refused before the job is accepted, unless it has its default, or belongs to a method that is not
enabled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ValidationError

from simenv.errors import DECODE_ERRORS, OptionError

PROGRAMS = ("sampler", "estimator", "executor")
MAX_OPTION_BYTES = 64 * 2**10  # of JSON; those of the client have a few KiB
_VERSION = 2
_OF_OTHERS = {"sampler": ("resilience_level", "precision"), "estimator": ("shots",)}
_HONOURED = (
    "default_shots", "default_precision", "seed_estimator", "simulator.seed_simulator",
)  # fmt: skip
# A method that is not enabled: its other options have no effect.
_SWITCHES = {
    "dynamical_decoupling": ("enable",),
    "twirling": ("enable_gates", "enable_measure"),
    "resilience": ("measure_mitigation", "zne_mitigation", "pec_mitigation", "layer_noise_model"),
}
_HINTS = {
    "dynamical_decoupling": "put the pulses into the circuit, or use"
    " qiskit_ibm_runtime.executor_sampler.Sampler",
    "twirling": "use qiskit_ibm_runtime.executor_sampler.Sampler or executor_estimator.Estimator",
    "resilience": "use qiskit_ibm_runtime.executor_estimator.Estimator",
    "resilience_level": "0, or qiskit_ibm_runtime.executor_estimator.Estimator",
    "execution.meas_type": "classified",
    "simulator.noise_model": "a pool or device of the environment with that noise",
}


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a program. The PUBs are not parsed, and the options only when their size is
    known: what a user sends may have any size and number of names."""

    pubs: msgspec.Raw = msgspec.Raw(b"[]")
    options: msgspec.Raw = msgspec.Raw(b"null")
    version: int = _VERSION
    support_qiskit: bool = True
    resilience_level: int | None = None
    shots: Annotated[int, msgspec.Meta(ge=1)] | None = None  # of PUBs without: QRMI sends it here
    precision: Annotated[float, msgspec.Meta(gt=0)] | None = None  # likewise


class RuntimeOptions(msgspec.Struct, frozen=True):
    """Options of a run. `seed` None: drawn; `precision` 0: by `shots`."""

    shots: int
    precision: float
    seed: int | None
    for_qiskit: bool  # the result is encoded for Qiskit; else plain JSON


def read(program: str, params: bytes) -> RuntimeOptions:
    """Read the options among a program's parameters, JSON. Raises OptionError with the option, for
    one that is unknown, has a value that is not allowed, or cannot be honoured here. The first call
    takes a second, to import the models."""
    try:
        fields = msgspec.json.decode(params, type=Parameters)
        if (size := len(bytes(fields.options))) > MAX_OPTION_BYTES:
            text = f"options: {size} bytes, and the limit is {MAX_OPTION_BYTES}"
            raise OptionError(text, option="options", hint="the circuits belong into the PUBs")
        given = msgspec.json.decode(fields.options, type=dict[str, Any] | None) or {}
    except DECODE_ERRORS as error:
        raise OptionError(f"params: {error!s:.200}") from error
    for name in _OF_OTHERS[program]:
        if getattr(fields, name) is not None:
            raise OptionError(f"params: there is no {name!r} of the {program}", hint="leave it out")
    if fields.version != _VERSION:
        hint = "SamplerV2 and EstimatorV2"
        raise OptionError(f"params: version={fields.version}, and {_VERSION} is here", hint=hint)
    if fields.resilience_level:
        _refuse("resilience_level", fields.resilience_level)
    model = _model(program)
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise OptionError(f"options: {name}: {first['msg']}"[:500], option=name[:80]) from error
    values = checked.model_dump(exclude_defaults=True, by_alias=True)
    for name, value in _flat(values):
        group = name.partition(".")[0]
        if name not in _HONOURED and _is_enabled(group, values) and value is not None:
            _refuse(name, value)
    simulator = values.get("simulator") or {}
    seed = values.get("seed_estimator", simulator.get("seed_simulator"))
    if seed is not None and seed < 0:
        raise OptionError(option="seed_simulator", value=seed, expected="0 or more")
    shots = fields.shots or getattr(checked, "default_shots", None) or 0
    precision = 0.0 if shots else getattr(checked, "default_precision", 0.0)
    return RuntimeOptions(shots, fields.precision or precision, seed, fields.support_qiskit)


@cache
def _model(program: str) -> type[BaseModel]:
    """Model of a program's options; the import takes a second."""
    models = import_module(f"ibm_quantum_schemas.{program}.version_0_1")
    result: type[BaseModel] = models.OptionsModel
    return result


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value and "__type__" not in value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_enabled(group: str, values: Mapping[str, Any]) -> bool:
    switches = _SWITCHES.get(group)
    return switches is None or any(values[group].get(switch) for switch in switches)


def _refuse(name: str, value: object) -> None:
    group = name.partition(".")[0]
    hint = _HINTS.get(name) or _HINTS.get(group) or "leave it out"
    raise OptionError(
        f"options: {name}={value!r:.80} is not supported here", hint=hint, option=name
    )

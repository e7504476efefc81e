"""The argument `noise` of a submission: factors of components, or a noise document.

Noise models of Qiskit Aer become noise documents, without an import of Aer. The service knows the
names of components, and refuses unknown ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard

import msgspec

from simenv.errors import OptionError
from simenv.model import NoiseFactors
from simenv.text import short_repr

_HINT = (
    "build the model from errors of gates and readout, and from NoiseModel.from_backend;"
    " other noise passes have no form that can be sent"
)


def is_aer_model(noise: Any) -> bool:
    """Return whether a value is a `qiskit_aer.noise.NoiseModel`."""
    kind = type(noise)
    return kind.__name__ == "NoiseModel" and kind.__module__.partition(".")[0] == "qiskit_aer"


def aer_document(noise: Any) -> bytes:
    """Return JSON of an Aer noise model with the fields of `NoiseModel.to_dict`. `idle` is added:
    the relaxation times of Aer's RelaxationNoisePass, which acts on delays. Raises OptionError for
    a model with other noise passes."""
    values = noise.to_dict(serializable=True)
    passes = getattr(noise, "_custom_noise_passes", [])
    if any(type(each).__name__ != "RelaxationNoisePass" for each in passes) or len(passes) > 1:
        raise OptionError("noise: an Aer noise model with noise passes", hint=_HINT)
    for each in passes:
        values["idle"] = [
            {"qubits": [qubit], "t1_us": _us(t1_s), "t2_us": _us(t2_s), "excited": float(excited)}
            for qubit, (t1_s, t2_s, excited) in enumerate(
                zip(each._t1s, each._t2s, each._p1s, strict=True)
            )
        ]
        values["num_qubits"] = len(values["idle"])
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _us(seconds: Any) -> float | None:
    """Convert seconds to microseconds; None for an infinite time."""
    return None if math.isinf(seconds) else float(seconds) * 1e6


OFF: NoiseFactors = (("all", 0.0),)
ON: NoiseFactors = (("all", 1.0),)  # the device as calibrated; without a device it is refused
_NOISE_HINT = (
    '"auto", "on", "off", a recipe such as "aer", factors such as {"gate.depolarizing": 0.5}, or an'
    " exported noise model (bytes) or an Aer noise model"
)
_IDLE = "recipe.idle"
_SWITCHES = ("idle", _IDLE)  # True or False; all others are numbers


def factors_of(noise: Any) -> NoiseFactors:
    """Return the factors as they are sent, sorted by component. Raises OptionError. () is the
    device as calibrated, or no noise where there is no device."""
    if noise is None:
        return ()
    if isinstance(noise, str):
        named = {"auto": (), "on": ON, "off": OFF}.get(noise)
        return ((f"recipe.{_short(noise)}", 1.0),) if named is None else named
    if not isinstance(noise, Mapping):
        raise OptionError(f"noise={short_repr(noise)}", hint=_NOISE_HINT)
    entries: dict[str, float] = {}
    for name, value in noise.items():
        if name == "recipe":
            if not isinstance(value, str):
                raise OptionError(f"noise: recipe = {short_repr(value)}", hint='such as "aer"')
            if value != "simenv":
                entries[f"recipe.{_short(value)}"] = 1.0
            continue
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise OptionError(f"noise: component {short_repr(name)}", hint=_NOISE_HINT)
        if name in ("kind", "errors"):  # callers that take no documents
            hint = "factors of components alone, such as gate.depolarizing = 0.5"
            raise OptionError("noise: noise models of your own are not taken here", hint=hint)
        if not _is_finite(value) or (isinstance(value, bool) and name not in _SWITCHES):
            hint = "True or False" if name in _SWITCHES else "a finite number, 0 or more"
            raise OptionError(f"noise: {name} = {short_repr(value)}", hint=hint)
        key = _IDLE if name == "idle" else name
        if key in entries:
            raise OptionError("noise: idle is given twice", hint="give it once")
        entries[key] = float(value)
    return tuple(sorted(entries.items()))


def _is_finite(value: object) -> TypeGuard[Real]:
    """Return whether this is a real number within the range of float64."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False


def document_of(noise: Any) -> bytes:
    """Return a noise document as it is stored; b"" if `noise` is not one. `noise` may be JSON
    (bytes or a mapping), a struct of the package noise_models, or an Aer noise model. Raises
    OptionError."""
    if isinstance(noise, bytes | bytearray):
        if not noise:
            raise OptionError("noise: an empty document", hint="JSON of a noise model")
        return bytes(noise)
    if is_aer_model(noise):
        return aer_document(noise)
    if isinstance(noise, Mapping) and ("kind" in noise or "errors" in noise):
        _check_numbers(noise, "")
        return msgspec.json.encode(noise, order="deterministic")
    config = getattr(noise, "__struct_config__", None)
    if config is not None and config.tag_field == "kind":  # of the package noise_models
        return msgspec.json.encode(noise, order="deterministic")
    return b""


class _Channels(msgspec.Struct):
    """Names of operations in a noise document, of Aer or of the package noise_models."""

    errors: tuple[_AerError, ...] = ()
    channels: tuple[_GateChannel, ...] = ()


class _AerError(msgspec.Struct):
    operations: tuple[str, ...] = ()


class _GateChannel(msgspec.Struct):
    gate: str = ""


def channel_names(document: bytes) -> frozenset[str]:
    """Return the names of operations that a noise document has channels of; none for a calibration
    snapshot, or a document that the service will refuse."""
    try:
        found = msgspec.json.decode(document, type=_Channels)
    except msgspec.DecodeError:
        return frozenset()
    named = {name for error in found.errors for name in error.operations}
    return frozenset(named | {each.gate for each in found.channels}) - {"measure"}


def _check_numbers(tree: Any, place: str) -> None:
    """Raise OptionError for a NaN in a document: JSON would turn it into null, a value that was not
    measured."""
    if isinstance(tree, float) and math.isnan(tree):
        raise OptionError(f"noise: {place} = nan", hint="a number, or None where it is not known")
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            _check_numbers(value, f"{place}.{name}".lstrip("."))
    elif isinstance(tree, list | tuple):
        for k, value in enumerate(tree):
            _check_numbers(value, f"{place}[{k}]")


def _short(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 32:
        raise OptionError(f"noise={short_repr(value)}", hint=_NOISE_HINT)
    return value

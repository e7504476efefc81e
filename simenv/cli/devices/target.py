"""JSON form of a Qiskit Target, which `noise_models.importers.qiskit_target` reads.

Qiskit is imported here, never by noise_models. Times are in seconds, frequencies in hertz.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.errors import ConfigError

if TYPE_CHECKING:
    from qiskit.transpiler import Target

    from simulators.hardware.target import MachineDescription

_CHARS = 300  # of a provider's error message


def backend_of(provider: str) -> Any:
    """Return the backend that the function of `module:function` returns.

    The module is searched in installed packages, then in the working directory. Raises ConfigError.
    """
    if (cwd := str(Path.cwd())) not in sys.path:
        sys.path.append(cwd)
    module, _, function = provider.partition(":")
    try:
        backend = getattr(importlib.import_module(module), function)()
        if not hasattr(backend, "target"):
            raise TypeError(f"it returned a {type(backend).__name__}, no BackendV2 of Qiskit")
    except Exception as error:  # a provider may raise anything
        message = " ".join(f"{type(error).__name__}: {error}".split())[:_CHARS]
        raise ConfigError(f"provider {provider}: {message}") from error
    return backend


def document(description: MachineDescription, target: Target) -> bytes:
    """Return the JSON of a backend's Target with the backend's description."""
    return msgspec.json.encode(
        {
            "kind": "qiskit-target",
            "format": 1,
            "name": description.model,
            "provider": description.provider,
            "version": description.version,
            "technology": description.technology,
            "max_shots": description.max_shots,
            "calibrated": description.calibration_id,
            "num_qubits": target.num_qubits or 0,
            "dt_s": _number(target.dt),
            "qubits": [_qubit(each) for each in target.qubit_properties or ()],
            "operations": [
                each for name in target.operation_names for each in _operations(target, name)
            ],
        }
    )


def _qubit(properties: Any) -> dict[str, float | None]:
    return {
        "t1_s": _number(getattr(properties, "t1", None)),
        "t2_s": _number(getattr(properties, "t2", None)),
        "frequency_hz": _number(getattr(properties, "frequency", None)),
    }


def _operations(target: Target, name: str) -> list[dict[str, Any]]:
    """Return one entry for each set of qubits, or one with `qubits` null for all."""
    from qiskit.circuit import Gate

    operation = target.operation_from_name(name)
    is_gate = isinstance(operation, Gate)
    results = []
    for qubits, properties in target[name].items():
        results.append(
            {
                "name": name,
                "gate": is_gate,
                "num_qubits": operation.num_qubits if is_gate else len(qubits or ()),
                "num_params": len(operation.params) if is_gate else 0,
                "qubits": None if qubits is None else list(qubits),
                "error": _number(getattr(properties, "error", None)),
                "duration_s": _number(getattr(properties, "duration", None)),
            }
        )
    return results


def _number(value: Any) -> float | None:
    is_finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_finite else None

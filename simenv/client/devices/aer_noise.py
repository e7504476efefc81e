"""Noise models of Qiskit Aer as noise documents, without an import of Aer."""

from __future__ import annotations

import json
import math
from typing import Any

from simenv.errors import OptionError

_HINT = (
    "build the model from errors of gates and readout, and from NoiseModel.from_backend;"
    " other noise passes have no form that can be sent"
)


def is_aer_model(noise: Any) -> bool:
    """Return whether a value is a `qiskit_aer.noise.NoiseModel`."""
    kind = type(noise)
    return kind.__name__ == "NoiseModel" and kind.__module__.partition(".")[0] == "qiskit_aer"


def aer_document(noise: Any) -> bytes:
    """Return JSON of an Aer noise model with the fields of `NoiseModel.to_dict`.

    `idle` is added: the relaxation times of Aer's RelaxationNoisePass, which acts on delays. Raises
    OptionError for a model with other noise passes.
    """
    values = noise.to_dict(serializable=True)
    passes = getattr(noise, "_custom_noise_passes", [])
    if any(type(each).__name__ != "RelaxationNoisePass" for each in passes) or len(passes) > 1:
        raise OptionError("noise: an Aer noise model with noise passes", hint=_HINT)
    for each in passes:
        values["idle"] = [
            {
                "qubits": [qubit],
                "t1_us": _us(t1_s),
                "t2_us": _us(t2_s),
                "excited": float(excited),
            }
            for qubit, (t1_s, t2_s, excited) in enumerate(
                zip(each._t1s, each._t2s, each._p1s, strict=True)
            )
        ]
        values["num_qubits"] = len(values["idle"])
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _us(seconds: Any) -> float | None:
    """Convert seconds to microseconds; None for an infinite time."""
    return None if math.isinf(seconds) else float(seconds) * 1e6

"""Error ledgers of circuits on devices by name, without an environment."""

from __future__ import annotations

from typing import Any

from noise_models import document as documents
from noise_models.errors import NoiseError
from noise_models.options import NoiseOptions
from simenv import config
from simenv.calibration.ledger.ledger import ErrorLedger, error_ledger
from simenv.calibration.local_devices import LocalDevices
from simenv.client.devices.choice import SubmitDevices
from simenv.client.submission.prepare import prepare_one
from simenv.errors import OptionError, ProgramError
from simenv.model import decode_program
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error
from simulators.compiler import warmup
from simulators.errors import EngineError


def circuit_ledger(
    circuit: Any,
    device: str,
    *,
    noise: Any = "on",
    compile: str = "auto",  # noqa: A002 - named as in `Client.submit`
) -> ErrorLedger:
    """Estimate the loss of a circuit's fidelity on a device, to first order, without a run.

    `circuit`, `noise` and `compile`: as for `Client.submit`. `device`: of the library, or one that
    `simenv devices import` made. Raises ProgramError, OptionError, NotFoundError, and
    InfeasibleError for a circuit that the device does not execute.
    """
    warmup.prepare(config.kernel_folder())
    local = LocalDevices()
    order = prepare_one(
        circuit, {"device": device, "noise": noise, "compile": compile}, SubmitDevices(local)
    )
    terms, limits = local.resolved(order.terms)
    stored = local.document(terms)
    assert stored is not None  # a device has a document
    packed = Circuit.from_program(decode_program(order.specs[0].program))
    if wrong := validation_error(packed):
        raise ProgramError(wrong)
    assert limits is not None
    try:
        result = error_ledger(packed, documents.load(stored.body), NoiseOptions.parse(terms.noise))
    except (NoiseError, EngineError) as error:
        raise OptionError(f"noise: {error.message}", hint=error.hint) from error
    limits.examined(packed, profile(packed, terms.outputs, ()))
    if not result.components:
        raise OptionError(
            "no noise acts on this circuit", hint="turn the noise on, or name another device"
        )
    return result

"""Engines that take what another one refuses: hints name only engines that were asked.

An engine that refuses a circuit does not know the others. It writes `errors.OTHER_ENGINE` into its
hint, and who runs engines by name replaces that by the name of an engine that has the outputs, the
noise and the control flow, has room for the circuit, and plans it; or by the fact that there is
none.
"""

from __future__ import annotations

import os

from simulators import engine as engines, registry
from simulators.catalog import engine_cards
from simulators.catalog.cards import EngineCard
from simulators.circuit.analysis.measurements import has_conditional_noise, measurement_layout
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.unrolled import for_engine
from simulators.errors import OTHER_ENGINE, EngineError

_NONE = "no other engine that is installed here runs it"


def name_other_engine(
    error: EngineError,
    engine: str,
    circuit: Circuit,
    noise: NoiseProgram | None,
    request: engines.Request,
    options: engines.RunOptions,
) -> None:
    """Put the name of another engine into the hint of an error by which `engine` refused a request,
    where the hint speaks of one."""
    if OTHER_ENGINE in error.hint:
        name = other_engine(engine, circuit, noise, request, options)
        error.hint = error.hint.replace(OTHER_ENGINE, f"engine={name!r} runs it" if name else _NONE)


def other_engine(
    engine: str,
    circuit: Circuit,
    noise: NoiseProgram | None,
    request: engines.Request,
    options: engines.RunOptions,
) -> str:
    """Name of another engine that takes a request; "" if there is none."""
    plain = engines.RunOptions(options.precision, memory_bytes=options.memory_bytes)
    for other in engine_cards():
        if other.name == engine or other.calls or other.install_hint or not other.in_default_pool:
            continue
        if not set(request.outputs) <= set(other.outputs):
            continue
        if _takes(other, *for_engine(circuit, noise, other.name), request, plain):
            return other.name
    return ""


def _takes(
    other: EngineCard,
    circuit: Circuit,
    noise: NoiseProgram | None,
    request: engines.Request,
    options: engines.RunOptions,
) -> bool:
    found = profile(circuit, request.outputs)
    limit = options.memory_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if other.memory_bytes(found, options.precision, request.outputs) > limit:
        return False
    if other.method == "clifford" and not found.may_be_clifford:
        return False
    keep = "expectation" in request.outputs
    branches = measurement_layout(circuit, noise, keep=keep).branching
    if branches and not other.control.dynamic:
        return False
    if noise is not None and noise.kinds:
        sampled = engines.SAMPLED.issuperset(request.outputs) and request.shots > 0
        if not (sampled or other.noise.exact or (keep and other.noise.expectation)):
            return False
        if branches and not other.noise.dynamic:
            return False
        if not other.noise.conditional and has_conditional_noise(circuit, noise):
            return False
    try:
        registry.create(other.name).plan(circuit, noise, options)
    except (EngineError, MemoryError):
        return False
    return True

"""Part of a circuit with noise that its outputs depend on."""

from __future__ import annotations

import numpy as np

from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit, extract_part
from simulators.circuit.passes.light_cone import OutputSupport, light_cone
from simulators.circuit.passes.noise_part import noise_of_part


def active_part(
    circuit: Circuit, noise: NoiseProgram, support: OutputSupport | None
) -> tuple[Subcircuit, NoiseProgram]:
    """Part of a circuit that its outputs depend on, and its noise; all of it without `support`.

    Qubits and operations are renumbered; `Subcircuit` has their numbers in the whole circuit.
    Barriers and delays are dropped, their noise stays.
    """
    if support is None:
        operations, params = np.arange(circuit.ops.size), np.arange(circuit.params.size)
        return Subcircuit(circuit, np.arange(circuit.num_qubits), operations, params), noise
    cone = light_cone(circuit, support, noise)
    part = extract_part(circuit, cone.kept, cone.qubits)
    return part, noise_of_part(noise, noise.locations[cone.acting], part.operations, part.qubits)

"""Pauli noise as stim's instructions: PAULI_CHANNEL_1 and PAULI_CHANNEL_2 at each location.

A channel that is no mixture of Paulis is refused, or twirled if the option requests it.
"""

from __future__ import annotations

import numpy as np

from noise_models.channel import Channel
from simulators.circuit.analysis.branches import branch_depth
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.errors import Unsupported

_LEAST = 1e-15  # smaller probabilities of errors are dropped


def noise_lines(circuit: Circuit, noise: NoiseProgram) -> dict[int, list[str]]:
    """Lines that follow each operation; those of -1 come first. Raises Unsupported."""
    depth = branch_depth(circuit)
    texts = [_text(channel) for channel in noise.channels]
    entries: dict[int, list[str]] = {}
    for after, channel, first, second in noise.locations.tolist():
        if after >= 0 and depth[after]:
            raise Unsupported(
                "noise under a condition: stim has none",
                hint="engine='statevector' runs it, where its qubits fit into memory",
            )
        if texts[channel]:
            # In stim the first letter belongs to the first target; here the low digit does.
            where = f"{first}" if second < 0 else f"{second} {first}"
            entries.setdefault(after, []).append(f"{texts[channel]} {where}")
    return entries


def _text(channel: Channel) -> str:
    """Name and arguments of the instruction; "" for a channel without errors."""
    probs = np.maximum(channel.pauli_probabilities, 0.0)
    probs = np.where(probs < _LEAST, 0.0, probs)[1:]
    if not probs.any():
        return ""
    probs *= min(1.0, 1.0 / probs.sum())
    return f"PAULI_CHANNEL_{channel.num_qubits}({', '.join(map(repr, probs.tolist()))})"


def recorded_flip(noise: NoiseProgram, qubit: int, *, twirl: bool) -> float:
    """Probability that a measurement before the end records the wrong outcome.

    Raises Unsupported if it depends on the outcome, unless `twirl` requests the mean.
    """
    if noise.readout is None:
        return 0.0
    at = qubit if noise.readout.p01.size > 1 else 0
    p01, p10 = float(noise.readout.p01[at]), float(noise.readout.p10[at])
    if p01 != p10 and not twirl:
        raise Unsupported(
            f"readout error of qubit {qubit} that depends on the outcome, before the end",
            hint="option twirl=1 takes the mean of both; engine='statevector' has it exactly,"
            " where its qubits fit into memory",
        )
    return 0.5 * (p01 + p10)

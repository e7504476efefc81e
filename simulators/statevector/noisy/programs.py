"""Programs of circuits whose noise splits branches: dynamic circuits, and states over ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noise_models.channel import paulis
from noise_models.normal_form import NormalForm
from simulators.circuit.analysis.noisy_measurements import noisy_layout
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.execution.parts import ProgramCache
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, place
from simulators.statevector.program import Instruction, Noise, Program, Unitary, build_program
from simulators.trajectories.locations import ComposedChannels, NormalForms, compose


def noisy_programs(
    noise: NoiseProgram, precision: str, op_ids: NDArray[np.int64]
) -> ProgramCache[Program]:
    """Programs of one structure with its noise. `op_ids`: numbers of the operations in the whole
    circuit."""

    def make(circuit: Circuit, keep: bool) -> Program:
        return build_program(
            circuit,
            keep=keep,
            precision=precision,
            operations=op_ids,
            layout=noisy_layout(circuit, noise, keep=keep),
            noise=instructions(noise),
        )

    return ProgramCache(make)


def instructions(noise: NoiseProgram) -> dict[int, list[Instruction]]:
    """Channels as instructions, by the operation they follow."""
    forms = NormalForms(noise.channels)
    entries: dict[int, list[Instruction]] = {}
    for term in compose(noise):
        form = forms.of(tuple(term.parts), len(term.qubits))
        sequence = entries.setdefault(term.after, [])
        if form.unitary is not None:
            sequence.append(Unitary(_placed(form.unitary, term.qubits)))
        item = _instruction(term, form)
        if item is not None:
            sequence.append(item)
    return {after: items for after, items in entries.items() if items}


def _placed(matrix: NDArray[np.complex128], qubits: tuple[int, ...]) -> PlacedMatrix:
    data = np.ascontiguousarray(matrix, np.complex128).tobytes()
    return place(by_columns(data, len(qubits)), list(qubits))


def _instruction(term: ComposedChannels, form: NormalForm) -> Noise | None:
    weights = np.append(form.probabilities[1:], form.rest_weight)
    chosen = np.flatnonzero(weights)
    if not chosen.size:
        return None
    edges = np.cumsum(weights[chosen]) / weights.sum()
    edges[-1] = 1.0
    basis = paulis(len(term.qubits))
    errors = [k + 1 for k in chosen.tolist() if k + 1 < len(basis)]
    return Noise(
        term.number,
        term.qubits,
        min(1.0, float(weights.sum())),
        edges,
        tuple(_placed(basis[k], term.qubits) for k in errors),
        np.ascontiguousarray(form.rest),
    )

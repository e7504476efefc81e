"""Engine `quimb`: matrix product states of the package quimb.

With the option `permute` (`CircuitPermMPS`) qubits that a gate brings together stay neighbours, so
that the order of the sites follows the circuit; without it (`CircuitMPS`) they are swapped back.
quimb applies the gates; samples and values are taken from its tensors by `simulators.chain`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from quimb.tensor import CircuitMPS, CircuitPermMPS

from simulators.catalog import builtin_card
from simulators.chain import product_state
from simulators.circuit.ir import Circuit, with_matrices
from simulators.engine import OPERATIONS, RunControl, RunOptions
from simulators.execution.outputs import BoundRun, DenseState, EngineBase, FinalState

CARD = builtin_card("quimb")
DENSE_QUBITS = 20  # narrower circuits have the counts of the statevector engine for a seed
_WORKSPACE = 6  # relative to the tensors: those that are split, and quimb's copies


class QuimbEngine(EngineBase):
    card = CARD

    def final_state(self, run: BoundRun) -> FinalState:
        if run.circuit.num_qubits > DENSE_QUBITS:
            width, request = run.circuit.num_qubits, run.request
            product_state.expect_outputs(width, request, request.shots, run.control)
        chain = _evolved(run.circuit, run.params, run.options, run.control)
        state: FinalState
        if run.circuit.num_qubits <= DENSE_QUBITS:
            state = DenseState(run.layouts, run.circuit.num_qubits, chain.state)
        else:
            state = product_state.ChainState(run.layouts, chain, run.control)
        state.truncation, state.remark = chain.truncation, f"bond {chain.bond}"
        return state


def _evolved(
    circuit: Circuit, params: NDArray[np.float64], options: RunOptions, control: RunControl
) -> product_state.MatrixProductState:
    """Return the state after the circuit's gates; measurements are ignored."""
    dtype = options.dtype
    bond, cutoff, permute = (
        CARD.value(options.settings, name) for name in ("bond", "cutoff", "permute")
    )
    kind = CircuitPermMPS if permute else CircuitMPS
    chain = kind(
        max(1, circuit.num_qubits),
        max_bond=int(bond),
        cutoff=max(float(cutoff), product_state.LEAST_CUTOFF[dtype]),
        dtype=dtype,
        gate_opts={"cutoff_mode": "rsum2"},  # of squared singular values: weight
    )
    phase = 1.0 + 0.0j
    control.expect(circuit.ops.size, OPERATIONS)
    for operation, gate in with_matrices(circuit, params):
        control.advance(OPERATIONS)
        if gate is None:
            continue
        control.check()
        if not operation.qubits:
            phase *= complex(gate[0, 0])
            continue
        # quimb's first qubit is the highest bit of an index. Gates on three qubits and more are
        # applied as an operator of their own over the sites between.
        wide = {"contract": "nonlocal"} if len(operation.qubits) > 2 else {}
        chain.apply_gate_raw(gate.astype(dtype), operation.qubits[::-1], **wide)
        if len(operation.qubits) > 1 and options.memory_bytes:
            need = _WORKSPACE * sum(array.nbytes for array in chain._psi.arrays)  # without a copy
            product_state.check_memory("quimb", need, options.memory_bytes)
    # The state with right-canonical tensors [left, 2, right].
    num_qubits = circuit.num_qubits
    truncation = product_state.truncation_of(float(chain.fidelity_estimate()))
    state = chain.get_psi_unordered() if isinstance(chain, CircuitPermMPS) else chain.get_psi()
    if num_qubits > 1:
        state.canonicalize_(0)
    state.permute_arrays("lpr")
    # By site: gates on three qubits and more leave quimb's own list in another order.
    arrays = [np.asarray(state[site].data) for site in range(chain.N)]
    bonds = [1, *(array.shape[-1] for array in arrays[:-1]), 1]
    tensors = [
        np.ascontiguousarray(array).reshape(left, 2, right)
        for array, left, right in zip(arrays, bonds, bonds[1:], strict=False)
    ]
    order = list(getattr(chain, "qubits", range(num_qubits)))
    sites = tuple(order.index(qubit) for qubit in range(num_qubits))
    return product_state.MatrixProductState(tuple(tensors[:num_qubits]), sites, truncation, phase)

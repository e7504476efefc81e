"""Engine `mps`, with noise and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.catalog import builtin_card
from simulators.chain.product_state import ChainState, MatrixProductState
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.profiler import chain_order
from simulators.circuit.ir import Circuit, Operation, num_words, with_matrices
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.engine import EngineResult, Plan, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.execution import outputs, requests
from simulators.execution.readout import ReadoutStage
from simulators.execution.sampling import select_bits
from simulators.tensornetwork.mps import canonical_chain
from simulators.tensornetwork.mps.dynamic import DynamicMpsState
from simulators.trajectories import pattern_sampling
from simulators.trajectories.locations import NoisyCircuit, locate
from simulators.trajectories.noise_table import AFTER_OP, FIRST, PAULI, QUBITS, NoiseTable, row_work
from simulators.trajectories.prefix_tree import Advance, RandomDraws, Tree, walk

# Trajectories of a matrix product state: error patterns drawn first, prefixes run once.
#
# Noise is drawn as in the statevector engine, by the same random numbers, and a shot's outcome is a
# function of its own errors alone. The Kraus operator of a channel that is no mixture of Paulis is
# drawn from the reduced density matrix of its qubits. Each trajectory has its own truncation; the
# result's is their mean.

CARD = builtin_card("mps")
MOST_STATES = 8  # states held at once; with more, a prefix is run again
_BITS_AT_ONCE = 1 << 24
_HINT = "engine='statevector' runs it, where its qubits fit into memory"


class NoisyChainPlan(msgspec.Struct, frozen=True, eq=False):
    """Noise of a circuit."""

    noise: NoiseProgram

    @property
    def memory_bytes(self) -> int:
        """Approximate bytes of its arrays."""
        return self.noise.locations.nbytes


def run_noisy(plan: NoisyChainPlan, run: requests.EngineRun) -> EngineResult:
    """Run all bindings of a circuit with noise. Raises Unsupported for outputs that trajectories
    cannot give, and for mid-circuit operations that are no gates."""
    circuit, request = run.circuit, run.request
    requests.check_run(circuit, run.options)
    rows = run.rows()
    requests.check_outputs(CARD, request, bool(circuit.clbits_data))
    pattern_sampling.refuse_outputs(request)
    outputs.terms(request.observables, circuit.num_qubits)
    labels = [label for item in request.observables for label in item.labels]
    support = output_support(request.outputs, labels, circuit)
    part, noise = active_part(circuit, plan.noise, support)
    layouts = MeasurementLayouts.of(part.circuit)
    layout = layouts.state if "expectation" in request.outputs else layouts.clbits
    located = None if layout.branching else locate(part.circuit, noise, local=True)
    if located is None:
        raise Unsupported(
            "engine 'mps': a measurement, reset or condition before the end of a circuit with"
            " noise, or noise that acts on a measured qubit and another one",
            hint=_HINT,
        )
    own = requests.part_request(part, request, circuit.num_qubits)
    readout = ReadoutStage.of(layouts.clbits, noise.readout, part.operations)
    results = []
    for row in rows:
        bound = replace(row, circuit=located.circuit, params=row.params[part.params], request=own)
        state = _Trajectories(located, bound, layouts)
        results.append(outputs.collect(state, layouts, own, row.key, readout))
    return EngineResult.joined(results)


Finish = Callable[[NDArray[np.int64], MatrixProductState], None]


class _Nodes:
    """States of the walk, see `prefix_tree.NodeStates`; `finish` gets the final states."""

    def __init__(
        self,
        located: NoisyCircuit,
        params: NDArray[np.float64],
        empty: canonical_chain.CanonicalChain,
        control: RunControl,
        finish: Finish,
    ) -> None:
        self._gates: list[tuple[Operation, canonical_chain.Matrix] | None] = [
            (each, gate) if gate is not None and each.qubits else None
            for each, gate in with_matrices(located.circuit, params)
        ]
        self._table = located.table
        self._empty = empty
        self._control = control
        self._finish = finish
        self._held: list[canonical_chain.ChainNode] = []
        self.bond = 1

    def advance(self, step: Advance) -> None:
        if step.source < 0:
            node = canonical_chain.ChainNode(self._empty.copy())
        elif step.source == step.target:
            node = self._held[step.source]
        else:
            node = self._held[step.source].copy()
        self._held[step.target :] = [node]  # deeper states are not needed any more
        at = step.begin
        for (insert, choice), position in zip(step.inserts, step.positions, strict=True):
            self._run(node, at, position)
            at = position
            self._insert(node, insert, choice)
        self._run(node, at, step.end)

    def _run(self, node: canonical_chain.ChainNode, begin: int, end: int) -> None:
        for gate in self._gates[begin:end]:
            if gate is not None:
                self._control.check()
                node.fusion.take(gate[0].qubits, gate[1])

    def _insert(self, node: canonical_chain.ChainNode, insert: int, choice: int) -> None:
        qubits, members = _operators(self._table, insert)
        if len(members) == 1:
            node.fusion.take(qubits, members[0])
            return
        node.fusion.flush(qubits)
        node.chain.apply(qubits, members[choice], unitary=False)
        node.chain.normalise()

    def probs(self, level: int, insert: int) -> NDArray[np.float64]:
        """Probabilities of the operators, see `prefix_tree.NodeStates`. The state itself is not
        changed: rows without this insert continue from it."""
        _, which, _, _, first, second = self._table.table[insert].tolist()
        qubits = (first,) if second < 0 else (first, second)
        node = self._held[level].copy()
        node.fusion.flush(qubits)
        return self._table.operators.probs(which, node.chain.reduced(qubits))

    def finish(self, level: int, rows: NDArray[np.int64]) -> None:
        node = self._held[level].copy()
        state = node.state()
        self.bond = max(self.bond, state.bond)
        self._finish(rows, state)


def _operators(
    table: NoiseTable, insert: int
) -> tuple[tuple[int, ...], list[canonical_chain.Matrix]]:
    """Qubits of an insert, and its operators: one, or the set from which one is drawn."""
    _, which, x, z, first, second = table.table[insert].tolist()
    qubits = (first,) if second < 0 else (first, second)
    if which == PAULI:  # masks refer to the qubits of the location
        letters = [_LETTERS[x >> j & 1, z >> j & 1] for j in range(len(qubits))]
        index = sum(letter << 2 * j for j, letter in enumerate(letters))
        return qubits, [paulis(len(qubits))[index]]
    sets, width = table.operators.sets[which], len(qubits)
    assert int(sets[QUBITS]) == width
    at, count, size = int(sets[FIRST]), int(sets[2]), 2 << 2 * width
    data = table.operators.matrices[at : at + count * size].view(np.complex128)
    return qubits, list(data.reshape(count, 1 << width, 1 << width))


_LETTERS = {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}


class _Trajectories(outputs.FinalState):
    """Trajectories of one binding."""

    def __init__(
        self, located: NoisyCircuit, run: requests.BindingRun, layouts: MeasurementLayouts
    ) -> None:
        self.num_qubits = located.circuit.num_qubits
        self._located = located
        self._params = run.params
        self._source = layouts.clbits.source
        self._control = run.control
        self._limits = canonical_chain.ChainLimits.of(run.options)
        self._empty = self._limits.empty(self.num_qubits, chain_order(located.circuit))
        after = located.table.table[:, AFTER_OP]
        self._tree = Tree.of(located.table, np.append(after + 1, located.circuit.ops.size))
        self._lost = 0.0  # discarded weight, summed over shots
        self._shots = self._patterns = 0

    def _walk(self, first: int, last: int, key: outputs.SeedKey, finish: Finish) -> None:
        """Run shots first .. last - 1; `finish` gets rows, which begin at 0, and their state."""
        tree, places = self._tree, self._tree.places
        patterns = pattern_sampling.draw_patterns(self._located.errors, first, last, key, places)
        rows = pattern_sampling.sort_places(patterns, places.size)
        self._patterns += int(np.count_nonzero(row_work(rows, tree.place_at)))
        self._shots += last - first

        def note(batch: NDArray[np.int64], state: MatrixProductState) -> None:
            self._limits.check_weight(state.truncation)
            self._lost += batch.size * state.truncation
            finish(batch, state)

        nodes = _Nodes(self._located, self._params, self._empty, self._control, note)
        walk(tree, rows, nodes, RandomDraws(*key, first), MOST_STATES)
        self.truncation = self._lost / self._shots
        self.remark = f"bond {nodes.bond}, {self._patterns} error patterns"

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`; shots in ascending order."""
        step = max(1, _BITS_AT_ONCE // self.num_qubits)
        for first, last in pattern_sampling.shot_blocks(self._located.errors, shots):
            records = np.zeros((last - first, num_words(self._source.size)), np.uint64)

            def finish(
                rows: NDArray[np.int64],
                state: MatrixProductState,
                first: int = first,
                records: NDArray[np.uint64] = records,
            ) -> None:
                for low in range(0, rows.size, step):
                    batch = rows[low : low + step]
                    bits = state.sample(batch + first, key, self._control)
                    records[batch] = select_bits(bits, self._source)

            self._walk(first, last, key, finish)
            yield records, None

    def estimates(
        self, strings: outputs.PauliStrings, request: Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`: means over trajectories."""
        count = len(request.observables)
        owners, weights = outputs.owners_and_weights(request.observables)
        moments = pattern_sampling.Moments(count)
        for first, last in pattern_sampling.shot_blocks(self._located.errors, request.shots):
            values = np.zeros((last - first, count))

            def finish(
                rows: NDArray[np.int64],
                state: MatrixProductState,
                values: NDArray[np.float64] = values,
            ) -> None:
                each = state.means(strings, self._control)
                values[rows] = np.bincount(owners, weights * each, count)

            self._walk(first, last, key, finish)
            moments.add(values)
        return moments.estimates()


# Engine `mps`: a matrix product state, for wide circuits of little entanglement.
#
# Exact while no bond needs more than the option `bond`; else the result reports the discarded
# weight. Circuits of more than 32 qubits are put into an order in which gates span fewer sites
# (`profiler`). Circuits that measure, reset or branch before their end are run history by history
# (`branches`), circuits with noise by trajectories (`noisy`).


class MpsPlan(MeasurementLayouts, frozen=True, eq=False):
    """Measurements of a structure, and the site of each qubit."""

    order: tuple[int, ...] | None  # None: the circuit's own

    @property
    def memory_bytes(self) -> int:
        """Approximate bytes of its arrays."""
        return super().memory_bytes + 8 * len(self.order or ())


class MpsEngine(outputs.EngineBase):
    """Matrix product state engine."""

    card = CARD

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure. With noise, `run` refuses mid-circuit operations, because only the
        support of its outputs counts."""
        if noise is not None:
            requests.check_request(CARD, circuit, noise, options)
            return NoisyChainPlan(noise)
        layouts = requests.plan_layouts(CARD, circuit, noise, options)
        return MpsPlan(layouts.clbits, layouts.state, chain_order(circuit))

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        if isinstance(plan, NoisyChainPlan):
            return run_noisy(plan, requests.EngineRun(circuit, request, options, control))
        return super().run(plan, circuit, request, options, control)

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:
        layouts, control = run.layouts, run.control
        assert isinstance(layouts, MpsPlan)
        if layouts.clbits.branching or layouts.state.branching:
            return DynamicMpsState(layouts, run, layouts.order)
        limits = canonical_chain.ChainLimits.of(run.options)
        return ChainState(
            layouts,
            canonical_chain.evolve(run.circuit, run.params, layouts.order, limits, control),
            control,
        )

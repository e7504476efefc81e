"""Cost models of engines: peak memory, minimum memory and run time.

Pure and light, like the catalog. Estimates serve forecasts, placement, and the order of the engines
that can run a circuit; a task is refused by its number of qubits, bytes and operations.
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec

from simulators.circuit.analysis.profile import (
    ActiveSize,
    ChainTrial,
    NoiseProfile,
    Profile,
    SweepSize,
    max_sets,
)

SHARE_QUBITS = 13  # least qubits of a rank's share of a state
WIDEST_TILE = 15  # least qubits of a share if a pass has tiles of this width
SMALL_QUBITS = 12  # largest width that the statevector engine runs without plan and threads
TILE_BITS = 3  # log2 of the least number of tiles of a state
COUNTS_QUBITS = 14  # largest width of counts that it computes so; see `statevector.engine`
BASE_BYTES = 64 * 2**20  # scratch arrays, results and the allocator's slack
FREE_STATES_BYTES = 64 * 2**20  # states kept between tasks in addition to any grant
RANK_BYTES = 32 * 2**20  # memory of MPI in each rank, shared memory included
EXCHANGE_PART = 8  # largest exchange buffers: this fraction of a rank's share of a state
_PEPS_MESSAGES = 2**28  # bytes
_NORM_QUBITS = 5  # log2 of the amplitudes whose common norm is kept with a large state, in float64
_PLANNED_BYTES = 700  # for an operation of a large state's circuit while it is planned
_MANY_BYTES = 8_800  # for its numbers, at most, if it is a phase of three or more qubits
_PROBABILITY_BYTES = 40  # for one outcome: table, index, value, record, packed
_LIVE_BRANCHES = 8  # expected states of a dynamic circuit at once
_CALL_S = 10e-6  # to enter an engine and pack its result
_SHOT_S = 5e-9
_AMPLITUDE_S = 1.5e-9  # one gate on one amplitude, one thread, gate by gate
# Times of passes that apply many gates at once: see `statevector.planning`; half of them in single
# precision.
_PASSED_S = 5e-9  # one amplitude in the few passes that any circuit needs
_PASSED_GATE_S = 1e-10  # additional time of a gate
_BRANCH_OP_S = 30e-6  # a measurement, reset or `if` of a dynamic circuit, small state
_TRAJECTORY_S = 0.9e-9  # one gate on one amplitude of a trajectory
_TRAJECTORY_CALL_S = 1e-6  # overhead of a trajectory
_FLAGGED_GATE_S, _FLAGGED_S = 5e-6, 5e-9  # a gate of a branch whose qubits leak; an amplitude
_DETUNED_CALL_S, _BOUND_S = 1e-4, 0.1e-6  # a set of detunings; a gate of its fused blocks
_NOISE_PLAN_S = 3e-3, 10e-6  # fixed time, and time of a location, to plan errors
_NOISE_SHOT_S = 100e-9  # a shot of a trajectory, without its gates
_EXCHANGE_S = 1e-9  # one byte sent to another rank and one received
_EXCHANGE_GATES = 100  # gates between two exchanges of one qubit
_WORKSPACE = 6  # memory of a matrix product state relative to its largest tensors
_TRIED = 24  # memory of a matrix product state relative to its tensors in a trial
_SHARE = 6  # memory of trajectories relative to what each has of its own, in a trial
_TOGETHER_BYTES = 2**27  # tensors of trajectories that are run together: `mps.ensemble`
_SHARED_BOND = 32  # splits of smaller bonds are not shared by ranks
_TRIED_S = 0.05e-9  # an operation of its trial, in double precision
_LEAST_TRIED = 1 / 3  # of the gates: a trial that reached a limit earlier predicts nothing
SAMPLE_BYTES = 2**29  # messages of samples by contraction, of all threads, at most
CONTRACTION_BATCH = 22  # log2 of the values of the largest tensor of a batch of rows: 64 MiB
_CODE_BYTES = 110  # of a message of samples
_SMALL_BITS = 6  # log2 of the largest bond of which no messages are counted
_GATE_BITS = 0.37  # log2 of a message that a gate of each qubit adds to a chain
_LANES = 8  # shots that are sampled together


def state_bytes(num_qubits: int, precision: str = "double") -> int:
    return (16 if precision == "double" else 8) << num_qubits


def norm_bytes(num_qubits: int) -> int:
    """Bytes of the norms that are kept with a large state, of either precision."""
    return 8 << num_qubits >> _NORM_QUBITS if num_qubits > SMALL_QUBITS else 0


def ranks_used(num_qubits: int, ranks: int) -> int:
    """Number of the given ranks that hold a state of that width: a power of two, 1 for a narrow
    state."""
    share = max(SHARE_QUBITS, min(WIDEST_TILE, num_qubits - TILE_BITS))
    return 1 << min(max(0, num_qubits - share), max(1, ranks).bit_length() - 1)


class CostQuery(msgspec.Struct, frozen=True):
    """Parts of a request that change the cost of a run."""

    precision: str = "double"
    outputs: tuple[str, ...] = ("counts",)
    shots: int = 0
    bond: int = 0  # largest bond of an engine of that kind; 0: its default
    ranks: int = 1  # a power of two: number of processes that share the state
    bandwidth: float = 0.0  # bytes a second to and from the memory of a GPU; 0: not known
    strings: int = 0  # bit strings whose amplitudes are requested


class CostModel(Protocol):
    """Cost model of a family of engines. Bytes are those of the rank that needs most, rank 0; of a
    circuit with noise they follow from its kinds and qubits, never from the number and weights of
    its errors."""

    def memory_bytes(self, profile: Profile, ask: CostQuery, /) -> int:
        """Expected peak memory."""

    def least_memory_bytes(self, profile: Profile, ask: CostQuery, /) -> int:
        """Minimum memory of a run."""

    def seconds(self, profile: Profile, ask: CostQuery, slots: int, /) -> float:
        """Expected time of one binding on `slots` threads in each rank."""


class FixedMemoryCost(msgspec.Struct, frozen=True):
    """Base of the models whose runs need the memory that is expected."""

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:  # noqa: ARG002  # of subclasses
        """Memory of a run, by default that of a process."""
        return BASE_BYTES

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory, equal to the expected one."""
        return self.memory_bytes(profile, ask)


class StatevectorCost(msgspec.Struct, frozen=True):
    """Cost of all amplitudes; a dynamic circuit holds several states at once."""

    base_bytes: int = BASE_BYTES
    copies: int = 1  # copies of the state
    branches: int = _LIVE_BRANCHES
    call_s: float = _CALL_S
    shot_s: float = 0.0  # overhead of one shot of a dynamic circuit; 0: shots share branches
    passes: bool = False  # gates of a large state are applied in passes

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of its states, of the largest output, and a base amount."""
        need = self._state_memory(profile, ask, self.branches)
        if self.passes and profile.num_qubits > SMALL_QUBITS:
            need += _MANY_BYTES * profile.gates_many
        if "statevector" in ask.outputs:  # as bytes, and packed; the whole of it, in rank 0
            need += 2 * state_bytes(profile.num_qubits, ask.precision)
        if "probabilities" in ask.outputs:
            need += _PROBABILITY_BYTES << profile.num_qubits
        return need + _way_back(profile, ask)

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory. A dynamic circuit needs two states, its shots in groups; over ranks, a
        requested statevector must fit into rank 0."""
        need = self._state_memory(profile, ask, 2) + _way_back(profile, ask)
        if ask.ranks > 1 and "statevector" in ask.outputs:
            need += state_bytes(profile.num_qubits, ask.precision)
        return need

    def _state_memory(self, profile: Profile, ask: CostQuery, branches: int) -> int:
        """Memory of the states, or of a rank's shares, and of buffers that every state needs."""
        share = state_bytes(profile.num_qubits, ask.precision) // ask.ranks
        branched = profile.mid_circuit or profile.noise is not None
        states = (branches if branched else self.copies) + profile.in_parts
        held = self.base_bytes + states * share
        if self.passes and profile.num_qubits > SMALL_QUBITS:
            held += states * norm_bytes(profile.num_qubits) // ask.ranks
            held += _PLANNED_BYTES * profile.operations
        if ask.ranks > 1:
            held += RANK_BYTES + share // EXCHANGE_PART
        return held

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time: gates times amplitudes; shots of a dynamic circuit run one by one, or
        share branches."""
        gates = profile.gates_1q + profile.gates_2q + profile.gates_many
        threads = slots if profile.num_qubits > SMALL_QUBITS else 1
        if profile.noise is not None and profile.noise.kinds - {"readout"}:
            runs = detuned_runs(profile.noise, ask.shots)
            circuits = max(runs, trajectory_work(profile.noise, ask.shots))
            each = gates * 2.0**profile.num_qubits * _TRAJECTORY_S + _TRAJECTORY_CALL_S
            if profile.noise.flags and profile.mid_circuit:
                # Each pattern is a branch, by itself from its first error on.
                circuits = 1.0 + 0.5 * sum(_distinct_patterns(profile.noise, ask.shots))
                each = gates * (_FLAGGED_GATE_S + 2.0**profile.num_qubits * _FLAGGED_S)
            drawn = 1.0 + profile.noise.drawn_weight / max(1.0, profile.noise.error_weight)
            work = circuits * each * drawn / (slots * ask.ranks)
            return (
                self.call_s
                + _NOISE_PLAN_S[0]
                + _NOISE_PLAN_S[1] * profile.noise.locations
                + work
                + (runs * _DETUNED_CALL_S if profile.mid_circuit else 0.0)
                + ask.shots * _NOISE_SHOT_S
            )
        sweep = self._amplitude_s(profile, ask, gates) * 2.0**profile.num_qubits / ask.ranks
        # Half of each share for every qubit that is divided among ranks, from time to time.
        divided = ask.ranks.bit_length() - 1
        share = state_bytes(profile.num_qubits, ask.precision) / ask.ranks
        exchanges_s = divided * (1 + gates // _EXCHANGE_GATES) * share / 2 * _EXCHANGE_S
        sweep += exchanges_s * threads
        if "gradient" in ask.outputs:  # two states go back, gate by gate
            sweep += 2 * gates * _AMPLITUDE_S * 2.0**profile.num_qubits
        if profile.mid_circuit and self.shot_s:
            return self.call_s + max(1, ask.shots) * (self.shot_s + sweep / threads)
        work = self.call_s + sweep / threads + ask.shots * _SHOT_S
        steps = profile.measurements + profile.resets + profile.conditions
        if profile.in_parts:  # those of the parts, once
            work += steps * _BRANCH_OP_S
        if profile.mid_circuit:
            work *= _LIVE_BRANCHES / 2
            work += steps * (_BRANCH_OP_S * _LIVE_BRANCHES + ask.shots * 20 * _SHOT_S)
        return work

    def _amplitude_s(self, profile: Profile, ask: CostQuery, gates: int) -> float:
        """Time of all gates on one amplitude."""
        if not self.passes or profile.num_qubits <= SMALL_QUBITS or profile.mid_circuit:
            return (gates + 2) * _AMPLITUDE_S
        result = _PASSED_S + gates * _PASSED_GATE_S
        return result if ask.precision == "double" else 0.5 * result


def _way_back(profile: Profile, ask: CostQuery) -> int:
    """Bytes of a gradient: the observable applied to the state, and a copy for the reverse pass."""
    if "gradient" not in ask.outputs:
        return 0
    return 2 * state_bytes(profile.num_qubits, ask.precision)


def detuned_runs(noise: NoiseProfile | None, shots: int) -> float:
    """Expected number of sets of detunings that run one after the other; 0 without detunings."""
    if noise is None or not noise.detunings:
        return 0.0
    if not shots:
        return min(noise.detunings, max_sets(noise.num_qubits))
    return noise.detunings * -math.expm1(-shots / noise.detunings)


def trajectory_work(noise: NoiseProfile, shots: int) -> float:
    """Number of whole circuits that the trajectories of `shots` shots run if error patterns share
    prefixes. W = 1 + N1 / 2 + N2 / 3 + N3 / 4, where N_k is the expected number of distinct
    patterns of k errors, those of more than two among N3; above L = 3 these share only what comes
    before their first error."""
    singles, doubles, more = _distinct_patterns(noise, shots)
    weight = noise.error_weight
    own = weight / (weight + 1.0) if weight > _UNSHARED_WEIGHT else 0.25
    return float(max(1.0, min(shots, 1.0 + singles / 2 + doubles / 3 + more * own)))


_UNSHARED_WEIGHT = 3.0  # above it hardly two shots share an error


def _distinct_patterns(noise: NoiseProfile, shots: int) -> tuple[float, float, float]:
    """Expected numbers of distinct error patterns of one, of two and of more errors; a location on
    one qubit has 3 alternatives, one on two has 15."""
    if not noise.locations or not shots:
        return 0.0, 0.0, 0.0
    weight = noise.error_weight
    none = math.exp(-weight)
    alternatives = 3.0 * (noise.locations - noise.pair_locations) + 15.0 * noise.pair_locations
    probs = weight / alternatives
    singles = -alternatives * math.expm1(-shots * none * probs)
    doubles = -0.5 * alternatives**2 * math.expm1(-shots * none * probs * probs)
    more = shots * max(0.0, 1.0 - none * (1.0 + weight + 0.5 * weight**2))
    return singles, doubles, more


class DensityMatrixCost(msgspec.Struct, frozen=True):
    """Cost of a density matrix as 4^n floats; noise is part of the blocks of its gates."""

    base_bytes: int = BASE_BYTES
    call_s: float = 300e-6
    shot_s: float = 30e-9
    item_s: float = 0.3e-6  # a gate or channel, planned and fused
    multiply_s: float = 1.0 / 12e9  # one multiply-add, one thread
    threaded_qubits: int = 9  # from this width on threads share a state

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        states = min(_LIVE_BRANCHES, self._records(profile)) + 1
        need = self.base_bytes + states * self._state_bytes(profile)
        if "probabilities" in ask.outputs:
            need += _PROBABILITY_BYTES << profile.num_qubits
        return need

    def least_memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Minimum memory: one state, and two more if it is split: its halves and a second one."""
        return self.base_bytes + (1 + 2 * profile.mid_circuit) * self._state_bytes(profile)

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time: 16 4^n multiply-adds for each block on two qubits, for each classical
        record."""
        width = max(2, profile.num_qubits)
        noise = profile.noise
        items = profile.gates_1q + profile.gates_2q + (0 if noise is None else noise.locations)
        pairs = 0 if noise is None else noise.pair_locations
        blocks = max(profile.gates_2q, pairs, width / 2) + 16 * profile.gates_many
        threads = slots if width >= self.threaded_qubits else 1
        sweep = blocks * 16.0 * 4.0**width * self.multiply_s / threads
        records = self._records(profile) / 2 if profile.mid_circuit else 1
        runs = detuned_runs(noise, ask.shots)
        evolved_s = max(1.0, runs) * records * sweep + runs * (_DETUNED_CALL_S + items * _BOUND_S)
        return self.call_s + items * self.item_s + evolved_s + ask.shots * self.shot_s

    def _records(self, profile: Profile) -> int:
        """Expected number of classical records at once."""
        if not profile.mid_circuit:
            return 1
        bits = profile.recorded if profile.recorded >= 0 else profile.measurements
        return int(2 ** min(10, max(1, bits)))

    def _state_bytes(self, profile: Profile) -> int:
        return int(8 * 4 ** max(2, profile.num_qubits))


class MpsCost(msgspec.Struct, frozen=True):
    """Cost of a matrix product state: one tensor a qubit, as wide as the bonds between them. With
    noise there is a state for each trajectory; an error changes the tensors of its light cone."""

    bond: int  # default of the largest bond
    base_bytes: int = BASE_BYTES
    dense_qubits: int = 24  # largest width of whole states and distributions
    tensor_bytes: int = 16 * 2 * _WORKSPACE  # per squared bond
    gate_s: float = 60e-6
    flop_s: float = 1e-10
    noisy_call_s: float = 5e-3  # a circuit with noise, however narrow
    location_s: float = 0.1e-3  # a location of its errors
    block_s: float = 40e-6  # a gate on neighbours of a trajectory, split together with others
    split_s: float = 0.05e-9  # an operation of its splits
    trajectory_qubit_s: float = 5e-6  # samples of a trajectory, for each qubit
    history_gate_s: float = 40e-6  # a gate of a history of outcomes and errors
    history_step_s: float = 30e-6  # a measurement or reset
    history_qubit_s: float = 15e-6
    history_split_s: float = 0.1e-9

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of the tensors at the largest bond that the circuit can reach."""
        state = self._state_bytes(profile, ask)
        need = self.base_bytes + state
        if profile.noise is not None and profile.mid_circuit:
            need += (_LIVE_BRANCHES - 1) * state
        elif profile.noise is not None:
            need += self._trajectory_bytes(profile, ask)
        if "statevector" in ask.outputs or "probabilities" in ask.outputs:
            need += (3 * 16 + _PROBABILITY_BYTES) << min(profile.num_qubits, self.dense_qubits)
        return need

    def _state_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Bytes of one state while it is evolved."""
        bond, trial = self._bond(profile, ask), profile.trial
        state = max(1, profile.used_qubits) * bond * bond * self.tensor_bytes
        if trial is not None and trial.done:
            grown = (trial.expected_bond / max(1, trial.bond)) ** 2
            state = min(state, int(_TRIED * trial.tensor_bytes * grown))
        return state

    def _trajectory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Bytes of the trajectories that are run together: their number is halved where they would
        need more, and the other halves wait."""
        trial = profile.trial
        if trial is not None and trial.done:
            tensors = trial.tensor_bytes * (trial.expected_bond / max(1, trial.bond)) ** 2
        else:
            tensors = self._state_bytes(profile, ask) / _WORKSPACE
        shares = _chain_trajectories(profile, ask.shots) * tensors
        halved = max(0.0, math.log2(max(1.0, 4 * shares / _TOGETHER_BYTES)))
        return int(min(_SHARE * shares, (3.0 + halved) * _TOGETHER_BYTES))

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory: the expected one; if the bond is only bounded, that of the trial, because
        the run may need far less and is checked as it goes. Trajectories need that of a few."""
        if profile.trial is not None and not profile.trial.done:
            return self.base_bytes + _TRIED * profile.trial.tensor_bytes
        if profile.noise is not None:
            return self.base_bytes + 2 * self._state_bytes(profile, ask)
        return self.memory_bytes(profile, ask)

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time: gates of more than one qubit split tensors; a shot walks all of them. With
        noise, as many circuits as trajectories need. Ranks share splits of wide bonds, histories
        beyond the first, trajectories that differ, and walks."""
        bond, trial = self._bond(profile, ask), profile.trial
        gates = profile.gates_2q + profile.gates_many
        split = 100.0 * float(bond) ** 3 * self.flop_s
        walks = (ask.shots + ask.strings) * profile.num_qubits * bond * bond * self.flop_s
        walks /= ask.ranks
        ranks = ask.ranks if bond >= _SHARED_BOND else 1
        tried = trial if trial is not None and trial.blocks else None
        if tried is not None and not tried.done and tried.part < _LEAST_TRIED:
            tried = None
        if profile.noise is not None:
            return walks + self._noisy_s(profile, ask, gates * split, tried)
        if profile.mid_circuit:  # a state for each history of outcomes
            histories = _histories(profile, ask.shots) / 2
            return gates * (self.gate_s + split) * (histories / ask.ranks + 1) + walks
        bound = gates * (self.gate_s + split / ranks)
        if tried is None:
            return bound + walks
        work_s = tried.operations * _TRIED_S / ranks
        if not tried.done:
            work_s /= tried.part**3
        if tried.done and tried.expected_bond <= bond:
            return work_s + walks
        return min(bound, work_s) + walks

    def _noisy_s(
        self, profile: Profile, ask: CostQuery, splits_s: float, tried: ChainTrial | None
    ) -> float:
        """Expected time with noise, without walks. `splits_s`: of a state, at the largest bond;
        `tried`: the trial, if it is that of this bond."""
        noise = profile.noise
        assert noise is not None
        gates = profile.gates_2q + profile.gates_many
        width = noise.num_qubits or profile.used_qubits
        once = self.noisy_call_s + self.location_s * noise.locations
        if profile.mid_circuit:
            work = _histories(profile, ask.shots)
            if tried is not None:
                splits_s = min(splits_s, tried.all_splits * self.history_split_s)
            each = gates * self.history_gate_s + width * self.history_qubit_s + splits_s
            each += (profile.measurements + profile.resets) * self.history_step_s
        else:
            work = _chain_trajectories(profile, ask.shots)
            blocks = gates
            if tried is not None:
                blocks, splits_s = tried.blocks, min(splits_s, tried.all_splits * self.split_s)
                once += tried.operations * _TRIED_S
            each = blocks * self.block_s + width * self.trajectory_qubit_s + splits_s
        runs = detuned_runs(noise, ask.shots)
        work = max(work, runs)
        work = min(1.0, work) + max(0.0, work - 1.0) / ask.ranks
        return once + work * each + runs * _DETUNED_CALL_S

    def _bond(self, profile: Profile, ask: CostQuery) -> int:
        max_bond = ask.bond or self.bond
        if profile.trial is not None and profile.trial.done:
            return min(max_bond, profile.trial.expected_bond)
        if profile.bond_bits < 0 or profile.bond_bits >= max_bond.bit_length():
            return max_bond
        return min(max_bond, 1 << profile.bond_bits)


def _histories(profile: Profile, shots: int) -> float:
    """Expected number of histories of outcomes, and with noise of errors, of a dynamic circuit."""
    outcomes = 2.0 ** min(20, profile.measurements + profile.resets)
    if profile.noise is not None:
        outcomes += sum(_distinct_patterns(profile.noise, shots))
    return min(max(1, shots), outcomes)


_CONE = 1.25  # mean light cone of an error relative to layers times distances


def _chain_trajectories(profile: Profile, shots: int) -> float:
    """Number of whole circuits that the trajectories of a chain of tensors run. An error changes
    the part of the circuit in its light cone, which grows in each layer by the distance of the
    qubits of a gate."""
    noise = profile.noise
    if noise is None or not noise.error_weight:
        return 1.0
    weight = noise.error_weight
    width = max(1, noise.num_qubits or profile.used_qubits)
    layers = 2.0 * (profile.gates_2q + profile.gates_many) / width
    cone = min(1.0, _CONE * layers * max(1, profile.longest) / width)
    share = math.expm1(-weight * cone) / math.expm1(-weight)
    if weight > _UNSHARED_WEIGHT:
        share *= weight / (weight + 1.0)
    return float(max(1.0, share * min(shots, sum(_distinct_patterns(noise, shots)))))


class ContractionCost(FixedMemoryCost, frozen=True):
    """Cost of a tensor network, with the profile's messages if they are known. Values and
    amplitudes take a path for each network; samples take the messages of one order."""

    base_bytes: int = BASE_BYTES + 128 * 2**20  # with the library
    width: int = 26  # default of log2 of the largest tensor
    dense_qubits: int = 24
    call_s: float = 1e-3
    path_s: float = 20e-3  # in addition, of values and amplitudes
    gate_s: float = 2e-3  # a gate of a path, and of its contraction
    flop_s: float = 0.5e-9  # a value of the largest tensor of one row
    factor_s: float = 10e-6  # a gate of samples: its tensor
    message_s: float = 0.5e-6  # a message: its code
    search_s: float = 35e-3  # the search for an order of many operations
    block_s: float = 60e-9  # a message of eight shots
    product_s: float = 3.2e-9  # a product of values of eight shots

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of three of the largest tensors of values and amplitudes, those of a batch of rows
        included, and of all messages of the samples of each thread."""
        need = self.base_bytes
        is_sampled = _is_sampled(ask)
        if ask.strings or not is_sampled:
            width = self._width(profile)
            rows = max(0, ask.strings - 1).bit_length()
            need += 3 * 16 << max(width, min(CONTRACTION_BATCH, width + rows))
        if is_sampled:
            values = 2 * _LANES * profile.contraction_values
            need += min(SAMPLE_BYTES, values * (8 if ask.precision == "double" else 4))
            need += _CODE_BYTES * profile.contraction_messages
        if "statevector" in ask.outputs or "probabilities" in ask.outputs:
            need += (3 * 16 + _PROBABILITY_BYTES) << min(profile.num_qubits, self.dense_qubits)
        return need

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time: of chosen bit strings, one path and an amplitude each; of samples, all
        messages for each block of shots. Ranks share slices, bit strings and shots."""
        gates = profile.gates_1q + profile.gates_2q + profile.gates_many
        amplitude_s = 2.0 ** self._width(profile) * self.flop_s / ask.ranks
        work = self.call_s
        is_sampled = _is_sampled(ask)
        if ask.strings or not is_sampled:  # one path for all
            work += self.path_s + gates * (self.gate_s + max(1, ask.strings) * amplitude_s)
        if not is_sampled:
            return work
        messages, operations = self._sums(profile)
        work += gates * self.factor_s + messages * self.message_s
        work += min(self.search_s, 1e-7 * operations)
        product_s = self.product_s * (1.0 if ask.precision == "double" else 0.6)
        block_s = messages * self.block_s + operations * product_s
        return work + block_s * (1.0 + ask.shots / (_LANES * ask.ranks))

    def _sums(self, profile: Profile) -> tuple[float, float]:
        """Number of messages of samples, and of their products of values. If they are not known,
        because the bonds are small or the width is large: as chains of as many gates have."""
        if profile.contraction_width >= 0:
            return profile.contraction_messages, profile.contraction_operations
        gates = profile.gates_1q + profile.gates_2q + profile.gates_many
        each = gates / max(1, profile.num_qubits)
        bits = min(max(0, profile.bond_bits), _GATE_BITS * each)
        if not 0 <= profile.bond_bits <= _SMALL_BITS:
            bits = self._width(profile)
        return gates * each, gates * each * 2.0 ** (bits + 2)

    def _width(self, profile: Profile) -> int:
        width = profile.contraction_width
        return min(self.width, profile.num_qubits, width if width >= 0 else self.width)


def _is_sampled(ask: CostQuery) -> bool:
    """Return whether shots are drawn; a cost of no shots is what precedes them."""
    return ask.shots > 0 or "counts" in ask.outputs or "memory" in ask.outputs


SWEEP_BYTES = 2**30  # the tensors of all threads of a sweep, at most
SWEEP_THREADS = 4  # for which memory is expected
SWEEP_PARTS = 2**20  # values that a shot draws, times layers: a second to make the program
SWEEP_BITS = 34  # log2 of the values that a shot may pass over: half a minute
WHAT_HELPS = "fewer layers, native rzz in place of two cx, or fewer neighbours"


def sweep_refusal(size: SweepSize) -> str:
    """Reason why no sweeps of this size are run, whatever the memory; "" if they can be."""
    if size.parts > SWEEP_PARTS:
        values = f"a shot would draw values in {size.layers} layers by a program of about"
        return f"{values} {size.parts} parts, at most {SWEEP_PARTS}"
    if size.bits > SWEEP_BITS:
        values = f"a shot would pass over 2^{size.bits:.0f} values in {size.layers} layers"
        return f"{values}, at most 2^{SWEEP_BITS}"
    return ""


class SweepCost(msgspec.Struct, frozen=True):
    """Cost of sweeps over a circuit's graph: of the tensors of each thread, and of the values that
    a shot passes over; beside them the program is made."""

    base_bytes: int = BASE_BYTES
    call_s: float = 3e-3
    gate_s: float = 25e-6  # a gate as lines
    location_s: float = 60e-6  # a location of errors there
    step_s: float = 0.4e-6  # an integer of the program, once
    step_bytes: int = 48
    value_s: float = 0.18e-9  # for a shot, in double precision
    shot_step_s: float = 0.9e-9  # an integer of the program, for a shot
    shot_s: float = 2e-6
    error_s: float = 20e-9  # a location of errors, for a shot
    most_bytes: int = SWEEP_BYTES  # of all tensors

    def refusal(self, profile: Profile) -> str:
        """Reason why no sweeps can run a circuit whose size is known; "" if they can."""
        size = profile.sweep
        if size is None:
            return ""
        if text := sweep_refusal(size):
            return f"{text}; {WHAT_HELPS} would help"
        each = 2 * 4 << size.axes  # in slices, one in each lane
        if each > self.most_bytes:
            values = f"the tensors of a shot would have 2^{size.axes} values"
            return f"{values}, in all at most {self.most_bytes >> 20} MiB; {WHAT_HELPS} would help"
        return ""

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of the program, and of the tensors of several threads."""
        each = self._tensor_bytes(profile, ask)
        return self._made_bytes(profile) + max(each, min(SWEEP_BYTES, SWEEP_THREADS * each))

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory: that of one thread."""
        return self._made_bytes(profile) + self._tensor_bytes(profile, ask)

    def _made_bytes(self, profile: Profile) -> int:
        steps = 0 if profile.sweep is None else profile.sweep.steps
        return self.base_bytes + self.step_bytes * steps

    def _tensor_bytes(self, profile: Profile, ask: CostQuery) -> int:
        size = profile.sweep
        if size is None:
            return SWEEP_BYTES
        values = (1 << min(size.axes, 62)) + size.kept
        each = 2 * _LANES * values * (8 if ask.precision == "double" else 4)
        return min(SWEEP_BYTES, each)  # in slices beyond it

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time; ranks and threads share the shots."""
        size, noise = profile.sweep, profile.noise
        bits, steps = (40.0, 0) if size is None else (size.bits, size.steps)
        locations = 0 if noise is None else noise.locations
        made = self.gate_s * (profile.gates_1q + profile.gates_2q) + self.location_s * locations
        passed = self.value_s * 2.0 ** min(bits, 900.0)
        each = passed if ask.precision == "double" else 0.6 * passed
        each += self.shot_s + self.shot_step_s * steps + self.error_s * locations
        made += self.call_s + self.step_s * steps
        shots = max(ask.shots, _LANES)
        return float(made + shots * each / (max(1, slots) * ask.ranks))


class GpuSweepCost(SweepCost, frozen=True):
    """Cost of sweeps on one GPU, whose memory has the tensors; the other bytes are on its host. The
    seconds of a shot are computed from the device's bandwidth and threads; they are not
    measured."""

    base_bytes: int = 768 * 2**20  # the CUDA context and its libraries
    call_s: float = 5e-3
    value_s: float = 10e-12
    shot_step_s: float = 20e-12
    shot_s: float = 1e-6
    most_bytes: int = 2**32

    def _tensor_bytes(self, profile: Profile, ask: CostQuery) -> int:  # noqa: ARG002  # see base
        """0: they are not on the host."""
        return 0


class PepsCost(FixedMemoryCost, frozen=True):
    """Cost of tensors on the graph of a circuit's gates, of three bonds each at most."""

    bond: int  # default of the largest bond
    base_bytes: int = BASE_BYTES

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of the tensors and of the messages of the rows that are drawn together."""
        return self.base_bytes + _PEPS_MESSAGES + int(48 * self._values(profile, ask))

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time: an evolution, for each error pattern one; messages of each shot."""
        bond = self._bond(profile, ask)
        sites = max(1, profile.num_qubits)
        split = 2e-4 + 2e-8 * bond**3.0  # a gate at full bond
        evolved = 0.2 + profile.gates_2q * 4e-4 + sites * (split + 4e-9 * bond**4.0) * 15
        noise = profile.noise
        patterns = 1.0
        if noise is not None and noise.kinds - {"readout"}:
            patterns = max(1.0, ask.shots * -math.expm1(-noise.error_weight))
        shot = sites * (1.5e-5 + 2.5e-9 * bond**4.0)
        return float(patterns * evolved + max(64, ask.shots) * shot)

    def _bond(self, profile: Profile, ask: CostQuery) -> int:
        """Largest bond: doubled by a pair's gates at most, between gates on its qubits."""
        layers = math.ceil(2 * profile.gates_2q / max(1, profile.num_qubits))
        return int(min(ask.bond or self.bond, 2 ** min(layers, 12)))

    def _values(self, profile: Profile, ask: CostQuery) -> float:
        return float(2.0 * profile.num_qubits * self._bond(profile, ask) ** 3 / 3.0)


LINE_BOND, GRAPH_BOND = 64, 32  # default bonds of `dmt`: no qubit has more than two partners; else


def dmt_bond(asked: int, *, is_line: bool) -> int:
    """Return the largest bond of `dmt`; `asked`: its option, 0 for the default."""
    return asked or (LINE_BOND if is_line else GRAPH_BOND)


class DmtCost(FixedMemoryCost, frozen=True):
    """Cost of truncated density operators, whose tensors have a bond for each partner of a qubit,
    and of the regions that measure the error."""

    base_bytes: int = BASE_BYTES
    region_bytes: int = 2**27  # density matrices, or states of trajectories
    copies: int = 2  # of the tensors
    threads: int = 2  # for which memory is expected
    waiting: int = 4  # histories of each that wait; more are checked while they run
    line_gate_s: float = 4e-4
    line_split_s: float = 1.5e-8  # of a bond cubed, for a gate at full bond
    graph_gate_s: float = 1.5e-3  # in one thread
    graph_split_s: float = 3.3e-7
    region_s: float = 1.0
    region_layer_s: float = 0.1
    region_layers: int = 20  # deeper circuits have fewer trajectories
    line_shot_s: float = 1.5e-6  # a qubit of a shot
    line_shot_bond_s: float = 1e-9  # of a bond squared
    graph_shot_s: float = 1e-5
    graph_shot_bond_s: float = 2.5e-8
    history_s: float = 1e-3  # a qubit of a history: its messages, its shots

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of the tensors, of the messages of a block of shots, and of the regions."""
        bond, partners = self._bond(profile, ask), max(1, profile.partners)
        # Threads hold a history and, at divisions before, those that wait.
        held = self.copies + self.threads * min(self._divisions(profile), self.waiting)
        sites = 8 * held * 4 * profile.used_qubits * bond**partners
        messages = 3 * partners * 4 * profile.used_qubits * bond * 1_024
        return int(self.base_bytes + self.region_bytes + sites + messages)

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time: bonds grow up to their limit in a few layers; threads share the maps of a
        layer on a graph."""
        bond, gates = self._bond(profile, ask), profile.gates_2q + profile.gates_many
        layers = 2 * gates / max(1, profile.used_qubits)
        full = max(0.0, 1.0 - math.log(bond, 4) / max(1.0, layers))
        histories, threads = self._histories(profile, ask), max(1, slots)
        if self._is_line(profile):
            one = self.line_gate_s + full * self.line_split_s * bond**3.0
            shot = self.line_shot_s + self.line_shot_bond_s * bond**2.0
        else:
            one = self.graph_gate_s + full * self.graph_split_s * bond**3.0 / threads
            shot = self.graph_shot_s + self.graph_shot_bond_s * bond**2.0
            layers = min(layers, self.region_layers)
        evolved = gates * one
        if histories > 1.0:
            evolved = histories * (evolved + self.history_s * profile.used_qubits) / threads
        regions = self.region_s + self.region_layer_s * layers if full else 0.0
        return float(0.1 + evolved + regions + ask.shots * profile.used_qubits * shot)

    def _divisions(self, profile: Profile) -> int:
        """Measurements that divide a history."""
        if not profile.mid_circuit:
            return 0
        return profile.divisions if profile.divisions >= 0 else profile.measurements

    def _histories(self, profile: Profile, ask: CostQuery) -> float:
        """Histories of outcomes at once, mean of the circuit: each evolves by itself from its
        measurement on. Values take all of them."""
        count = min(self._divisions(profile), 40)
        most = float(ask.shots or 2**40)
        return sum(min(2.0**k, most) for k in range(count + 1)) / (count + 1)

    def _is_line(self, profile: Profile) -> bool:
        return profile.partners <= 2

    def _bond(self, profile: Profile, ask: CostQuery) -> int:
        """Largest bond: a map of a pair multiplies it by 16 at most, and a line's side by 4."""
        most = dmt_bond(ask.bond, is_line=self._is_line(profile))
        return int(min(most, 4 ** min(6, (profile.used_qubits + 1) // 2)))


PAULI_BYTES = 2**30  # the strings of all threads of a propagation, at most


class PauliCost(FixedMemoryCost, frozen=True):
    """Cost of Pauli propagation, from trials of a few strings of the observables."""

    base_bytes: int = BASE_BYTES
    call_s: float = 5e-3
    gate_s: float = 10e-6  # a gate or a location of noise, lowered
    step_s: float = 4e-9  # a string in a step
    threads: int = 8  # for which memory is expected
    strings: int = 2**20  # default of the option
    unknown: float = 1e8  # strings that the steps pass over, where no trial was made

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of the strings of each thread: arrays of twice their number, which grow, and are
        copied then, while strings are added between two cuts."""
        size = profile.strings
        held = self.strings if size is None else size.strings
        each = 5 * held * pauli_string_bytes(profile.num_qubits)
        return self.base_bytes + max(each, min(PAULI_BYTES, self.threads * each))

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time; ranks and threads share the strings of the observables."""
        size, noise = profile.strings, profile.noise
        terms, work = (1, self.unknown) if size is None else (size.terms, size.work)
        lowered = profile.gates_1q + profile.gates_2q + (0 if noise is None else noise.locations)
        shared = min(terms, max(1, slots) * ask.ranks)
        return self.call_s + self.gate_s * lowered + terms * work * self.step_s / shared


def pauli_string_bytes(num_qubits: int) -> int:
    """Bytes of a string: key, hash, coefficient, and two entries of a table."""
    return 16 * ((num_qubits + 63) // 64) + 16 + 16


class StabilizerCost(FixedMemoryCost, frozen=True):
    """Cost of a stabilizer tableau and of Pauli frames for the shots."""

    base_bytes: int = 2 * BASE_BYTES  # includes the largest result of a task
    block_shots: int = 1024
    call_s: float = 1e-3
    op_s: float = 1e-6  # to read, write and parse an operation
    frame_s: float = 3e-10  # one operation in one shot

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory: a byte a pair of qubits, the text of the operations, the outcomes of a block."""
        width = profile.num_qubits
        blocks = self.block_shots * (2 * profile.num_clbits + width)
        return self.base_bytes + width * width + 400 * profile.operations + blocks

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time: conversion, one tableau, and a frame a shot."""
        gates = profile.operations
        tableau = gates * profile.num_qubits * 5e-10
        return self.call_s + gates * self.op_s + tableau + ask.shots * gates * self.frame_s


ACTIVE_QUBITS = 28  # that may be active at once
ACTIVE_WORK = 2**31  # amplitudes that a shot may pass over: it cannot be interrupted


class NearCliffordCost(FixedMemoryCost, frozen=True):
    """Cost of the amplitudes of active qubits, shot by shot."""

    base_bytes: int = 2 * BASE_BYTES
    operation_bytes: int = 4_096  # with its noise, as text and as compiled
    threads: int = 4  # for which memory is expected
    call_s: float = 5e-3
    op_s: float = 20e-6  # an operation or a location of noise, written and compiled
    shot_op_s: float = 5e-9
    amplitude_s: float = 2e-9

    def refusal(self, profile: Profile) -> str:
        """Reason why a program's active qubits are too many; "" if they are not."""
        if profile.active is not None:
            return self.active_refusal(profile.active)
        if profile.clifford:
            return ""
        what = "of at most 20,000 operations, on four qubits at most"
        return f"counts the active qubits of wide circuits {what}, and matrices on two"

    def active_refusal(self, size: ActiveSize) -> str:
        """Reason why so many active qubits are too many; "" if they are not."""
        after = f"after {size.rotations} rotations that are no Clifford gates"
        if size.qubits > ACTIVE_QUBITS:
            return f"{size.qubits} qubits or more would be active {after}, at most {ACTIVE_QUBITS}"
        if size.work > ACTIVE_WORK:
            work = f"a shot would pass over 2^{math.log2(size.work):.0f} amplitudes"
            return f"{work}, at most 2^{ACTIVE_WORK.bit_length() - 1}: {size.qubits} active qubits"
        return ""

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of the program and the amplitudes of each thread."""
        active = 0 if profile.active is None else min(profile.active.qubits, ACTIVE_QUBITS)
        each = self.operation_bytes * (profile.operations + self._locations(profile))
        return self.base_bytes + self.threads * (each + 2 * state_bytes(max(15, active)))

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time: one compilation in each thread, and amplitudes and signs of each shot."""
        work = 1.0 if profile.active is None else profile.active.work
        lines = profile.operations + self._locations(profile)
        shot = lines * self.shot_op_s + min(work, 2.0 * ACTIVE_WORK) * self.amplitude_s
        return self.call_s + self.op_s * lines + ask.shots * shot / max(1, slots)

    def _locations(self, profile: Profile) -> int:
        return 0 if profile.noise is None else profile.noise.locations


class DeviceCost(FixedMemoryCost, frozen=True):
    """Cost of a machine's jobs: overhead of a job, and a shot with the pause after it."""

    base_bytes: int = BASE_BYTES
    operation_bytes: int = 4_096  # operation of a circuit, as written and as transpiled
    job_s: float = 0.5
    shot_s: float = 250e-6

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory of the circuit in several forms, and of the outcomes."""
        outcome = 100 + profile.num_clbits
        return self.base_bytes + self.operation_bytes * profile.operations + outcome * ask.shots

    def seconds(self, _profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time of one job; several bindings are several jobs, which the scheduler corrects
        as it learns."""
        return self.job_s + ask.shots * self.shot_s


# Cost model of the engine `gpu`. Pure and light, like the catalog.

_TWO_STATES = 2  # for a gradient of one observable, and for a walk through trajectories
_HOST = StatevectorCost(passes=True)
RESERVED_BYTES = 3 * 2**29  # of the device's memory: context, tables and results
BANDWIDTH = 4.9e12  # bytes a second to and from memory, of an H200
STAGED_BYTES = 2**26  # largest message from the GPU of one rank to that of another
_STAGED_S = 4e-11  # one byte sent and one received, through the memory of the host
_COPIED = 0.87  # part of the bandwidth that a copy reaches: 4.3e12 of an H200


def widest_state(memory_bytes: int, precision: str) -> int:
    """Qubits of the widest state in a device's memory."""
    room = max(0, memory_bytes - RESERVED_BYTES)
    return max(0, (room // state_bytes(0, precision)).bit_length() - 1)


class GpuCost(FixedMemoryCost, frozen=True):
    """Cost of all amplitudes in the memory of a GPU, or of one GPU for each rank: `device_bytes`
    there, the other bytes on its host. The seconds are computed from plans and the bandwidth of the
    device's memory, as its driver states it (an H200's by default); they are not measured."""

    base_bytes: int = 768 * 2**20  # the CUDA context and its libraries
    call_s: float = 200e-6
    launch_s: float = 6e-6
    gates_each: float = 20.0  # gates of a sweep
    walk_s: float = 150e-6  # the host's part of a sweep of a trajectory
    location_s: float = 1e-3  # an error's sweeps, planned once
    noisy_shot_s: float = 100e-9

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory on the host: plans, and outputs that are copied there."""
        need = self.base_bytes + _PLANNED_BYTES * profile.operations
        if "statevector" in ask.outputs:
            need += 3 * state_bytes(profile.num_qubits, ask.precision)
        if "probabilities" in ask.outputs:
            need += _PROBABILITY_BYTES << profile.num_qubits
        if ask.ranks > 1:
            need += RANK_BYTES + 2 * STAGED_BYTES
        return need

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time: launches, and sweeps over all amplitudes; threads of the host do not
        shorten it. Error patterns of small circuits run on the host."""
        noise = profile.noise
        if noise is not None and profile.num_qubits <= SMALL_QUBITS:
            return self.call_s + _HOST.seconds(profile, ask, slots)
        gates = profile.gates_1q + profile.gates_2q + profile.gates_many
        sweeps = 2.0 + gates / self.gates_each
        if "gradient" in ask.outputs:
            sweeps *= 3.0
        if profile.mid_circuit:
            sweeps *= _LIVE_BRANCHES
        moved = 2.0 * state_bytes(profile.num_qubits, ask.precision) / ask.ranks
        sweep_s = moved / (_COPIED * (ask.bandwidth or BANDWIDTH))
        if noise is not None and noise.kinds - {"readout"}:
            drawn = 1.0 + noise.drawn_weight / max(1.0, noise.error_weight)
            walked = sweeps * drawn * trajectory_work(noise, ask.shots)
            planned_s = self.location_s * noise.locations
            return planned_s + walked * (self.walk_s + sweep_s) + ask.shots * self.noisy_shot_s
        divided = ask.ranks.bit_length() - 1
        exchanges_s = divided * (1 + gates // _EXCHANGE_GATES) * moved / 4 * _STAGED_S
        return self.call_s + sweeps * (self.launch_s + sweep_s) + exchanges_s + ask.shots * _SHOT_S

    def device_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory of the device of each rank for states held at once: a dynamic circuit runs
        with one."""
        states = 1
        if "gradient" in ask.outputs or profile.noise is not None:
            states = _TWO_STATES
        return states * state_bytes(profile.num_qubits, ask.precision) // ask.ranks

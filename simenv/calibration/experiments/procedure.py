"""Measurement of a device from nothing but its gates and couplings: scales first, then values.

Times and lengths follow from the scales, so that each signal has fallen by a factor that fixes
its rate best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from simenv.calibration.experiments import coherence
from simenv.calibration.experiments.batches import Pair
from simenv.calibration.experiments.estimators import analysis, gate_errors
from simenv.calibration.experiments.estimators.estimates import Estimate
from simenv.calibration.experiments.native import native_set
from simenv.calibration.experiments.plans import (
    IRB1,
    IRB2,
    RB1,
    RB2,
    SIMULTANEOUS,
    Planner,
    TestLayout,
    layout,
)
from simenv.calibration.experiments.programs import Alphabet
from simenv.calibration.experiments.runner import CircuitRunner, Counts, PlannedCircuit
from simenv.calibration.experiments.scouting import Scales, scout
from simenv.errors import OptionError
from simenv.model.devices import DeviceInfo

_T1_POINTS = 0.0, 0.7, 1.4  # of the rough time
_ECHO_POINTS = 0.01, 0.6, 1.2
_RAMSEY_POINTS = 1 / 64, 1 / 16, 0.25, 0.6, 1.2
_RELAXED = 0.6  # of the neighbour's T1: until then half of the shots have not relaxed
_DECAY_1Q = 0.1, 0.25  # -ln of the signal at the end of one-qubit sequences
_DECAY_2Q = 0.25, 0.5
_LONGEST_1Q, _LONGEST_2Q = 2_000, 300


class Effort(msgspec.Struct, frozen=True):
    """Shots of each experiment and numbers of random sequences."""

    t1_shots: int = 24_000
    echo_shots: int = 32_000
    ramsey_shots: int = 80_000
    zz_shots: int = 8_000
    readout_shots: int = 24_000
    sequences_1q: int = 8
    shots_1q: int = 10_000  # of a sequence
    sequences_2q: int = 8
    shots_2q: int = 20_000
    longest_delay_ns: float = 1e10

    def scaled(self, factor: float) -> Effort:
        """As many times the shots."""
        names = [name for name in self.__struct_fields__ if "shots" in name]
        return msgspec.structs.replace(
            self, **{name: max(100, round(getattr(self, name) * factor)) for name in names}
        )


class Measured(msgspec.Struct, frozen=True):
    """What a run of all experiments found."""

    estimates: tuple[Estimate, ...]
    dead: tuple[tuple[int, ...], ...]  # qubits and pairs whose gates do not work
    scales: Scales
    counts: Counts


def choose(
    info: DeviceInfo, qubits: Sequence[int] | None, *, with_pairs: bool = True
) -> TestLayout:
    """Qubits and pairs under test: coupled pairs of these qubits; of an all-to-all device, a ring.

    Raises OptionError for a qubit that the device does not have.
    """
    chosen = list(range(info.num_qubits)) if qubits is None else sorted(set(qubits))
    wrong = [qubit for qubit in chosen if not 0 <= qubit < info.num_qubits]
    if wrong or not chosen:
        raise OptionError(
            f"--qubits: {wrong[0] if wrong else 'none'}",
            hint=f"device {info.name} has qubits 0-{info.num_qubits - 1}",
        )
    couplings = sorted({(min(pair), max(pair)) for pair in info.coupling})
    if info.all_to_all:
        ring = [(a, b) for a, b in zip(chosen, [*chosen[1:], chosen[0]], strict=True) if a != b]
        pairs = sorted({(min(pair), max(pair)) for pair in ring})
    else:
        pairs = [pair for pair in couplings if set(pair) <= set(chosen)]
    return layout(info.num_qubits, chosen, pairs if with_pairs else [], couplings)


class Procedure:
    """All experiments on one device."""

    def __init__(
        self,
        info: DeviceInfo,
        tested: TestLayout,
        runner: CircuitRunner,
        seed: int,
        effort: Effort,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._gates = native_set(info)
        if self._gates.entangler is None:
            tested = msgspec.structs.replace(tested, pair_sets=())
        self._tested = tested
        self._alphabet = Alphabet(self._gates)
        self._planner = Planner(self._alphabet, tested, seed)
        self._runner = runner
        self._effort = effort
        self._progress = progress

    def run(self) -> Measured:
        """Scout, measure, estimate."""
        self._progress("scales")
        scales = scout(self._runner, self._planner, self._tested, self._effort.longest_delay_ns)
        self._progress("measurements")
        counts = self._runner.run(list(self.circuits(scales)))
        return Measured(tuple(self.estimates(counts)), scales.dead, scales, counts)

    def circuits(self, scales: Scales) -> Iterable[PlannedCircuit]:
        """All circuits of the measurements."""
        yield from self._coherence(scales)
        yield from self._single(scales)
        if self._tested.pairs:
            yield from self._double(scales)

    def _coherence(self, scales: Scales) -> Iterable[PlannedCircuit]:
        plan, effort = self._planner.timed, self._effort
        qubits = self._tested.qubits
        t1 = {(q,): [f * scales.t1_ns[q] for f in _T1_POINTS] for q in qubits}
        t2 = {(q,): [f * scales.t2_ns[q] for f in _ECHO_POINTS] for q in qubits}
        star = {(q,): [f * scales.t2_ns[q] for f in _RAMSEY_POINTS] for q in qubits}
        yield from plan("t1", coherence.relaxation, t1, 2, effort.t1_shots)
        yield from plan("echo", coherence.echo, t2, 2, effort.echo_shots)
        yield from plan("ramsey", coherence.ramsey, star, 4, effort.ramsey_shots // 4)
        nothing = {(q,): [0.0] for q in qubits}
        yield from plan("readout", coherence.readout, nothing, 2, effort.readout_shots)

    def _single(self, scales: Scales) -> Iterable[PlannedCircuit]:
        effort, plan = self._effort, self._planner.sequences
        lengths = {
            place: _lengths(rate, _DECAY_1Q, _LONGEST_1Q)
            for place, rate in scales.rate_1q.items()
            if place not in scales.dead
        }
        starts = {place: [1] for place in lengths}
        for name in (RB1, IRB1) if self._gates.half is not None else (RB1,):
            yield from plan(name, lengths, effort.sequences_1q, effort.shots_1q)
        yield from plan(RB1, starts, effort.sequences_1q, effort.shots_1q)

    def _double(self, scales: Scales) -> Iterable[PlannedCircuit]:
        effort, plan = self._effort, self._planner
        live = [pair for pair in self._tested.pairs if pair not in scales.dead]
        if not live:
            return
        lengths = {pair: _lengths(scales.rate_2q[pair], _DECAY_2Q, _LONGEST_2Q) for pair in live}
        starts = {pair: [1] for pair in live}
        for name in (RB2, IRB2):
            yield from plan.sequences(name, lengths, effort.sequences_2q, effort.shots_2q)
        yield from plan.sequences(RB2, starts, 4, effort.shots_2q)
        both = {
            pair: [1, _lengths(self._shared_rate(scales, pair), _DECAY_1Q, _LONGEST_1Q)[-1]]
            for pair in live
        }
        yield from plan.sequences(SIMULTANEOUS, both, 4, effort.shots_1q)
        longest = {
            pair: min(scales.t2_ns[pair[0]], _RELAXED * scales.t1_ns[pair[1]]) for pair in live
        }
        times = {pair: [f * longest[pair] for f in _RAMSEY_POINTS] for pair in live}
        yield from plan.timed("zz", coherence.conditional_ramsey, times, 8, effort.zz_shots)

    @staticmethod
    def _shared_rate(scales: Scales, pair: Pair) -> float:
        return max(scales.rate_1q[(qubit,)] for qubit in pair)

    def estimates(self, counts: Counts) -> Iterable[Estimate]:
        """All quantities that the counts give."""
        gates = self._gates
        yield from analysis.times(counts, "t1", "t1_us")
        yield from analysis.times(counts, "echo", "t2_us")
        yield from analysis.ramsey(counts, "ramsey")
        yield from analysis.readout(counts, "readout")
        yield from gate_errors.standard(counts, RB1, "error_1q", gates.quarter.name)
        if gates.half is not None:
            yield from gate_errors.interleaved(counts, RB1, IRB1, "error_half", gates.half.name)
        if gates.entangler is not None:
            name = gates.entangler.name
            yield from gate_errors.interleaved(counts, RB2, IRB2, "error_2q", name)
            yield from gate_errors.per_clifford(counts, RB2)
            yield from gate_errors.simultaneous(counts, SIMULTANEOUS, gates.quarter.name)
        yield from analysis.interactions(counts, "zz")


def _lengths(rate: float, decays: Sequence[float], longest: int) -> list[int]:
    """Distinct lengths above 1 at which the signal has fallen by these exponents."""
    found = [min(longest, max(2 + k, round(decay / rate))) for k, decay in enumerate(decays)]
    if found[1] <= found[0]:
        found[0] = found[1] // 2
    return found

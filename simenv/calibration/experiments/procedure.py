"""Measurement of a device from its gates and couplings alone: rough scales first, then values.

`scout` determines the scales from few shots. Delays grow by a factor from a fraction of a
microsecond to the longest delay allowed; lengths of sequences likewise. `Procedure` chooses times
and lengths by the scales, so that each signal falls by the factor that determines its rate best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import numpy as np

from noise_models.calibration import LayerCalibration
from simenv.calibration.experiments import amplification, estimators, layers, plans, programs
from simenv.calibration.experiments.clifford import native_set
from simenv.errors import OptionError
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo

SHOTS = 1000
FIRST_DELAY_NS = 300.0
DELAY_FACTOR = 4.0
# Run at once, up to 0.08 ms; there is another delay while a qubit has a signal.
FIRST_DELAYS = 6
LENGTHS_1Q = (1, 16, 128, 1024)
LENGTHS_2Q = (1, 4, 16, 64)
_LEAST_SIGNAL = 0.3  # of one random element, if its gates work, relative to that of the readout
_DECAYED = 0.1  # signal relative to that without a delay
_DEAD_RATE = 0.3  # rate of a random element above which a gate does not work
_PREFIX = "scout-"


class RoughEstimates(msgspec.Struct, frozen=True):
    """Rough values. A time above the longest delay is set to the longest delay."""

    t1_ns: dict[int, float]
    t2_ns: dict[int, float]
    ramsey_ns: dict[int, float]
    rate_1q: dict[estimators.Place, float]  # -ln p of a random one-qubit element
    rate_2q: dict[estimators.Place, float]
    dead: tuple[estimators.Place, ...]  # places where random elements leave no signal


def scout(
    runner: plans.CircuitRunner, planner: plans.Planner, tested: plans.TestLayout, longest_ns: float
) -> RoughEstimates:
    """Run the circuits and estimate the scales."""
    counts = _delays(runner, planner, tested, longest_ns)
    contrasts = {
        place[0]: float(estimators.differences(arms)[1][0])
        for place, arms in estimators.tallies(counts, _PREFIX + "t1").items()
    }
    circuits = list(
        planner.sequences(plans.RB1, {(q,): LENGTHS_1Q for q in tested.qubits}, range(2), SHOTS)
    )
    if tested.pairs:
        circuits += planner.sequences(
            plans.RB2, dict.fromkeys(tested.pairs, LENGTHS_2Q), range(4), SHOTS
        )
    plans.merge(counts, runner.run(circuits))
    rates_1q, rates_2q = _rates(counts, plans.RB1, contrasts), _rates(counts, plans.RB2, contrasts)
    return RoughEstimates(
        _times(counts, _PREFIX + "t1", longest_ns),
        _times(counts, _PREFIX + "echo", longest_ns),
        _times(counts, _PREFIX + "ramsey", longest_ns),
        {place: rate for place, (rate, _) in rates_1q.items()},
        {place: rate for place, (rate, _) in rates_2q.items()},
        tuple(place for place, (_, works) in {**rates_1q, **rates_2q}.items() if not works),
    )


def _delays(
    runner: plans.CircuitRunner, planner: plans.Planner, tested: plans.TestLayout, longest_ns: float
) -> plans.Counts:
    """Run delays from the shortest to that after which no qubit has a signal: a long delay takes a
    machine hours."""
    count = 1 + max(0, int(np.log(longest_ns / FIRST_DELAY_NS) / np.log(DELAY_FACTOR)))
    ladder = [0.0, *(FIRST_DELAY_NS * DELAY_FACTOR**k for k in range(count))]
    ladder = [*(delay for delay in ladder if delay < 0.5 * longest_ns), longest_ns]
    arms = {
        _PREFIX + "t1": (programs.relaxation, 2),
        _PREFIX + "echo": (programs.echo, 2),
        _PREFIX + "ramsey": (programs.ramsey, 4),
    }
    counts: plans.Counts = {}
    for delays in (ladder[:FIRST_DELAYS], *([delay] for delay in ladder[FIRST_DELAYS:])):
        times: dict[estimators.Place, Sequence[float]] = {
            (qubit,): delays for qubit in tested.qubits
        }
        circuits = [
            circuit
            for name, (arm, number) in arms.items()
            for circuit in planner.timed(name, arm, times, number, 2 * SHOTS // number)
        ]
        plans.merge(counts, runner.run(circuits))
        arms = {name: arm for name, arm in arms.items() if _has_signal(counts, name)}
        if not arms:
            break
    return counts


def _has_signal(counts: plans.Counts, name: str) -> bool:
    """Look for a signal of any qubit after the longest delay so far."""
    for arms in estimators.tallies(counts, name).values():
        _, signal, variance = estimators.contrasts(arms)
        if signal[-1] > max(_DECAYED * signal[0], estimators.SIGNAL_ERRORS * np.sqrt(variance[-1])):
            return True
    return False


def _times(counts: plans.Counts, name: str, longest_ns: float) -> dict[int, float]:
    """Best of many decay times for each qubit; amplitudes are fitted."""
    entries = {}
    for place, arms in estimators.tallies(counts, name).items():
        x, signal, variance = estimators.contrasts(arms)
        rates = np.geomspace(0.1 / longest_ns, 3.0 / FIRST_DELAY_NS, 800)
        model = np.exp(-rates[:, None] * x)
        weight = 1.0 / (variance + 1e-4)  # scatter of a rough model
        size = (model * signal * weight).sum(axis=1) / (model * model * weight).sum(axis=1)
        cost = (np.square(signal - size[:, None] * model) * weight).sum(axis=1)
        entries[place[0]] = min(1.0 / float(rates[cost.argmin()]), longest_ns)
    return entries


def _rates(
    counts: plans.Counts, name: str, contrasts: Mapping[int, float]
) -> Mapping[estimators.Place, tuple[float, bool]]:
    """Decay rate of each place by its longest sequences that have a signal, and whether its gates
    work. `contrasts`: of the readout of each qubit, 1 - p01 - p10. Gates of qubits whose readout
    hardly has one count as working."""
    entries = {}
    for curve in estimators.curves(counts, name):
        seen = np.flatnonzero(curve.signal > 0.3 * max(curve.signal[0], 1e-9))
        last = int(seen[-1]) if seen.size and seen[-1] else 1
        ratio = max(float(curve.signal[last]), 0.02) / max(float(curve.signal[0]), 0.02)
        span = float(curve.lengths[last] - curve.lengths[0])
        rate = -np.log(min(ratio, 1.0 - 1e-3)) / span
        errors = estimators.SIGNAL_ERRORS * np.sqrt(curve.variance[[0, last]])
        rate_error = float(np.hypot(*(errors / np.maximum(curve.signal[[0, last]], 0.02)))) / span
        contrast = [contrasts[qubit] for qubit in curve.place]
        # Without errors of gates, the signal of a pair is (c + d + c d) / 3.
        full = (sum(contrast) + math.prod(contrast)) / 3.0 if len(contrast) == 2 else contrast[0]
        silent = curve.signal[0] + errors[0] < _LEAST_SIGNAL * full
        dead = min(contrast) > estimators.LEAST_CONTRAST and (
            silent or rate - rate_error > _DEAD_RATE
        )
        entries[curve.place] = float(rate), not dead
    return entries


T1, ECHO, RAMSEY, READOUT, ZZ = "t1", "echo", "ramsey", "readout", "zz"
MEMORY, TWICE, MEASURED, LAYER = "memory", "twice", "measured", "layer"
LEAKAGE, LEAKAGE_HALF, LEAKAGE_2Q = "leakage", "leakage-half", "leakage-2q"
ROTATIONS, TOGETHER, POPULATIONS = "rotations", "together", "populations"
PAIRS_OF_LINKS = "links"
TURNS, HALF_TURNS = "turns", "half-turns"
WAITING, WAITING_1Q = "waiting", "waiting-1q"
CURVE2, ICURVE2 = "rb2-curve", "irb2-curve"  # fewer sequences, at the smaller lengths
_SAME = {CURVE2: plans.RB2, ICURVE2: plans.IRB2}
TIMED_1Q = T1, ECHO, RAMSEY, READOUT
_ARMS: dict[str, tuple[programs.Arm, int]] = {
    T1: (programs.relaxation, 2), ECHO: (programs.echo, 2), RAMSEY: (programs.ramsey, 4),
    READOUT: (programs.readout, 2), TWICE: (programs.measured_twice, 2),
    ZZ: (programs.conditional_ramsey, 8), ROTATIONS: (programs.rotations, 16),
    LEAKAGE_HALF: (programs.leaking_half, 4),
    LEAKAGE_2Q: (programs.leaking_pair, 8), POPULATIONS: (programs.populations, 4),
    PAIRS_OF_LINKS: (programs.bell_pair, 3),
    TURNS: (programs.turns, 4), HALF_TURNS: (programs.half_turns, 2),
}  # fmt: skip
_SHOTS = {
    T1: "t1_shots", ECHO: "echo_shots", RAMSEY: "ramsey_shots", READOUT: "readout_shots",
    ZZ: "zz_shots", plans.RB1: "shots_1q", plans.IRB1: "shots_1q", plans.SIMULTANEOUS: "shots_1q",
    plans.RB2: "shots_2q", plans.IRB2: "shots_2q", CURVE2: "shots_2q", ICURVE2: "shots_2q",
    LEAKAGE: "shots_1q", LEAKAGE_HALF: "leakage_shots", LEAKAGE_2Q: "leakage_shots",
    MEMORY: "memory_shots", TWICE: "readout_shots", MEASURED: "memory_shots",
    ROTATIONS: "zz_shots", TOGETHER: "readout_shots", POPULATIONS: "population_shots",
    LAYER: "layer_shots", PAIRS_OF_LINKS: "link_shots",
    TURNS: "zz_shots", HALF_TURNS: "zz_shots", WAITING: "waiting_shots",
    WAITING_1Q: "waiting_shots",
}  # fmt: skip
_T1_POINTS = 0.0, 0.7, 1.4  # parts of the rough time
_ECHO_POINTS = 0.01, 0.6, 1.2
_RAMSEY_POINTS = 1 / 64, 1 / 16, 0.25, 0.6, 1.2
# Part of the rough T2 of an echo below which that of a Ramsey experiment is taken as shorter.
_SHORTER = 0.7
_RELAXED = 0.6  # of the neighbour's T1: about half of the shots have relaxed by then
_DECAY_1Q = 0.1, 0.25  # -ln of the signal at the end of one-qubit sequences
_DECAY_2Q = 0.3, 0.6
_LONGEST_1Q, _LONGEST_2Q = 2_000, 300
_MEMORY_DECAY, _MOST_LAYERS = 0.8, 1_000  # -ln of the signal after the most layers
# Lengths of sequences as parts of the longest one, by which the population of the computational
# states has fallen to its limit but for this -ln.
_LEAKAGE_POINTS, _LEAKAGE_DECAY = (0.06, 0.2, 0.5, 1.0), 2.5
_MOST_LEAKING = 1_000  # half turns or entangling gates
_MOST_MEASUREMENTS = 20
# Entangling gates whose errors about Z add up, by fours; -ln of the signal after the most.
_FOUR, _MOST_FOURS, _FOURS_DECAY = 4, 8, 0.6
_TURNS = 4.0, 32.0  # quarter or half turns whose errors add up
_WAITED = 0.7  # of T1, during the most gates that a qubit waits for
_MOST_WAITED = 3_000  # gates
_MOST_TURN = 2.0  # rad, by the most measurements
# Least values that an experiment resolves.
_LEAST_MEMORY, _LEAST_CROSSTALK, _LEAST_ANGLE = 1e-4, 1e-3, 0.01
_REFINEMENTS = 2  # rounds with more shots where intervals are too wide
_RESOLVED = 0.8  # part of the width that a comparison needs
_MOST_SHOTS = 8.0  # shots of a circuit relative to the first round
_MOST_SEQUENCES = 100  # sequences of a round relative to the first
# Largest half width of an interval, relative and absolute, that a comparison needs.
_NEEDED = {
    "t1_us": (0.05, 0.0), "t2_us": (0.05, 0.0), "t2_ramsey_us": (0.05, 0.0),
    "p01": (0.0, 0.01), "p10": (0.0, 0.01), "error_1q": (0.1, 0.0), "error_half": (0.1, 0.0),
    "error_2q": (0.1, 0.0), "zz_khz": (0.1, 0.2), "memory_error": (0.1, 0.0),
    "leakage": (0.1, 5e-5), "seepage": (0.1, 2e-3),
    "leakage_2q": (0.2, 2e-4), "seepage_2q": (0.2, 0.01),
    "measure_decay": (0.1, 0.005), "measure_excitation": (0.1, 0.005),
    "measurement_crosstalk": (0.1, 0.001), "measurement_angle_rad": (0.1, 0.003),
    "preparation_error": (0.1, 0.003), "reset_error": (0.1, 0.003), "excited": (0.1, 0.003),
    "zz_angle_rad": (0.1, 0.003), "z_angle_rad": (0.1, 0.003), "joint_flip": (0.0, 0.003),
    layers.QUANTITY: (0.1, 3e-4), "pair_error": (0.1, 1e-3),
    "turn_angle_rad": (0.1, 0.003), "axis_angle_rad": (0.1, 0.003), "gate_time_ns": (0.2, 0.0),
}  # fmt: skip
_EXPERIMENTS = {
    "t1_us": (T1,), "t2_us": (ECHO,), "t2_ramsey_us": (RAMSEY,), "p01": (READOUT,),
    "p10": (READOUT,), "error_1q": (plans.RB1,), "error_half": (plans.RB1, plans.IRB1),
    "error_2q": (plans.RB2, plans.IRB2), "zz_khz": (ZZ,), "memory_error": (MEMORY,),
    "leakage": (LEAKAGE, LEAKAGE_HALF), "seepage": (LEAKAGE, LEAKAGE_HALF),
    "leakage_2q": (LEAKAGE_2Q,), "seepage_2q": (LEAKAGE_2Q,),
    "measure_decay": (TWICE, READOUT), "measure_excitation": (TWICE, READOUT),
    "measurement_crosstalk": (MEASURED,), "measurement_angle_rad": (MEASURED,),
    **dict.fromkeys(estimators.POPULATIONS, (POPULATIONS,)),
    "zz_angle_rad": (ROTATIONS,), "z_angle_rad": (ROTATIONS,), "joint_flip": (TOGETHER,),
    layers.QUANTITY: (LAYER,), "pair_error": (PAIRS_OF_LINKS,),
    "turn_angle_rad": (TURNS, HALF_TURNS), "axis_angle_rad": (TURNS,),
    "gate_time_ns": (WAITING, WAITING_1Q),
}  # fmt: skip


class ExperimentShots(msgspec.Struct, frozen=True):
    """Shots of a circuit of each experiment, and numbers of random sequences."""

    t1_shots: int = 24_000
    echo_shots: int = 32_000
    ramsey_shots: int = 20_000
    zz_shots: int = 8_000
    readout_shots: int = 24_000
    memory_shots: int = 24_000
    leakage_shots: int = 48_000
    population_shots: int = 48_000
    layer_shots: int = 8_000
    link_shots: int = 24_000
    waiting_shots: int = 24_000
    sequences_1q: int = 10
    shots_1q: int = 10_000
    sequences_2q: int = 24  # at the greatest length; a quarter of it at the others
    shots_2q: int = 10_000
    longest_delay_ns: float = 2e7  # about ten times the longest T1 of superconducting qubits

    def scaled(self, factor: float) -> ExperimentShots:
        """Effort with the shots multiplied by `factor`, at least 100."""
        names = [name for name in self.__struct_fields__ if "shots" in name]
        return msgspec.structs.replace(
            self, **{name: max(100, round(getattr(self, name) * factor)) for name in names}
        )


class ExperimentResults(msgspec.Struct, frozen=True):
    """Result of a run of all experiments."""

    estimates: tuple[estimators.Estimate, ...]
    dead: tuple[tuple[int, ...], ...]  # qubits and pairs whose gates do not work
    scales: RoughEstimates
    counts: plans.Counts


def choose(
    info: DeviceInfo, qubits: Sequence[int] | None, *, with_pairs: bool = True
) -> plans.TestLayout:
    """Qubits and pairs under test: coupled pairs of these qubits; of an all-to-all device, a ring.
    Raises OptionError for a qubit that the device does not have."""
    usable = Availability(info).usable
    chosen = list(usable) if qubits is None else sorted(set(qubits))
    wrong = [qubit for qubit in chosen if qubit not in usable]
    if wrong or not chosen:
        without = f" without {', '.join(map(str, info.unusable))}" if info.unusable else ""
        hint = f"device {info.name} has qubits 0-{info.num_qubits - 1}{without}"
        raise OptionError(option="qubits", value=wrong or [], expected=hint)
    couplings = sorted({(min(pair), max(pair)) for pair in info.coupling})
    if info.all_to_all:
        ring = [(a, b) for a, b in zip(chosen, [*chosen[1:], chosen[0]], strict=True) if a != b]
        pairs = sorted({(min(pair), max(pair)) for pair in ring})
    else:
        pairs = [pair for pair in couplings if set(pair) <= set(chosen)]
    return plans.layout(info.num_qubits, chosen, pairs if with_pairs else [], couplings)


class StatedTerms(msgspec.Struct, frozen=True):
    """Terms that a device or a claim states, about, and that only such devices are measured for."""

    memory: Mapping[int, float] = {}  # memory error, by qubit
    transitions: frozenset[int] = frozenset()  # qubits with transitions by their measurement
    # Error and angle in rad, by the measured qubit and another one.
    crosstalk: Mapping[tuple[int, int], tuple[float, float]] = {}
    read_together: tuple[estimators.Place, ...] = ()  # ascending, without a common qubit
    layers: tuple[LayerCalibration, ...] = ()
    # Sum of the rates out of and into the computational states of a gate's qubit, by the experiment
    # of the gate and its place.
    leakage: Mapping[tuple[str, estimators.Place], float] = {}
    leaked_readout: Mapping[int, float] = {}  # probability that the leaked qubit is read as 1


def _cost(circuits: Sequence[plans.PlannedCircuit]) -> str:
    """Number of circuits and shots, with the experiment that takes the most of these."""
    shots: dict[str, int] = {}
    for each in circuits:
        name = each.points[0].experiment
        shots[name] = shots.get(name, 0) + each.shots
    total = sum(shots.values())
    most = max(shots, key=lambda name: shots[name], default="")
    share = f", {shots[most] / total:.0%} of them for {most}" if most else ""
    return f"{len(circuits)} circuits, {total} shots{share}"


class Procedure:
    """All experiments on one device."""

    def __init__(
        self,
        info: DeviceInfo,
        tested: plans.TestLayout,
        runner: plans.CircuitRunner,
        seed: int,
        effort: ExperimentShots,
        progress: Callable[[str], None] = lambda _: None,
        planner: plans.Planner | None = None,
        stated: StatedTerms | None = None,
    ) -> None:
        """Set up. `planner`: makes the circuits; None: in the native gates of the device."""
        self._stated = stated or StatedTerms()
        self._info = info
        gates = self._gates = native_set(info)
        name = "" if gates.entangler is None else gates.entangler.name
        self._measured_layers = layers.measurable(self._stated.layers, name, tested.qubits)
        if gates.entangler is None:
            tested = msgspec.structs.replace(tested, pair_sets=())
        self._tested = tested
        self._planner = planner or plans.Planner(programs.NativeGateRows(gates), tested, seed)
        self._runner = runner
        self._effort = effort
        self._progress = progress

    def run(self) -> ExperimentResults:
        """Find scales, measure and estimate; estimates with wide intervals are measured again with
        more shots."""
        self._progress("scales")
        scales = scout(self._runner, self._planner, self._tested, self._effort.longest_delay_ns)
        circuits = list(self.circuits(scales))
        self._progress(f"measurements: {_cost(circuits)}")
        counts = self._runner.run(circuits)
        estimates = list(self.estimates(counts))
        for number in range(1, 1 + _REFINEMENTS):
            unresolved = self._unresolved(estimates)
            if not unresolved:
                break
            circuits = list(self._again(scales, unresolved, number))
            again = f"{len(unresolved)} experiment{'s' * (len(unresolved) > 1)} again"
            self._progress(f"{again}, with more shots: {_cost(circuits)}")
            plans.merge(counts, self._runner.run(circuits))
            estimates = list(self.estimates(counts))
        return ExperimentResults(tuple(estimates), scales.dead, scales, counts)

    def circuits(self, scales: RoughEstimates) -> Iterable[plans.PlannedCircuit]:
        """Circuits of all experiments at all places."""
        settings = _Settings(self._effort, scales)
        qubits = [(qubit,) for qubit in self._tested.qubits]
        live = [place for place in qubits if place not in scales.dead]
        pairs = [
            pair for pair in self._tested.pairs if not {pair, pair[:1], pair[1:]} & set(scales.dead)
        ]
        for name in TIMED_1Q:
            yield from self._experiment(settings, name, qubits)
        for name in (plans.RB1, plans.IRB1) if self._gates.half is not None else (plans.RB1,):
            yield from self._experiment(settings, name, live)
        for name, tested in ((LEAKAGE, live), (LEAKAGE_HALF, live), (LEAKAGE_2Q, pairs)):
            leaking = [place for place in tested if (name, place) in self._stated.leakage]
            yield from self._experiment(settings, name, leaking)
        yield from self._experiment(settings, MEMORY, qubits)
        twice = [place for place in qubits if place[0] in self._stated.transitions]
        yield from self._experiment(settings, TWICE, twice)
        # A reset that leaves |1> is in no other experiment.
        yield from self._experiment(settings, POPULATIONS, qubits if self._info.dynamic else [])
        for name in (TURNS, HALF_TURNS, WAITING_1Q):
            yield from self._experiment(settings, name, live)
        yield from self._experiment(settings, MEASURED, list(self._stated.crosstalk))
        yield from self._experiment(settings, LAYER, qubits)
        for name in (CURVE2, ICURVE2, plans.RB2, plans.IRB2, plans.SIMULTANEOUS, ZZ):
            yield from self._experiment(settings, name, pairs)
        has_sequences = self._gates.entangler and amplification.sequences(self._gates.entangler)
        yield from self._experiment(settings, ROTATIONS, pairs if has_sequences else [])
        yield from self._experiment(settings, WAITING, pairs)
        yield from self._experiment(settings, TOGETHER, self._stated.read_together)
        yield from self._experiment(settings, PAIRS_OF_LINKS, self._links)

    def _experiment(
        self,
        settings: _Settings,
        name: str,
        places: Sequence[estimators.Place],
        factor: float = 1.0,
        part: int = 0,
    ) -> Iterable[plans.PlannedCircuit]:
        """Circuits of one experiment. `factor`: of the shots, or of the number of random sequences;
        `part`: number of the round, which has its own sequences."""
        if not places:
            return
        if name == MEMORY:
            yield from self._layers(places, settings.shots(name, factor))
            return
        if name == MEASURED:
            yield from self._disturbed(places, settings.shots(name, factor))
            return
        if name in (WAITING, WAITING_1Q):
            yield from self._waiting(settings, name, places, settings.shots(name, factor))
            return
        if name == HALF_TURNS and self._gates.half is None:
            return
        if name == LAYER:
            yield from self._decays(places, settings.shots(name, factor))
            return
        if name == TOGETHER:
            groups = [
                g for g in self._stated.read_together if any(set(g) >= set(p) for p in places)
            ]
            shots = settings.shots(name, factor)
            for size in sorted({len(each) for each in groups}):
                at_start = {each: (0.0,) for each in groups if len(each) == size}
                yield from self._planner.timed(
                    name, programs.read_together, at_start, 1 << size, shots
                )
            return
        if name == PAIRS_OF_LINKS:  # in the order of their qubits
            wanted = {tuple(sorted(place)) for place in places}
            places = [pair for pair in self._links if tuple(sorted(pair)) in wanted]
        if name in _ARMS:
            arm, arms = _ARMS[name]
            if name == ROTATIONS and self._gates.entangler is not None:
                arms *= len(amplification.sequences(self._gates.entangler))
            if name in (LEAKAGE_HALF, LEAKAGE_2Q):
                times = {place: self._leaking_numbers(name, place) for place in places}
            else:
                times = {place: settings.times_ns(name, place) for place in places}
            shots, records = settings.shots(name, factor), 2 if name == POPULATIONS else 1
            most = plans.INSIDE_AT_ONCE if name in (TWICE, POPULATIONS) else None
            yield from self._planner.timed(name, arm, times, arms, shots, records, most)
            return
        if name == LEAKAGE:
            lengths = {place: self._leaking_lengths(place[0]) for place in places}
        else:
            lengths = {place: settings.lengths(name, place) for place in places}
        count = settings.sequences(name)
        first = part * _MOST_SEQUENCES * count
        sequence_numbers = range(first, first + math.ceil(factor * count))
        shots = settings.shots(name, 1.0)
        yield from self._planner.sequences(_SAME.get(name, name), lengths, sequence_numbers, shots)

    def _waiting(
        self, settings: _Settings, name: str, places: Sequence[estimators.Place], shots: int
    ) -> Iterable[plans.PlannedCircuit]:
        """Circuits of qubits that wait for gates, from whose durations they relax."""
        waits = {
            key: (settings.waited(key[0], self._gate_ns(key[1:])), self._gate_ns(key[1:]))
            for place in self.observers(name)
            if tuple(sorted(place[1:])) in places
            for key in [place]
        }
        make = programs.waiting if name == WAITING else programs.waiting_for_turns
        yield from self._planner.waiting(name, make, waits, shots)

    def observers(self, name: str) -> list[tuple[int, ...]]:
        """Places of an experiment of durations: a qubit that waits, and those of the gate. Qubits
        without a coupling to these come first. Gates of unknown duration, and those for which no
        other qubit is under test, are left out."""
        qubits = self._tested.qubits
        gates = self._tested.pairs if name == WAITING else [(qubit,) for qubit in qubits]
        near = {frozenset(pair) for pair in self._info.coupling}
        results = []
        for k, place in enumerate(gates):
            others = [q for q in qubits if q not in place]
            apart = [q for q in others if not any(frozenset((q, p)) in near for p in place)]
            chosen = apart or others
            if chosen and self._gate_ns(place) > 0.0:
                results.append((chosen[k % len(chosen)], *place))
        return results

    def _gate_ns(self, place: estimators.Place) -> float:
        """Duration of the entangling gate on a pair, or of the quarter turn of a qubit; 0.0: not
        known."""
        if len(place) == 2:
            return self._duration_ns(place)
        for qubits in (place, ()):
            for each in self._info.operations:
                if (each.name, each.qubits) == (self._gates.quarter.name, qubits):
                    return 0.0 if math.isnan(each.duration_ns) else each.duration_ns
        return 0.0

    @property
    def _links(self) -> list[estimators.Place]:
        """Pairs of the links between qubits under test."""
        if not self._info.dynamic:
            return []
        tested = set(self._tested.qubits)
        return [each.pair for each in self._info.links if tested.issuperset(each.pair)]

    def _leaking_lengths(self, qubit: int) -> list[int]:
        """Numbers of random elements, of about one quarter turn each."""
        rate = self._stated.leakage[LEAKAGE, (qubit,)]
        longest = min(_LEAKAGE_DECAY / rate, _LONGEST_1Q)
        return [1, *(max(2 + k, round(part * longest)) for k, part in enumerate(_LEAKAGE_POINTS))]

    def _leaking_numbers(self, name: str, place: estimators.Place) -> list[float]:
        """Numbers of half turns or of entangling gates."""
        longest = min(_LEAKAGE_DECAY / self._stated.leakage[name, place], _MOST_LEAKING)
        parts = enumerate(_LEAKAGE_POINTS[1:])
        return [0.0, *(float(max(1 + k, round(part * longest))) for k, part in parts)]

    def _layers(
        self, places: Sequence[estimators.Place], shots: int
    ) -> Iterable[plans.PlannedCircuit]:
        """Circuits of qubits that wait for layers, of those that may have a memory error."""
        numbers = {}
        for (qubit,) in places:
            error = self._stated.memory.get(qubit, 0.0)
            if error >= _LEAST_MEMORY and self._gates.entangler is not None:
                most = round(min(max(_MEMORY_DECAY / (3.0 * error), 2.0), _MOST_LAYERS))
                numbers[qubit] = (max(1, most // 4), most)
        if numbers:
            durations_ns = {pair: self._duration_ns(pair) for pair in self._tested.pairs}
            yield from self._planner.layers(MEMORY, numbers, durations_ns, shots)

    def _disturbed(
        self, places: Sequence[estimators.Place], shots: int
    ) -> Iterable[plans.PlannedCircuit]:
        """Circuits of qubits that wait for measurements of others."""
        numbers = {}
        for (first, second), (error, angle) in self._stated.crosstalk.items():
            if {(first, second), (second, first)}.isdisjoint(places):
                continue
            if error < _LEAST_CROSSTALK and abs(angle) < _LEAST_ANGLE:
                continue
            most = float(_MOST_MEASUREMENTS)
            if error > 0.0:
                most = min(most, _MEMORY_DECAY / (3.0 * error))
            if angle:
                most = min(most, _MOST_TURN / abs(angle))
            last = max(2, round(most))
            numbers[first, second] = (max(1, last // 4), last)
        durations_ns = {k: each.readout_ns for k, each in enumerate(self._info.qubits)}
        durations_ns = {k: 0.0 if math.isnan(each) else each for k, each in durations_ns.items()}
        if numbers:
            yield from self._planner.measurements(MEASURED, numbers, durations_ns, shots)

    def _decays(
        self, places: Sequence[estimators.Place], shots: int
    ) -> Iterable[plans.PlannedCircuit]:
        """Circuits of the layers on any of these qubits."""
        qubits = {qubit for place in places for qubit in place}
        alphabet, size = programs.NativeGateRows(self._gates), self._tested.num_qubits
        for number, layer in enumerate(self._measured_layers):
            if not qubits.isdisjoint(layer.qubits):
                yield from layers.circuits(number, layer, alphabet, size, shots)

    def _half_turn_phases(
        self, interactions: Sequence[estimators.Estimate]
    ) -> dict[estimators.Place, float]:
        """Phases in rad of the ZZ interaction of pairs during half turns of their qubits."""
        own = self._gates.half or self._gates.quarter
        times = {each.qubits: each.duration_ns for each in self._info.operations
                 if each.name == own.name and not math.isnan(each.duration_ns)}  # fmt: skip
        phases = {}
        for each in interactions:
            longest = max(times.get((qubit,), times.get((), 0.0)) for qubit in each.qubits)
            if each.has_signal:
                phases[each.qubits] = 2e-6 * math.pi * each.value * longest
        return phases

    def _duration_ns(self, pair: estimators.Place) -> float:
        """Duration of the entangling gate on a pair; 0.0: not known."""
        assert self._gates.entangler is not None
        for qubits in (pair, pair[::-1], ()):
            for each in self._info.operations:
                if (each.name, each.qubits) == (self._gates.entangler.name, qubits):
                    return 0.0 if math.isnan(each.duration_ns) else each.duration_ns
        return 0.0

    def _unresolved(
        self, estimates: Sequence[estimators.Estimate]
    ) -> dict[str, dict[estimators.Place, float]]:
        """Experiments and places whose intervals are too wide, with the factor of shots to add."""
        z = estimators.simultaneous_z(len(estimates))
        longest_us = self._effort.longest_delay_ns / estimators.NS_PER_US
        entries: dict[str, dict[estimators.Place, float]] = {}
        for each in estimates:
            if each.quantity.endswith("_us") and each.interval(z)[0] >= longest_us:
                continue  # the lower limit is what the delays can tell
            ratio = _width_ratio(each, z)
            if ratio > _RESOLVED:
                factor = min((ratio / _RESOLVED) ** 2 * 1.2 - 1.0, _MOST_SHOTS)
                for name in _EXPERIMENTS[each.quantity]:
                    place = tuple(sorted(each.qubits))
                    places = entries.setdefault(name, {})
                    places[place] = max(factor, places.get(place, 0.0))
        return entries

    def _again(
        self,
        scales: RoughEstimates,
        unresolved: Mapping[str, Mapping[estimators.Place, float]],
        number: int,
    ) -> Iterable[plans.PlannedCircuit]:
        settings = _Settings(self._effort, scales)
        for name, places in unresolved.items():
            factor = max(0.1, *places.values())
            yield from self._experiment(settings, name, list(places), factor, number)

    def estimates(self, counts: plans.Counts) -> Iterable[estimators.Estimate]:
        """Estimates of all quantities from the counts."""
        gates = self._gates
        yield from estimators.times(counts, T1, "t1_us")
        yield from estimators.times(counts, ECHO, "t2_us")
        yield from estimators.ramsey(counts, RAMSEY, ECHO)
        yield from estimators.readout(counts, READOUT)
        read = self._stated.leaked_readout
        yield from estimators.leakage(counts, LEAKAGE, READOUT, gates.quarter.name, read)
        half: list[estimators.Estimate] = []
        if gates.half is not None:
            half = estimators.leakage_of_half_turns(
                counts, LEAKAGE_HALF, READOUT, gates.half.name, read
            )
            yield from half
        if gates.entangler is not None:
            yield from estimators.leakage_of_pairs(
                counts, LEAKAGE_2Q, READOUT, gates.entangler.name, read, half
            )
        yield from estimators.memory(counts, MEMORY)
        yield from estimators.transitions(counts, TWICE, READOUT)
        yield from estimators.populations(counts, POPULATIONS)
        yield from estimators.disturbance(counts, MEASURED)
        yield from layers.estimates(counts, self._measured_layers)
        single = estimators.standard(counts, plans.RB1, "error_1q", gates.quarter.name)
        yield from single
        own = {each.qubits: each.value for each in single if each.has_signal}
        yield from estimators.pairs_of_links(counts, PAIRS_OF_LINKS, READOUT, own)
        if gates.half is not None:
            name = gates.half.name
            yield from estimators.interleaved(counts, plans.RB1, plans.IRB1, "error_half", name)
        if gates.entangler is not None:
            name = gates.entangler.name
            yield from estimators.interleaved(counts, plans.RB2, plans.IRB2, "error_2q", name)
            yield from estimators.per_clifford(counts, plans.RB2)
            yield from estimators.simultaneous(counts, plans.SIMULTANEOUS, gates.quarter.name)
        interactions = estimators.interactions(counts, ZZ, READOUT)
        yield from interactions
        if gates.entangler is not None:
            yield from estimators.rotations(
                counts, ROTATIONS, READOUT, gates.entangler, self._half_turn_phases(interactions)
            )
        yield from estimators.joint_flips(counts, TOGETHER)
        name = gates.quarter.name
        yield from estimators.turn_angles(counts, TURNS, READOUT, name, own)
        if gates.half is not None:
            yield from estimators.turn_angles(counts, HALF_TURNS, READOUT, gates.half.name, own)
        waits = [(WAITING_1Q, name)]
        waits += [(WAITING, gates.entangler.name)] if gates.entangler is not None else []
        for experiment, acting in waits:
            keys = {
                (place[0], self._planner.place_number(place)): (place[1:], self._gate_ns(place[1:]))
                for place in self.observers(experiment)
            }
            yield from estimators.gate_times(counts, experiment, acting, keys)


class _Settings:
    """Times, lengths, shots and sequences of experiments at the scales of a device."""

    def __init__(self, effort: ExperimentShots, scales: RoughEstimates) -> None:
        self._effort = effort
        self._scales = scales

    def times_ns(self, name: str, place: estimators.Place) -> list[float]:
        """Times at one place."""
        scales = self._scales
        if name in (READOUT, TWICE, PAIRS_OF_LINKS):
            return [0.0]
        if name in (TURNS, HALF_TURNS):
            return list(_TURNS)
        if name == POPULATIONS:
            delay_ns = estimators.RELAXATIONS * scales.t1_ns[place[0]]
            return [delay_ns if delay_ns <= self._effort.longest_delay_ns else 0.0]
        t1, t2 = scales.t1_ns[place[-1]], scales.t2_ns[place[0]]
        if name in (RAMSEY, ZZ) and scales.ramsey_ns[place[0]] < _SHORTER * t2:
            t2 = scales.ramsey_ns[place[0]]
        if name == ROTATIONS:
            most = round(_FOURS_DECAY / (_FOUR * scales.rate_2q[place]))
            return [0.0, _FOUR, _FOUR * min(max(most, 2), _MOST_FOURS)]
        if name == T1:
            return [part * t1 for part in _T1_POINTS]
        if name == ZZ:
            t2 = min(t2, _RELAXED * t1)
        return [part * t2 for part in (_ECHO_POINTS if name == ECHO else _RAMSEY_POINTS)]

    def waited(self, qubit: int, duration_ns: float) -> list[int]:
        """Numbers of gates for which a qubit waits."""
        most = round(_WAITED * self._scales.t1_ns[qubit] / duration_ns)
        last = min(max(most, 8), _MOST_WAITED)
        return [last // 4, last]

    def lengths(self, name: str, place: estimators.Place) -> list[int]:
        """Numbers of random elements at one place."""
        scales = self._scales
        if len(place) == 2 and name != plans.SIMULTANEOUS:
            middle, last = _lengths(scales.rate_2q[place], _DECAY_2Q, _LONGEST_2Q)
            return {CURVE2: [1, middle], ICURVE2: [middle]}.get(name, [last])
        rate = max(scales.rate_1q[(qubit,)] for qubit in place)
        result = _lengths(rate, _DECAY_1Q, _LONGEST_1Q)
        if name == plans.SIMULTANEOUS:
            return [1, result[-1]]
        return result if name == plans.IRB1 else [1, *result]

    def shots(self, name: str, factor: float) -> int:
        """Shots of one circuit."""
        shots: int = getattr(self._effort, _SHOTS[name])
        return max(100, round(shots * factor))

    def sequences(self, name: str) -> int:
        """Random sequences of one length."""
        effort = self._effort
        if name in (plans.RB2, plans.IRB2):
            return effort.sequences_2q
        return effort.sequences_2q // 4 if name in _SAME else effort.sequences_1q


def _width_ratio(estimate: estimators.Estimate, z: float) -> float:
    """Half width of an interval divided by the width that a comparison needs; 0.0 if no comparison
    needs it, or if more shots would not help."""
    needed = _NEEDED.get(estimate.quantity)
    low, high = estimate.interval(z)
    if needed is None or math.isinf(high):
        return 0.0
    relative, absolute = needed
    allowed = max(relative * abs(estimate.value), absolute)
    if z * estimate.systematic > _RESOLVED * allowed:
        return 0.0
    return max(high - estimate.value, estimate.value - low) / allowed if allowed else 0.0


def _lengths(rate: float, decays: Sequence[float], longest: int) -> list[int]:
    """Distinct lengths above 1 at which the signal falls by these exponents."""
    results = [min(longest, max(2 + k, round(decay / rate))) for k, decay in enumerate(decays)]
    if results[1] <= results[0]:
        results[0] = results[1] // 2
    return results

"""Figures of devices, and the expected times of circuits on them. Pure.

Expected times of circuits on devices whose profile nobody has set, and prices of tasks. One
cost model for each kind of pool prices reservations and tasks:

- ideal simulator: the cost model of its engine, by the sizes of the circuit
- emulated device: the cost model of a circuit of these sizes with the mean errors of the device
- paced device: the clock of the device
- machine: the mean durations of its described operations at each shot

Compilation for a device adds gates that a reservation does not name, so the sizes of a reservation
give a range of times. A task within the range takes the time of one named circuit; see `task_ns`.
Kernel compilation and worker starts are in no model. Invariant: a time is a whole number of
nanoseconds, at least 1, or None if nothing is known about the device; its profile then holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from simenv import model
from simenv.model.availability import BROKEN, Availability
from simenv.model.devices import DeviceInfo, device_time_ns
from simenv.model.views import base_of
from simenv.scheduler.core import HARDWARE, Estimator, Route, expected_ns, model_us
from simulators import catalog
from simulators.catalog.costs import CostQuery
from simulators.circuit.analysis.profile import NoiseProfile, Profile

_READOUT = "measure"
_UNKNOWN_ERRORS = 1e-3, 1e-2  # of a gate on one qubit and on two, if a device states none
# Most that compilation adds. A gate on two qubits becomes up to three native ones, a gate on one
# qubit up to five; a native gate on two qubits has up to eight gates on one qubit around it.
_PAIRS_PER_PAIR = 3
_SINGLES_PER_SINGLE = 5
_SINGLES_PER_PAIR = 8
_SPREAD = 2.0  # durations of single qubits and pairs, relative to the mean


class DeviceFigures(msgspec.Struct, frozen=True):
    """Means over the operations of one device; durations are None if none is stated."""

    num_qubits: int = 0
    gate_1q_ns: float | None = None
    gate_2q_ns: float | None = None
    readout_ns: float | None = None
    error_1q: float = _UNKNOWN_ERRORS[0]
    error_2q: float = _UNKNOWN_ERRORS[1]
    distance: float = 3.0  # mean distance of two qubits in the coupling; 1: all are coupled
    reset_ns: float = 0.0  # before each shot
    overhead_ns: float = 0.0  # of a circuit without its shots
    max_shots: int = 0  # of one circuit; 0: any

    def compiled(self, work: model.Workload) -> model.Workload:
        """Return the most that circuits of these sizes have after compilation for the device."""
        pairs = math.ceil(_PAIRS_PER_PAIR * self.distance * work.gates_2q)
        wide = 2 * (work.qubits or work.measurements) + 2
        return msgspec.structs.replace(
            work,
            qubits=min(wide, self.num_qubits) if self.num_qubits else wide,
            gates_1q=_SINGLES_PER_SINGLE * work.gates_1q + _SINGLES_PER_PAIR * pairs,
            gates_2q=pairs,
        )

    def clock_ns(self, work: model.Workload) -> tuple[float, float]:
        """Return the least and the largest time of one circuit on the device's clock: all gates
        that can be are simultaneous, or none."""
        gate_1q, gate_2q, readout = self.durations_ns
        width = max(1, work.qubits or work.measurements)
        measured = readout if work.measurements else 0.0
        serial = work.gates_1q * gate_1q + work.gates_2q * gate_2q
        parallel = work.gates_1q * gate_1q / width + work.gates_2q * gate_2q / max(1, width // 2)
        least = self.reset_ns + (parallel + measured) / _SPREAD
        longest = self.reset_ns + (serial + measured) * _SPREAD
        times = [
            device_time_ns(work.shots, 1, self.overhead_ns, shot_ns) for shot_ns in (least, longest)
        ]
        return max(1.0, times[0]), max(1.0, times[1])

    @property
    def durations_ns(self) -> tuple[float, float, float]:
        """Durations; those of the default profile where none is stated."""
        default = model.DeviceProfile()
        return (
            default.one_q_gate_ns if self.gate_1q_ns is None else self.gate_1q_ns,
            default.two_q_gate_ns if self.gate_2q_ns is None else self.gate_2q_ns,
            default.measurement_ns if self.readout_ns is None else self.readout_ns,
        )


UNDESCRIBED = DeviceFigures()  # of an emulated device that cannot be read


def hardware_ns(figures: DeviceFigures, work: model.Workload) -> float | None:
    """Return the time of one circuit on a machine in ns; None if no kind of operation has a
    duration. Each kind of operation takes its mean duration at each shot. A kind without a duration
    takes the duration of the default profile."""
    stated = figures.gate_1q_ns, figures.gate_2q_ns, figures.readout_ns
    if stated == (None, None, None):
        return None
    gate_1q, gate_2q, readout = figures.durations_ns
    shot_ns = work.gates_1q * gate_1q + work.gates_2q * gate_2q + work.measurements * readout
    return max(1.0, shot_ns * work.shots)


def figures_of(info: DeviceInfo, reset_ns: float = 0.0, overhead_ns: float = 0.0) -> DeviceFigures:
    """Return the figures of a described device. `reset_ns`: before each shot; `overhead_ns`: of a
    circuit without its shots."""
    singles = [each for each in info.operations if info.width(each) == 1]
    pairs = [each for each in info.operations if info.width(each) > 1]
    readout = _mean(qubit.readout_ns for qubit in info.qubits)
    if readout is None:
        readout = _mean(each.duration_ns for each in info.operations if each.name == _READOUT)
    errors = [
        _mean(each.error for each in some if each.error < BROKEN) for some in (singles, pairs)
    ]
    error_1q, error_2q = (
        unknown if error is None else error
        for error, unknown in zip(errors, _UNKNOWN_ERRORS, strict=True)
    )
    return DeviceFigures(
        info.num_qubits,
        _mean(each.duration_ns for each in singles),
        _mean(each.duration_ns for each in pairs),
        readout,
        error_1q,
        error_2q,
        1.0 if info.all_to_all else _mean_distance(info),
        reset_ns,
        overhead_ns,
        info.max_shots,
    )


def _mean_distance(device: DeviceInfo) -> float:
    """Return the mean distance of two coupled qubits, at least 1."""
    neighbours: dict[int, set[int]] = {}
    for first, second in Availability(device).pairs:
        neighbours.setdefault(first, set()).add(second)
        neighbours.setdefault(second, set()).add(first)
    total = count = 0
    for start in neighbours:
        seen, level, distance = {start}, [start], 0
        while level:
            distance += 1
            level = [q for each in level for q in neighbours[each] if q not in seen]
            level = list(dict.fromkeys(level))
            seen.update(level)
            total, count = total + distance * len(level), count + len(level)
    return max(1.0, total / count) if count else 1.0


def _mean(values: Iterable[float]) -> float | None:
    measured = [each for each in values if math.isfinite(each) and each >= 0]
    return sum(measured) / len(measured) if measured else None


MAX_MODEL_QUBITS = 512  # a wider workload costs the same: floats end at 2**1024
DENSE_QUBITS = 34  # wider circuits of a pool of any engine are priced as a tensor network
DENSITY_QUBITS = 14  # wider circuits are priced without the density matrix
COUNTING = 1.1  # a program may be so much larger than named: gates are counted in several ways
LOCATIONS_PER_GATE = 2  # a gate's own error, and that of idle time beside it
_NOISY_ENGINES = ("statevector", "densitymatrix", "mps")


class ProgramSize(msgspec.Struct, frozen=True, gc=False):
    """Sizes of an admitted program. `is_dynamic`: it branches or is a call, so that its route gives
    its cost."""

    work: model.Workload
    is_dynamic: bool = False


class DeviceTimes:
    """Expected times on devices. `figures`: of a pool's machine or emulated device; None while they
    are not known."""

    def __init__(
        self,
        pools: Sequence[model.PoolSpec],
        estimator: Estimator,
        figures: Callable[[str], DeviceFigures | None],
    ) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._estimator = estimator
        self.figures = figures

    def workload_ns(self, device: str, work: model.Workload) -> int | None:
        """Return the time in ns of `work.count` equal circuits of which only the sizes are known,
        with the learned factor; None if unknown. `device` "": the environment, which is estimated
        as its first pool of simulators."""
        pool = self._pool(device)
        bounds = None if pool is None else self._range_ns(pool, work, compiled=bool(pool.device))
        if pool is None or bounds is None:
            return None
        factor = 1.0
        if not (pool.provider or pool.pace):
            width = min(work.qubits, MAX_MODEL_QUBITS)
            factor = self._estimator.factor(_card(pool, width).name, pool.ranks, width)
        least_ns, largest_ns = bounds  # of compiled circuits the middle of the range, in ratios
        return work.count * max(1, math.ceil(math.sqrt(least_ns) * math.sqrt(largest_ns) * factor))

    def task_ns(
        self,
        request: model.ReservationRequest,
        total_ns: int,
        route: Route,
        spec: model.TaskSpec,
        size: ProgramSize,
        terms: model.TaskOptions,
    ) -> int | None:
        """Return the price of a task in ns under a reservation that was granted `total_ns`; None if
        nothing is known about the device.

        A task within the range of one named circuit takes the time granted for that circuit, and
        with more or fewer shots as much more or less as the cost model says. So do smaller and
        larger tasks. A reservation then holds the circuits that it names, whatever was learned
        since.
        """
        pool = self._pools.get(base_of(route.pool) or route.pool)
        reserved = self._pool(request.device)
        if pool is None or reserved is None:
            return None
        named = msgspec.structs.replace(request.workload, count=1)
        granted = self._range_ns(reserved, named, compiled=False)
        named = msgspec.structs.replace(named, shots=spec.shots)
        counted = msgspec.structs.replace(named, gates_1q=named.gates_1q + 1)  # a global phase
        bounds = self._range_ns(reserved, named, compiled=False)
        largest = self._range_ns(reserved, counted, compiled=bool(terms.compiled))
        own_ns = self._own_ns(pool, route, spec, size, terms)
        if granted is None or bounds is None or largest is None or own_ns is None:
            return None
        least, upper = bounds[0], COUNTING * largest[1]
        ratio = least / granted[0]
        ratio *= own_ns / least if own_ns < least else max(1.0, own_ns / upper)
        each_ns = total_ns // request.workload.count
        if ratio == 1.0:
            return each_ns * spec.count
        return max(1, math.floor(each_ns * ratio * spec.count))

    def _own_ns(
        self,
        pool: model.PoolSpec,
        route: Route,
        spec: model.TaskSpec,
        size: ProgramSize,
        terms: model.TaskOptions,
    ) -> float | None:
        """Return the model's time of one circuit of a task."""
        if pool.pace:
            return expected_ns(route, spec) / spec.count
        work = msgspec.structs.replace(size.work, count=1, shots=spec.shots)
        bounds = self._range_ns(pool, work, compiled=False)
        if bounds is None or route.engine == HARDWARE:
            return None if bounds is None else bounds[0]
        has_own_noise = bool(terms.snapshot) and not pool.device
        if size.is_dynamic or has_own_noise or "gradient" in terms.outputs:
            return max(bounds[0], 1e3 * model_us(route, spec) / spec.count)
        return bounds[0]

    def _range_ns(
        self, pool: model.PoolSpec, work: model.Workload, *, compiled: bool
    ) -> tuple[float, float] | None:
        """Return the least and the largest time of one circuit of these sizes by the model.
        `compiled`: the sizes are those before the compilation for the device."""
        figures = self.figures(pool.name)
        if pool.provider:
            machine_ns = None if figures is None else hardware_ns(figures, work)
            return None if machine_ns is None else (machine_ns, machine_ns)
        if not pool.device:
            time_ns = _ideal_ns(pool, work)
            return time_ns, time_ns
        figures = figures or UNDESCRIBED
        widest = figures.compiled(work) if compiled else work
        if pool.pace:
            return figures.clock_ns(work)[0], figures.clock_ns(widest)[1]
        return _noisy_ns(pool, figures, work), _noisy_ns(pool, figures, widest)

    def _pool(self, device: str) -> model.PoolSpec | None:
        if device:
            return self._pools.get(device)
        pools = self._pools.values()
        return min(
            pools, key=lambda pool: (engine_of(pool).calls, bool(pool.provider)), default=None
        )


def engine_of(pool: model.PoolSpec) -> catalog.EngineCard:
    """Return the engine of a pool's circuits; for a pool of any engine, the preferred one of those
    that run every gate."""
    own = catalog.card(pool.engine)
    if own is not None:
        return own
    usable = [
        card for card in catalog.engine_cards() if card.auto is not None and not card.install_hint
    ]
    return next(card for card in usable if card.method != "clifford")


def profile_of(work: model.Workload) -> Profile:
    """Return the sizes of one circuit as cost models read them. A workload without a width is as
    wide as its measurements. The bond of a tensor network is bounded by the width and the number of
    two-qubit gates."""
    qubits = min(work.qubits or work.measurements, MAX_MODEL_QUBITS)
    return Profile(
        num_qubits=qubits,
        num_clbits=work.measurements,
        operations=work.gates_1q + work.gates_2q + work.measurements,
        gates_1q=work.gates_1q,
        gates_2q=work.gates_2q,
        gates_many=0,
        measurements=work.measurements,
        resets=0,
        mid_circuit=False,
        conditions=0,
        bond_bits=min(qubits // 2, work.gates_2q),
    )


def _card(pool: model.PoolSpec, qubits: int) -> catalog.EngineCard:
    """Return the engine whose cost model prices circuits of this width."""
    own = engine_of(pool)
    if pool.engine != "any" or qubits <= DENSE_QUBITS:
        return own
    return catalog.card("mps") or own


def _ideal_ns(pool: model.PoolSpec, work: model.Workload) -> float:
    profile = profile_of(work)
    card = _card(pool, profile.num_qubits)
    query = CostQuery(shots=work.shots, ranks=card.ranks_used(profile.num_qubits, pool.ranks))
    return max(1.0, 1e9 * card.costs.seconds(profile, query, 1))


def _noisy_ns(pool: model.PoolSpec, figures: DeviceFigures, work: model.Workload) -> float:
    """Return the time of the fastest engine for such a circuit with the device's mean errors."""
    gates = work.gates_1q + work.gates_2q
    weight = LOCATIONS_PER_GATE * (
        work.gates_1q * figures.error_1q + work.gates_2q * figures.error_2q
    )
    profile = profile_of(work)
    noise = NoiseProfile(
        kinds=frozenset({"kraus", "readout"}),
        locations=LOCATIONS_PER_GATE * gates,
        pair_locations=work.gates_2q,
        error_weight=weight,
        drawn_weight=weight / LOCATIONS_PER_GATE,
        num_qubits=profile.num_qubits,
        shots=work.shots,
    )
    profile = msgspec.structs.replace(profile, noise=noise)
    own = catalog.card(pool.engine)
    cards = [catalog.card(name) for name in _NOISY_ENGINES] if own is None else [own]
    query = CostQuery(shots=work.shots)
    times_s = [
        card.costs.seconds(profile, query, 1)
        for card in cards
        if card is not None
        if card.name != "densitymatrix" or profile.num_qubits <= DENSITY_QUBITS
    ]
    return max(1.0, 1e9 * min(times_s))

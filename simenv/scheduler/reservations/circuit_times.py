"""Expected run times of circuits on devices whose profile nobody has set. Pure.

A simulator takes the time that its engine's cost model gives on one slot, times the factor that the
estimator has learned for this engine and width. A machine takes the mean durations of its described
operations at each shot. Invariant: a time is a whole number of nanoseconds, at least 1, or None if
nothing is known about the device; the profile of the device then holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from simenv.model import DeviceProfile, PoolSpec, TaskSpec, Workload
from simenv.model.devices import DeviceInfo
from simenv.scheduler.core.cost_estimator import HARDWARE, Estimator
from simenv.scheduler.core.types import Route
from simulators import catalog
from simulators.catalog import EngineCard
from simulators.catalog.costs import CostQuery, ranks_used
from simulators.circuit.analysis.profile import Profile

MAX_MODEL_QUBITS = 512  # a wider workload costs the same: floats end at 2**1024
_READOUT = "measure"
_NO_GATES = frozenset({_READOUT, "reset", "delay"})


class DeviceTimes:
    """Expected times on devices. `machine`: description of a pool's machine, None while it is
    unknown."""

    def __init__(
        self,
        pools: Sequence[PoolSpec],
        estimator: Estimator,
        machine: Callable[[str], DeviceInfo | None],
    ) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._estimator = estimator
        self._machine = machine

    def workload_ns(self, device: str, work: Workload) -> int | None:
        """Return the time in ns of `work.count` equal circuits of which only the sizes are known;
        None if unknown.

        `device` "": the environment, which is estimated as its first pool of simulators.
        """
        pool = self._pool(device)
        if pool is None:
            return None
        if pool.provider:
            info = self._machine(pool.name)
            return None if info is None else hardware_ns(info, work)
        card = engine_of(pool)
        ranks = ranks_used(min(work.qubits, MAX_MODEL_QUBITS), pool.ranks)
        query = CostQuery(shots=work.shots, ranks=ranks)
        profile = profile_of(work)
        factor = self._estimator.factor(card.name, pool.ranks, profile.num_qubits)
        return work.count * max(1, math.ceil(card.costs.seconds(profile, query, 1) * factor * 1e9))

    def task_ns(self, route: Route, spec: TaskSpec, work: Workload) -> int | None:
        """Return the time in ns of a task whose program has been routed. `work`: its sizes."""
        if route.engine == HARDWARE:
            return self.workload_ns(route.pool, work)
        return max(1, math.ceil(self._estimator.cost_us(route, spec) * 1e3))

    def _pool(self, device: str) -> PoolSpec | None:
        if device:
            return self._pools.get(device)
        pools = self._pools.values()
        return min(
            pools, key=lambda pool: (engine_of(pool).calls, bool(pool.provider)), default=None
        )


def engine_of(pool: PoolSpec) -> EngineCard:
    """Return the engine of a pool's circuits; for a pool of any engine, the preferred one of those
    that run every gate."""
    own = catalog.card(pool.engine)
    if own is not None:
        return own
    usable = [card for card in catalog.engine_cards() if card.automatic and not card.install_hint]
    return next(card for card in usable if not card.clifford)


def profile_of(work: Workload) -> Profile:
    """Return the sizes of one circuit as cost models read them.

    The bond of a tensor network is bounded by the width, and by the depth or else the number of
    two-qubit gates.
    """
    qubits = min(work.qubits, MAX_MODEL_QUBITS)
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
        bond_bits=min(qubits // 2, work.depth or work.gates_2q),
    )


def hardware_ns(info: DeviceInfo, work: Workload) -> int | None:
    """Return the time of circuits on a machine in ns; None if no kind of operation has a duration.

    Each kind of operation takes its mean duration at each shot. A kind without a duration takes the
    duration of the default profile.
    """
    default = DeviceProfile()
    gates = [each for each in info.operations if each.name not in _NO_GATES]
    gate_1q_ns = _mean(each.duration_ns for each in gates if len(each.qubits) == 1)
    gate_2q_ns = _mean(each.duration_ns for each in gates if len(each.qubits) > 1)
    readout = _mean(qubit.readout_ns for qubit in info.qubits)
    if readout is None:
        readout = _mean(each.duration_ns for each in info.operations if each.name == _READOUT)
    if gate_1q_ns is None and gate_2q_ns is None and readout is None:
        return None
    shot_ns = (
        work.gates_1q * (default.one_q_gate_ns if gate_1q_ns is None else gate_1q_ns)
        + work.gates_2q * (default.two_q_gate_ns if gate_2q_ns is None else gate_2q_ns)
        + work.measurements * (default.measurement_ns if readout is None else readout)
    )
    return work.count * max(1, math.ceil(shot_ns * work.shots))


def _mean(durations_ns: Iterable[float]) -> float | None:
    measured = [each for each in durations_ns if math.isfinite(each) and each >= 0]
    return sum(measured) / len(measured) if measured else None

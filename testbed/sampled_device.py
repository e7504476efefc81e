"""Artificial devices whose counts are drawn from decay models, without circuits.

The true value of each quantity is known, so the coverage of confidence intervals can be counted
over many devices in seconds. Sequences of randomized benchmarking scatter: the decay of each
sequence has a random factor, and its number of gates is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments import plans
from simenv.calibration.experiments.estimators import Estimate, simultaneous_z
from simenv.calibration.experiments.procedure import ExperimentShots, Procedure, choose
from simenv.calibration.experiments.programs import Arm, CircuitPiece
from simenv.model.devices import DeviceInfo, DeviceKind, GateInfo
from simenv.model.program import PROGRAM_FORMAT, Program

QUBITS = 5
_SCATTER = 0.02  # relative standard deviation of the decay of a sequence
_GATES = (("rz", 1, 1), ("sx", 1, 0), ("x", 1, 0), ("cz", 2, 0))


def chain(qubits: int = QUBITS) -> DeviceInfo:
    """Return a chain of qubits with the gates of a superconducting device."""
    return DeviceInfo(
        name="artificial", kind=DeviceKind.HARDWARE, provider="bench", model="chain", version="",
        technology="superconducting", num_qubits=qubits, max_shots=10**6, all_to_all=False,
        gates=tuple(GateInfo(*gate) for gate in _GATES),
        coupling=tuple((q, q + 1) for q in range(qubits - 1)),
    )  # fmt: skip


class PointPlanner(plans.Planner):
    """Planner of the points of all experiments without circuits; it draws gate counts at random."""

    def __init__(self, tested: plans.TestLayout, seed: int) -> None:
        self._tested = tested
        self._seed = seed
        self._alphabet = None  # type: ignore[assignment]  # no circuit needs it

    def timed(
        self,
        name: str,
        arm: Arm,  # noqa: ARG002  # no circuit is made
        times_ns: Mapping[tuple[int, ...], Sequence[float]],
        arms: int,
        shots: int,
        records: int = 1,
        most: int | None = None,
    ) -> Iterator[plans.PlannedCircuit]:
        """See `Planner`."""
        return super().timed(name, lambda *_: _NOTHING, times_ns, arms, shots, records, most)

    def _sequence(
        self, name: str, place: tuple[int, ...], length: int, number: int
    ) -> tuple[plans.ExperimentSetting, CircuitPiece]:
        gates = _random_gates(self._seed, name, place, length, number)
        if name == plans.IRB2:
            gates += length
        if name == plans.IRB1:
            gates = length
        flips = number % (1 << len(place))
        return plans.ExperimentSetting(
            name, place, float(length), flips, number, float(gates)
        ), _NOTHING

    def _circuit(
        self, pieces: Sequence[tuple[plans.ExperimentSetting, CircuitPiece]], shots: int
    ) -> plans.PlannedCircuit:
        return plans.PlannedCircuit(_NO_PROGRAM, shots, tuple(point for point, _ in pieces))


_NOTHING = CircuitPiece(np.zeros(0, np.uint16), np.zeros(0, np.int64), np.zeros(0))
_NO_PROGRAM = Program(PROGRAM_FORMAT, 0, 0, (), (), b"", b"", b"", b"", b"")


def _random_gates(seed: int, name: str, place: tuple[int, ...], length: int, number: int) -> int:
    """Return a random number of entangling gates or quarter turns of a sequence."""
    rng = np.random.default_rng([seed, *place, length, number])
    mean, deviation = (1.5, 0.67) if name in (plans.RB2, plans.IRB2) else (1.0, 0.58)
    return max(0, round(rng.normal(mean * (length + 1), deviation * math.sqrt(length + 1))))


class SampledDevice:
    """One device: its true values, and counts drawn from them."""

    def __init__(self, seed: int, qubits: int = QUBITS) -> None:
        self._rng = rng = np.random.default_rng(seed)
        self._seed = seed
        self.t1_us = rng.uniform(50.0, 400.0, qubits)
        self.t2_us = self.t1_us * rng.uniform(0.3, 1.5, qubits)
        self.detuning_khz = rng.uniform(-5.0, 5.0, qubits)
        self.p01 = rng.uniform(0.003, 0.03, qubits)
        self.p10 = rng.uniform(0.005, 0.05, qubits)
        self.quarter = rng.uniform(1e-4, 6e-4, qubits)
        self.half = rng.uniform(1e-4, 6e-4, qubits)
        self.pair = rng.uniform(2e-3, 1.5e-2, qubits)  # of pair (q, q + 1)
        self.zz_khz = rng.uniform(-20.0, 20.0, qubits)
        self.qubits = qubits

    def truth(self, estimate: Estimate) -> float | None:
        """Return the true value of a quantity; None for a quantity that is not counted."""
        values = {
            "t1_us": self.t1_us, "t2_us": self.t2_us, "t2_ramsey_us": self.t2_us,
            "detuning_khz": self.detuning_khz, "p01": self.p01,
            "p10": self.p10, "error_1q": self.quarter, "error_half": self.half,
            "error_2q": self.pair, "zz_khz": self.zz_khz,
        }.get(estimate.quantity)  # fmt: skip
        return None if values is None else float(values[estimate.qubits[0]])

    def measured(self) -> tuple[Estimate, ...]:
        """Return the estimates of the whole procedure."""
        info = chain(self.qubits)
        tested = choose(info, None)
        planner = PointPlanner(tested, self._seed)
        procedure = Procedure(info, tested, self, self._seed, ExperimentShots(), planner=planner)
        return procedure.run().estimates

    def run(self, circuits: Sequence[plans.PlannedCircuit]) -> plans.Counts:
        """See `CircuitRunner`."""
        entries: plans.Counts = {}
        for circuit in circuits:
            for point in circuit.points:
                probabilities = self._probabilities(point)
                counts = self._rng.multinomial(circuit.shots, probabilities)
                plans.add(
                    entries,
                    (point,),
                    np.arange(probabilities.size, dtype=np.uint64),
                    counts.astype(np.uint32),
                )
        return entries

    def _probabilities(self, point: plans.ExperimentSetting) -> NDArray[np.float64]:
        """Return the probabilities of all outcomes; bit 0 is the first qubit."""
        name, q = point.experiment, point.qubits[0]
        if len(point.qubits) == 2:
            if name == "zz":
                return self._conditional(point)
            if name == "rotations":
                return self._turned(point)
            return self._survival(point, 4)
        if name in (plans.RB1, plans.IRB1):
            return self._read(q, self._survival(point, 2)[1])
        if name in ("turns", "half-turns"):  # no gate turns beyond itself
            return self._read(q, 0.5)
        if name == "readout":
            return self._read(q, float(point.arm))
        if name.endswith("t1"):
            return self._read(q, point.arm * math.exp(-point.x / (1e3 * self.t1_us[q])))
        size = math.exp(-point.x / (1e3 * self.t2_us[q]))
        if name.endswith("echo"):
            return self._read(q, 0.5 + 0.5 * size * (1 if point.arm else -1))
        turn = 2e-6 * math.pi * self.detuning_khz[q] * point.x
        return self._read(q, self._phase(turn, size, point.arm))

    def _phase(self, turn: float, size: float, arm: int) -> float:
        return 0.5 + 0.5 * size * math.cos(turn + arm % 4 * math.pi / 2.0)

    def _read(self, qubit: int, p1: float) -> NDArray[np.float64]:
        p01, p10 = self.p01[qubit], self.p10[qubit]
        read = (1.0 - p1) * p01 + p1 * (1.0 - p10)
        return np.array([1.0 - read, read])

    def _conditional(self, point: plans.ExperimentSetting) -> NDArray[np.float64]:
        q = point.qubits[0]
        excited = point.arm >= 4
        turn = 2e-6 * math.pi * self.detuning_khz[q] * point.x
        if excited:
            turn -= 2e-6 * math.pi * self.zz_khz[q] * point.x
        size = math.exp(-point.x / (1e3 * self.t2_us[q]))
        first = self._read(q, self._phase(turn, size, point.arm))
        stays = float(excited)  # no relaxation: the analysis discards shots that relax
        second = np.array([1.0 - stays, stays])
        return np.outer(second, first).ravel()

    def _turned(self, point: plans.ExperimentSetting) -> NDArray[np.float64]:
        """Return the probabilities of a pair whose gate turns its qubits by nothing beyond
        itself."""
        target, is_excited = point.arm // 8, point.arm % 8 >= 4
        size = math.exp(-point.x * self.pair[point.qubits[0]])
        own = self._read(point.qubits[target], self._phase(0.0, size, point.arm))
        other = self._read(point.qubits[1 - target], float(is_excited))
        first, second = (own, other) if target == 0 else (other, own)
        return np.outer(second, first).ravel()

    def _survival(self, point: plans.ExperimentSetting, size: int) -> NDArray[np.float64]:
        """Return the probabilities after the decay by the gates of a point, with random scatter."""
        q = point.qubits[0]
        scale = size / (size - 1.0)
        if point.experiment in (plans.RB1, plans.SIMULTANEOUS):
            decay = point.gates * -math.log1p(-scale * self.quarter[q])
        elif point.experiment == plans.IRB1:
            turns = _random_gates(self._seed, plans.RB1, point.qubits, int(point.x), point.repeat)
            decay = turns * -math.log1p(-scale * self.quarter[q])
            decay += point.gates * -math.log1p(-scale * self.half[q])
        else:
            local = 1e-3 * point.x
            decay = local + point.gates * -math.log1p(-scale * self.pair[q])
        decay *= math.exp(_SCATTER * self._rng.standard_normal())
        probabilities = np.full(size, (1.0 - 0.96 * math.exp(-decay)) / size)
        probabilities[point.arm] += 0.96 * math.exp(-decay)
        return probabilities


def coverage(devices: int, confidence: float, first_seed: int = 0) -> tuple[float, float, int]:
    """Return the coverage of confidence intervals over artificial devices. The result is the share
    of intervals at this confidence that contain the truth, the share of devices whose simultaneous
    99 % intervals all contain it, and the number of intervals."""
    z = simultaneous_z(1, confidence)
    covered_count, total, joint_count = 0, 0, 0
    for number in range(devices):
        device = SampledDevice(first_seed + number)
        pairs = [(each, device.truth(each)) for each in device.measured()]
        counted = [(each, truth) for each, truth in pairs if truth is not None]
        covered_count += sum(_holds(each, truth, z) for each, truth in counted)
        total += len(counted)
        joint = simultaneous_z(len(counted))
        joint_count += all(_holds(each, truth, joint) for each, truth in counted)
    return covered_count / total, joint_count / devices, total


def _holds(estimate: Estimate, truth: float, z: float) -> bool:
    low, high = estimate.interval(z)
    return low <= truth <= high

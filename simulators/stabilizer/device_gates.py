"""Native gates of a calibrated device, and stim's Clifford gates in them.

What the data of the snapshot lists exists, and nothing else: the rule of
`noise_models.calibration.CalibrationSnapshot`. A refusal names the qubits and the way out.
"""

from __future__ import annotations

import functools

import stim

from noise_models.calibration import CalibrationSnapshot, GateCalibration
from noise_models.qubit_noise import DeviceFigures
from simulators.errors import Unsupported
from simulators.stabilizer.native_synthesis import NativeMove, NativeStep, pair, single

BROKEN = 1.0  # the error of a gate that does not work
_HOME_HINT = "another qubit_mapping, a device that couples them, or qubit_mapping='draw'"


class DeviceGates:
    """Native gates of one device, by their qubits."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        self._figures = DeviceFigures(snapshot)
        self._listed: dict[str, dict[tuple[int, ...], GateCalibration]] = {}
        for gate in snapshot.gates:
            self._listed.setdefault(gate.name, {})[gate.qubits] = gate
        self._coupled = frozenset(snapshot.coupled)
        self._linked = snapshot.linked
        self._unusable = frozenset(snapshot.unusable)
        self._bounds = {each.gate: each.bounds_rad for each in snapshot.angle_bounds}
        self._moves: dict[tuple[int, ...], tuple[NativeMove, ...]] = {}
        self._steps: dict[tuple[str, tuple[int, ...]], tuple[NativeStep, ...]] = {}

    def check_qubit(self, circuit_qubit: int, qubit: int, *, measured: bool) -> None:
        """Raise Unsupported for a qubit that the device lacks, or cannot measure."""
        device, text = self.snapshot, f"qubit {circuit_qubit} is mapped to qubit {qubit}"
        if not 0 <= qubit < device.num_qubits:
            hint = f"qubits 0 to {device.num_qubits - 1}"
            raise Unsupported(f"{text}; device {device.name} has {device.num_qubits}", hint=hint)
        if qubit in self._unusable:
            raise Unsupported(f"{text}, which device {device.name} cannot use", hint=_HOME_HINT)
        if measured and qubit in device.unmeasured:
            raise Unsupported(f"{text}, which device {device.name} cannot measure", hint=_HOME_HINT)

    def steps(self, name: str, qubits: tuple[int, ...]) -> tuple[NativeStep, ...]:
        """Return the native gates of one of stim's Clifford gates on qubits of the device; the
        operands of the steps are indices of `qubits`. Raises Unsupported."""
        key = name, qubits
        result = self._steps.get(key)
        if result is None:
            result = self._steps[key] = self._synthesized(name, qubits)
        return result

    def _synthesized(self, name: str, qubits: tuple[int, ...]) -> tuple[NativeStep, ...]:
        if name == "I":  # the native `id`, if there is one
            native = any(gate.name == "id" for gate in self.snapshot.native_gates)
            written = (("I", (0,)),)
            return (NativeStep("id", (0,), (), written),) * (native and self._works("id", qubits))
        tableau = _tableau(name)
        if len(qubits) == 1:
            found = single(tableau, self._of(qubits))
            if found is not None:
                return found[0]
            text = f"{name} on qubit {qubits[0]} of device {self.snapshot.name}: its native gates"
            names = ", ".join(sorted({move.name for move in self._of(qubits)})) or "none"
            raise Unsupported(f"{text} there ({names}) do not give it", hint=_HOME_HINT)
        first, second = ((qubit,) for qubit in qubits)
        paired = self._of(qubits)
        steps = pair(tableau, self._of(first), self._of(second), paired)
        if steps is None:
            a, b = qubits
            reason = "do not give it"
            if frozenset(qubits) in self._linked:
                reason = "are none: a link between modules has Bell pairs, and no gates"
            elif not paired:
                reason = f"are none: device {self.snapshot.name} has no gate on this pair"
            raise Unsupported(
                f"{name} on qubits {a}, {b} of device {self.snapshot.name}: the native gates on"
                f" the pair {reason}",
                hint=_HOME_HINT,
            )
        return steps

    def _of(self, qubits: tuple[int, ...]) -> tuple[NativeMove, ...]:
        """Native gates that work on these qubits, those on two in either order."""
        result = self._moves.get(qubits)
        if result is None:
            orders = (qubits,) if len(qubits) == 1 else (qubits, qubits[::-1])
            result = self._moves[qubits] = tuple(
                self._move(gate.name, order, reversed_=order != qubits)
                for gate in self.snapshot.native_gates
                if gate.num_qubits == len(qubits)
                for order in orders
                if self._works(gate.name, order)
            )
        return result

    def _move(self, name: str, qubits: tuple[int, ...], *, reversed_: bool) -> NativeMove:
        found = self._figures.gate(name, qubits)
        duration_ns = self._figures.duration_ns(name, qubits)
        is_noisy = found is None or found.error != 0.0
        return NativeMove(name, duration_ns, is_noisy, self._bounds.get(name, ()), reversed_)

    def _works(self, name: str, qubits: tuple[int, ...]) -> bool:
        if not self._unusable.isdisjoint(qubits) or frozenset(qubits) in self._linked:
            return False
        listed = self._listed.get(name, {})
        found = listed.get(qubits, listed.get(()))
        if found is None and listed:
            return False
        if found is not None and (found.error or 0.0) >= BROKEN:
            return False
        if qubits in listed or len(qubits) == 1:
            return True
        return self.snapshot.all_to_all or qubits in self._coupled


@functools.lru_cache(maxsize=256)
def _tableau(name: str) -> stim.Tableau:
    return stim.Tableau.from_named_gate(name)

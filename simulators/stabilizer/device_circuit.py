"""Circuits of stim on a calibrated device: native gates, schedule and twirled noise.

Gates become native gates of the device. The result is scheduled, and its noise attached, as that of
any circuit: by `circuit.passes.attach_noise`. A TICK is a barrier over all qubits. Channels are
twirled to Paulis, readout errors are the mean of both outcomes. A circuit with its noise is again a
circuit of stim, on the device's qubits, with the records, detectors and observables that it had.

A REPEAT block whose body has a TICK is written at most three times: its first and its last pass,
and the one that all others equal, since the schedule does not reach over a TICK. Other blocks are
written out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np
import stim
from numpy.typing import NDArray

from noise_models.model import NoiseModel
from simulators.catalog import builtin_card
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import CircuitData
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.circuit.passes.shot_times import delays_ns, durations_ns
from simulators.circuit.schedule import schedule
from simulators.engine import RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.execution.circuit_checks import check_request
from simulators.stabilizer.device_gates import DeviceGates
from simulators.stabilizer.engine import pauli_noise, recorded_flip
from simulators.stabilizer.native_synthesis import NativeStep

MAX_OPERATIONS = 300_000  # native operations, blocks written as in the module's docstring
MAX_TEXT_BYTES = 64 * 2**20  # of the circuit with its noise, written so
_CHECKED = 4096  # steps between two reads of the control flag
_ANNOTATIONS = frozenset({"DETECTOR", "OBSERVABLE_INCLUDE", "SHIFT_COORDS", "MPAD"})
_PASSES = 3  # first, each between, last
# Gates that turn a basis into that of Z, and back.
_BASIS = {"X": "H", "Y": "H_YZ"}
_TWIRLED = RunOptions(settings=(("twirl", 1),))


class _Step(msgspec.Struct, frozen=True, gc=False):
    """An operation of stim on qubits of the device; its basis for measurements and resets."""

    name: str  # of a gate; M, R, TICK
    qubits: tuple[int, ...] = ()
    basis: str = ""
    inverted: bool = False
    weight: int = 1  # passes in which it acts


class _Repeat(msgspec.Struct, frozen=True):
    """A block of more than three passes: the first, each of those between, and the last."""

    count: int
    passes: list[list[_Node]]


_Node = int | str | _Repeat  # index of a step, an annotation, a block


class _NativeGate(msgspec.Struct, frozen=True, gc=False):
    """A native gate on qubits of the device, and the same in stim's instructions."""

    name: str
    qubits: tuple[int, ...]
    angles_rad: tuple[float, ...]
    text: str

    @classmethod
    def of(cls, step: NativeStep, qubits: tuple[int, ...]) -> _NativeGate:
        on = tuple(qubits[k] for k in step.operands)
        lines = [f"{name} {' '.join([str(on[k]) for k in at])}" for name, at in step.written]
        return cls(step.name, on, step.angles_rad, "\n".join(lines))


class DeviceCircuit(msgspec.Struct, frozen=True, eq=False):
    """A circuit of stim with the noise of a device, and its times."""

    circuit: stim.Circuit  # with noise, on the device's qubits
    duration_ns: float  # of one shot, from its first operation
    layers: int  # with measurements, between two TICKs each, in one shot
    late_ns: float  # of each such layer that a TICK ends: idle time for a late decoder
    gates: tuple[tuple[str, int], ...]  # native gates of one shot, by name
    text_bytes: int  # of the circuit, written


class _Operations:
    """Native operations as they are written, in the arrays of a program."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, int, int, int], int] = {}  # rows of the table
        self.ops: list[int] = []
        self.qubits: list[int] = []
        self.clbits: list[int] = []
        self.params: list[float] = []
        self.texts: list[str] = []  # of each operation, in stim's instructions
        self.weights: list[int] = []


class DeviceProgram:
    """A circuit of stim in native gates of a device."""

    def __init__(
        self,
        circuit: stim.Circuit,
        gates: DeviceGates,
        places: Mapping[int, int],
        late_ns: float = 0.0,
        control: RunControl | None = None,
    ) -> None:
        """`places`: the device's qubit of each qubit of the circuit. `late_ns`: idle time of all
        qubits in each layer with measurements. Raises Unsupported for what the device cannot do, by
        name, and for noise in the circuit; Stopped."""
        self._gates, self._places, self._late_ns = gates, places, late_ns
        self._control = RunControl() if control is None else control
        self._checked: dict[tuple[int, bool], int] = {}  # places, by qubit and measurement of it
        self._steps: list[_Step] = []
        self._visited = 0
        if late_ns and not _ticks(circuit):
            text = "a late decoder in a circuit without TICKs: they end the layers that wait"
            raise Unsupported(text, hint="TICK after each layer of gates or measurements")
        self._nodes = self._read(circuit, 1)
        self._restored = self._restored_bases()
        self._gates_of: dict[tuple[str, tuple[int, ...]], list[_NativeGate]] = {}
        self._arrays = _Operations()
        self._ends: list[int] = []  # operations after each step
        self._measured: list[int] = []  # operations
        self._write_operations()
        self.data = self._data()
        self.circuit = self.data.circuit()

    def _read(self, circuit: stim.Circuit, weight: int) -> list[_Node]:
        nodes: list[_Node] = []
        for item in circuit:
            self._visit()
            if isinstance(item, stim.CircuitRepeatBlock):
                body, count = item.body_copy(), item.repeat_count
                if count <= _PASSES or not _ticks(body):
                    for _ in range(count):
                        nodes += self._read(body, weight)
                        self._visit()
                else:
                    each = (weight, weight * (count - _PASSES + 1), weight)
                    nodes.append(_Repeat(count, [self._read(body, times) for times in each]))
                continue
            if item.name in _ANNOTATIONS:
                nodes.append(str(item))
            elif item.name != "QUBIT_COORDS":  # of the circuit's qubits, not of the device's
                first = len(self._steps)
                self._instruction(item, weight)
                nodes += range(first, len(self._steps))
        return nodes

    def _visit(self) -> None:
        self._visited += 1
        self._control.check()
        if max(self._visited, len(self._steps)) > MAX_OPERATIONS:
            raise _too_many()

    def _instruction(self, item: stim.CircuitInstruction, weight: int) -> None:
        name, data = item.name, stim.gate_data(item.name)
        if name == "TICK":
            self._steps.append(_Step("TICK", weight=weight))
            return
        if item.gate_args_copy() or (data.is_noisy_gate and not data.produces_measurements):
            raise Unsupported(
                f"{str(item)[:80]}: the circuit has noise of its own",
                hint="circuit.without_noise() for the device's noise; device=None for its own",
            )
        targets = item.targets_copy()
        if any(t.is_measurement_record_target or t.is_sweep_bit_target for t in targets):
            hint = "correct by the decoder, or by parities in DETECTOR and OBSERVABLE_INCLUDE"
            raise Unsupported(f"{str(item)[:80]}: a gate under a condition on a device", hint=hint)
        if data.is_unitary and (data.is_single_qubit_gate or data.is_two_qubit_gate):
            if name == "II":
                return
            for group in item.target_groups():
                self._steps.append(_Step(name, self._device_qubits(group), weight=weight))
            return
        kind, basis = _measurement(name)
        if not kind:
            hint = "an ancilla with gates on pairs, and M; single-qubit measurements and resets"
            raise Unsupported(f"{name} on a device, which has no such operation", hint=hint)
        for target in targets:
            (qubit,) = self._device_qubits([target], measured="M" in kind)
            for each in kind:
                inverted = each == "M" and target.is_inverted_result_target
                self._steps.append(_Step(each, (qubit,), basis, inverted, weight))

    def _device_qubits(
        self, targets: list[stim.GateTarget], *, measured: bool = False
    ) -> tuple[int, ...]:
        return tuple([self._device_qubit(target.value, measured) for target in targets])

    def _device_qubit(self, number: int, measured: bool) -> int:
        qubit = self._checked.get((number, measured))
        if qubit is None:
            qubit = self._places.get(number)
            if qubit is None:
                hint = "qubit_mapping= with the device's qubit of each"
                raise Unsupported(f"qubit {number} has no place on the device", hint=hint)
            self._gates.check_qubit(number, qubit, measured=measured)
            self._checked[number, measured] = qubit
        return qubit

    def _restored_bases(self) -> set[int]:
        """Measurements in the basis of X or Y whose qubits are used before their next reset: the
        state is turned back after them."""
        results, used = set[int](), set[int]()
        for index in range(len(self._steps) - 1, -1, -1):
            step = self._steps[index]
            if step.name == "R":
                used.discard(step.qubits[0])
            elif step.name != "TICK":
                if step.basis and step.qubits[0] in used:
                    results.add(index)
                used.update(step.qubits)
        return results

    def _write_operations(self) -> None:
        used = sorted({qubit for step in self._steps for qubit in step.qubits})
        seen: dict[int, None] = {}
        measures = False
        for index, step in enumerate(self._steps):
            if not index % _CHECKED:
                self._control.check()
            if step.name == "TICK":
                if measures and self._late_ns:
                    for qubit in seen:
                        self._operation("delay", (qubit,), step, "", params=(self._late_ns,))
                measures = False
                self._operation("barrier", tuple(used), step, "TICK")
            elif step.name == "M":
                self._turn(step)
                self._measured.append(len(self._arrays.ops))
                target = f"{'!' if step.inverted else ''}{step.qubits[0]}"
                # The clbit of a qubit has its last outcome; the records are those of the text.
                self._operation("measure", step.qubits, step, target, clbits=step.qubits)
                if index in self._restored:
                    self._turn(step)
                measures = True
            elif step.name == "R":
                # The preparation of a shot, on a device that cannot reset.
                if step.qubits[0] in seen or self._gates.snapshot.dynamic:
                    self._operation("reset", step.qubits, step, f"R {step.qubits[0]}")
                self._turn(step)
            else:
                self._gate(step.name, step.qubits, step)
            if step.name != "R" or step.basis:
                seen.update(dict.fromkeys(step.qubits))
            self._ends.append(len(self._arrays.ops))

    def _turn(self, step: _Step) -> None:
        if step.basis:
            self._gate(_BASIS[step.basis], step.qubits, step)

    def _gate(self, name: str, qubits: tuple[int, ...], step: _Step) -> None:
        written = self._gates_of.get((name, qubits))
        if written is None:
            written = self._gates_of[name, qubits] = [
                _NativeGate.of(each, qubits) for each in self._gates.steps(name, qubits)
            ]
        for each in written:
            self._operation(each.name, each.qubits, step, each.text, params=each.angles_rad)

    def _operation(
        self,
        name: str,
        qubits: tuple[int, ...],
        step: _Step,
        text: str,
        *,
        clbits: tuple[int, ...] = (),
        params: tuple[float, ...] = (),
    ) -> None:
        row = self._arrays.names.setdefault(
            (name, len(qubits), len(clbits), len(params)), len(self._arrays.names)
        )
        self._arrays.ops.append(row)
        self._arrays.qubits += qubits
        self._arrays.clbits += clbits
        self._arrays.params += params
        self._arrays.texts.append(text)
        self._arrays.weights.append(step.weight)
        if max(len(self._arrays.ops), len(self._arrays.qubits) >> 3) > MAX_OPERATIONS:
            raise _too_many()

    def _data(self) -> CircuitData:
        width = self._gates.snapshot.num_qubits
        rows = list(self._arrays.names)
        arities = np.array([row[1:] for row in rows], np.uint16).reshape(-1, 3)
        return CircuitData(
            width, width, (("c", width),), tuple(row[0] for row in rows), arities.tobytes(),
            np.array(self._arrays.ops, np.uint16).tobytes(),
            np.array(self._arrays.qubits, np.uint16).tobytes(),
            np.array(self._arrays.clbits, np.uint16).tobytes(),
            np.array(self._arrays.params, np.float64).tobytes(),
        )  # fmt: skip

    def noisy(self, attachment: NoiseAttachment) -> DeviceCircuit:
        """Return the circuit with the noise of a model. Raises Unsupported for noise that has no
        twirl here, with the factor that leaves it out, and for a circuit that is not dynamic on a
        device without operations inside circuits."""
        self._control.check()
        noise = attachment.attach(self.circuit, as_listed=True)
        self._control.check()
        check_request(builtin_card("stabilizer"), self.circuit, noise, _TWIRLED)
        lines = pauli_noise(self.circuit, noise, {}, twirl=True).lines.after
        texts = ["\n".join(each) for each in self._with_noise(noise, lines)]
        begun = "\n".join(lines.get(-1, ()))
        written = self._written(self._nodes, texts)
        duration_ns, layers = self.times(attachment.model)
        return DeviceCircuit(
            stim.Circuit(f"{begun}\n{written}"),
            duration_ns,
            layers,
            self._late_ns,
            self._counted(),
            len(written),
        )

    def _with_noise(self, noise: NoiseProgram, lines: dict[int, list[str]]) -> list[list[str]]:
        """Instructions of each step."""
        results, first, total = [], 0, 0
        measured = set(self._measured)
        for step, end in zip(self._steps, self._ends, strict=True):
            texts: list[str] = []
            for k in range(first, end):
                text = self._arrays.texts[k]
                if k in measured:
                    flip = recorded_flip(noise, step.qubits[0], k, twirl=True)
                    text = f"M({flip!r}) {text}" if flip else f"M {text}"
                texts += [text] if text else []
                texts += lines.get(k, ())
            total += sum(map(len, texts))
            if total > MAX_TEXT_BYTES:
                raise _too_many()
            results.append(texts)
            first = end
        return results

    def _written(self, nodes: list[_Node], texts: list[str]) -> str:
        """Text of the circuit; passes of a block that are equal to those between join them."""
        lines = []
        for node in nodes:
            if isinstance(node, int):
                lines.append(texts[node])
            elif isinstance(node, str):
                lines.append(node)
            else:
                first, between, last = (self._written(each, texts) for each in node.passes)
                count = node.count - (first != between) - (last != between)
                lines += [first] * (first != between)
                lines.append(f"REPEAT {count} {{\n{between}\n}}")
                lines += [last] * (last != between)
        return "\n".join(lines)

    def times(self, model: NoiseModel) -> tuple[float, int]:
        """Duration of one shot in ns, and the number of its layers with measurements."""
        circuit = self.circuit
        operands = Operands.of(circuit)
        delays = delays_ns(circuit, model) if self._late_ns else np.zeros(0)
        times = schedule(
            circuit,
            durations_ns(circuit, operands, model, delays),
            feed_forward_ns=model.feed_forward_ns,
            operands=operands,
        )
        weights: NDArray[np.int64] = np.array(self._arrays.weights, np.int64)
        names = [row[0] for row in self._arrays.names]
        ticks = [k for k, row in enumerate(self._arrays.ops) if names[row] == "barrier"]
        begins = np.array([0.0, *(times.start_ns[k] for k in ticks), times.duration_ns])
        passes = np.array([*weights[ticks], 1])
        at = np.searchsorted(ticks, sorted(set(self._measured)))
        layers = int(passes[np.unique(at)].sum()) if at.size else 0
        return float((np.diff(begins) * passes).sum()), layers

    def _counted(self) -> tuple[tuple[str, int], ...]:
        """Native gates of one shot by name."""
        names = [row[0] for row in self._arrays.names]
        found: Counter[str] = Counter()
        for row, weight in zip(self._arrays.ops, self._arrays.weights, strict=True):
            if names[row] not in ("barrier", "delay", "measure", "reset"):
                found[names[row]] += weight
        return tuple(sorted(found.items()))


def pairs_of(circuit: stim.Circuit, places: Mapping[int, int]) -> set[tuple[int, int]]:
    """Return the pairs of the device's qubits that gates of a circuit act on."""
    found: set[tuple[int, int]] = set()
    blocks = [circuit]
    while blocks:
        for item in blocks.pop():
            if isinstance(item, stim.CircuitRepeatBlock):
                blocks.append(item.body_copy())
                continue
            data = stim.gate_data(item.name)
            if data.is_unitary and data.is_two_qubit_gate and item.name != "II":
                for first, second in item.target_groups():
                    values = first.qubit_value, second.qubit_value
                    if None not in values:
                        found.add((places[values[0]], places[values[1]]))
    return found


def _measurement(name: str) -> tuple[str, str]:
    """Return M, R or MR of an instruction and its basis, "" for Z; ("", "") for others."""
    kind = name.rstrip("XY")
    basis = name[len(kind) :]
    return (kind, basis) if kind in ("M", "R", "MR") and len(basis) < 2 else ("", "")


def _ticks(circuit: stim.Circuit) -> bool:
    """Return whether a circuit has a TICK, in its blocks too."""
    return any(
        _ticks(item.body_copy()) if isinstance(item, stim.CircuitRepeatBlock) else False
        for item in circuit
    ) or any(item.name == "TICK" for item in circuit)


def _too_many() -> Unsupported:
    return Unsupported(
        f"the circuit has more than {MAX_OPERATIONS} operations on the device, or"
        f" {MAX_TEXT_BYTES >> 20} MiB of them with their noise",
        hint="a REPEAT block with a TICK in its body counts three times, however often it runs",
    )

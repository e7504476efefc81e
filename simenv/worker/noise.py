"""Noise of tasks in a worker, and warnings about it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from simenv.model import (
    DeviceRecord,
    NoiseFactors,
    Program,
    TaskOptions,
    is_gate,
    is_measurement,
)
from simenv.model.availability import ALIKE, BROKEN
from simenv.model.devices import LinkInfo, device_time_ns, wall_clock_s
from simenv.model.link_use import links_of, modules_of
from simenv.model.options import STALE
from simenv.model.task import LinkUse
from simenv.wire.messages.client import AssignedTask, NoiseDocument
from simulators.circuit.analysis.fit_scope import ActingCalibration, acting, differences, listed
from simulators.circuit.gates import GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.errors import Unsupported

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot, FitScope
    from noise_models.custom import CustomModel
    from noise_models.document import Document
    from noise_models.model import NoiseModel
    from simulators.circuit.passes.attach_noise import NoiseAttachment
    from simulators.circuit.passes.shot_times import ShotTimes


_SHOWN = 12
_PASSIVE = frozenset({"barrier", "delay", "delay_dt"})
_OFF = ("all", 0.0)  # factor of `noise="off"`
# Names of operations that a channel can follow, besides those of one circuit.
_ACTING = frozenset({*GATES, "delay", "preparation", "reset", "unitary"})
_NOT_READ = (
    "; labels are read from a QuantumCircuit or QPY that is submitted with its noise model, not"
    " from a circuit that was loaded before"
)
# Gates of a program that Aer does not run: its transpiler would replace them.
_NOT_AER = frozenset(
    {
        *("c3sx", "ch", "cs", "csdg", "dcx", "iswap", "rcccx", "rccx"),
        *("xx_minus_yy", "xx_plus_yy"),
    }
)


def unused_channels(
    document: CustomModel, program: Program, terms: TaskOptions, *, acts: bool
) -> tuple[str, ...]:
    """Return warnings about the channels of a custom noise model that do not act on a circuit.
    `acts`: whether any of its channels does."""
    results = []
    has = {entry.gate for entry in document.channels}
    present = set(program.noise_names)
    if not acts:
        gates = sorted(set(filter(is_gate, present)) - {""})
        channels = dict.fromkeys(
            _gate_text(entry.gate, entry.qubits) for entry in document.channels
        )
        results.append(
            f"the noise model does not act on this circuit, which ran without noise: channels of"
            f" {listed(channels) or 'no gates'}; the circuit has {listed(gates) or 'no gates'}"
            f"{_NOT_READ * (not program.labels)}"
        )
    unknown = [
        name
        for name in sorted(has)
        if name not in present and name not in _ACTING and name not in terms.replaced_gates
    ]
    if acts and unknown:
        results.append(
            f"channels of {listed(unknown)} do not act: no operation of the circuit has this"
            " label, or this name and no label; a gate that Aer has no name for is replaced by the"
            " gates of its definition: give channels of those, or a label to its matrix"
            f"{_NOT_READ * (not program.labels)}"
        )
    foreign = sorted(_NOT_AER.intersection(program.names).difference(has))
    if acts and foreign and not terms.device:
        results.append(
            f"{listed(foreign)} acted without noise: the noise model has no channels of this name,"
            " and Aer would run other gates in its place; transpile the circuit for Aer first"
        )
    lost = [name for name in terms.replaced_gates if name in has]
    if lost:
        results.append(
            f"channels of {listed(lost)} do not act: compilation for device {terms.device}"
            f" replaced {'these gates' if len(lost) > 1 else 'this gate'}; give channels of native"
            " gates, or compile='never'"
        )
    return tuple(results)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Figures that a device's calibration does not have."""

    gates: tuple[str, ...] = ()  # native gates without an error anywhere
    places: frozenset[tuple[str, tuple[int, ...]]] = frozenset()  # other entries without an error
    # Entries with an error of gates whose entry for all qubits has none.
    exceptions: frozenset[tuple[str, tuple[int, ...]]] = frozenset()
    # Figure of qubits -> qubits without it; None: no qubit has it. Figures of all qubits are left
    # out.
    qubits: tuple[tuple[str, frozenset[int] | None], ...] = ()
    untimed: tuple[str, ...] = ()  # native gates without a duration, where the device has T1 or T2


# Figure of a qubit -> values in place of the calibrated ones that a task may give.
_REPLACED = {
    "measure": frozenset(("qubit.p01", "qubit.p10")),
    "readout of 0": frozenset(("qubit.p01",)),
    "readout of 1": frozenset(("qubit.p10",)),
    "T1": frozenset(("qubit.t1_us",)),
    "T2": frozenset(("qubit.t2_us",)),
}
_READ = ("measure", "readout of 0", "readout of 1")  # figures of measurements
_IN_TIME = frozenset(("qubit.t1_us", "qubit.t2_us"))  # named by `noise_models.limits` if replaced


def gaps(document: CalibrationSnapshot) -> Gaps:
    """Return what was not measured of a device; nothing for one that is ideal."""
    if not (document.gates or document.qubits):
        return Gaps()
    nowhere = document.uncalibrated_gates
    listed = ((gate.name, gate.qubits) for gate in document.gates if gate.error is None)
    places = frozenset(each for each in listed if each[0] not in nowhere)
    exceptions = frozenset(
        (gate.name, gate.qubits)
        for gate in document.gates
        if gate.error is not None and (gate.name, ()) in places
    )
    figures = []
    for figure, has in (
        ("measure", [each.confusion is not None for each in document.qubits]),
        ("readout of 0", [each.state_without_readout != 0 for each in document.qubits]),
        ("readout of 1", [each.state_without_readout != 1 for each in document.qubits]),
        ("T1", [each.t1_us is not None for each in document.qubits]),
        ("T2", [each.t2_us is not None for each in document.qubits]),
    ):
        lacking = frozenset(qubit for qubit, known in enumerate(has) if not known)
        if lacking or (not has and figure not in _READ[1:]):
            figures.append((figure, lacking if any(has) else None))
    return Gaps(nowhere, places, exceptions, tuple(figures), document.untimed_gates)


def uncalibrated(
    document: CalibrationSnapshot,
    lacking: Gaps,
    program: Program,
    model: NoiseModel | None,
    noise: NoiseFactors = (),
) -> tuple[str, ...]:
    """Return warnings about the operations of a circuit, and the relaxation of its qubits, of which
    the device has no measured figure and the task no value, and about noise that the import of the
    device left out. `model`: of a calibration that is given as noise without its device, so that
    the circuit may have gates, and qubits for them, that the device lacks; None: the circuit was
    checked for the device."""
    from noise_models.device_model import DeviceModel

    used, given = set(program.names), {name for name, _ in noise}
    lost = [name for name in lacking.gates if name in used]
    partly = any(qubits is not None for _, qubits in lacking.qubits)
    walked = operations_of(program) if lacking.places or partly or model is not None else set()
    lost += sorted(
        {
            f"{name} on {', '.join(map(str, qubits))}"
            for name, qubits in walked
            if name not in lost
            and is_gate(name)
            and (
                _lacks(lacking, name, qubits)
                or (isinstance(model, DeviceModel) and model.calibration(name, qubits) is None)
            )
        }
    )
    still: list[str] = []
    for figure, qubits in lacking.qubits:
        is_readout = figure in _READ
        if _REPLACED[figure] & given or (is_readout and "measure" not in used):
            continue
        text = figure
        if qubits is not None:
            acting = {
                qubit
                for name, places in walked
                if not is_readout or name == "measure"
                for qubit in places
            }
            if not (found := sorted(acting & qubits)):
                continue
            text = f"{figure} on {', '.join(map(str, found[:_SHOWN]))}"
            text += f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        (lost if is_readout else still).append(text)
    results = []
    if lost:
        results.append(
            f"{listed(lost)} acted without errors: device {document.name} has no measured error of"
            f" {'them' if len(lost) > 1 else 'it'}"
        )
    if still:
        results.append(f"no relaxation by {listed(still)}: device {document.name} has no value")
    untimed = [name for name in lacking.untimed if name in used and name not in lacking.gates]
    if untimed and not _IN_TIME & given:
        results.append(
            f"no relaxation while {listed(untimed)} ran: device {document.name} has no duration of"
            f" {'them' if len(untimed) > 1 else 'it'}"
        )
    if document.unread:
        results.append(
            f"noise of {listed(document.unread)} does not act: the import of device"
            f" {document.name} left it out"
        )
    return tuple(results)


def _lacks(lacking: Gaps, name: str, qubits: tuple[int, ...]) -> bool:
    if (name, ()) in lacking.places:
        return (name, qubits) not in lacking.exceptions
    return (name, qubits) in lacking.places


def on_pairs(model: NoiseModel, program: Program) -> tuple[str, ...]:
    """Return a warning about gates of a circuit on more than two qubits whose errors act as Pauli
    errors on pairs of them."""
    from noise_models.device_model import DeviceModel

    assert isinstance(model, DeviceModel)
    if not model.options.factor("gate.depolarizing"):
        return ()
    wide = {key for key in gates_of(program) if len(key[1]) > 2}
    found = {key: model.calibration(*key) for key in wide}
    names = sorted({name for (name, _), gate in found.items() if gate is not None and gate.error})
    if not names:
        return ()
    return (
        f"the error of {listed(names)}, on more than two qubits, acts as Pauli errors on pairs of"
        " its qubits with the same average gate fidelity; over-rotation does not act there",
    )


def outside_layers(model: NoiseModel, program: Program) -> tuple[str, ...]:
    """Return a warning about gates of layers in a circuit with blocks, where they have their own
    errors."""
    if not program.conditions or not model.layers:
        return ()
    from noise_models.layers import gate_key

    together = {gate for layer in model.layers for gate in layer.gates}
    names = {name for name, qubits in gates_of(program) if gate_key(name, qubits) in together}
    if not names:
        return ()
    return (
        "errors of layers do not act in a circuit with conditions or loops:"
        f" {listed(sorted(names))} has the error of the gate alone",
    )


def useless(document: CalibrationSnapshot, model: NoiseModel, program: Program) -> tuple[str, ...]:
    """Return a warning about operations of a circuit whose calibrated errors leave nothing of what
    they do: a measurement that hardly tells 0 from 1, a reset that leaves 1 as often as 0, a gate
    whose error is that of complete depolarization."""
    from noise_models.device_model import DeviceModel

    assert isinstance(model, DeviceModel)
    readout, depolarizes = model.readout(), model.options.factor("gate.depolarizing") > 0.0
    resets = [each.reset_error or 0.0 for each in document.qubits]
    found = set()
    for name, qubits in operations_of(program):
        if is_measurement(name):
            own = model.flips_of(name, qubits[0])
            if own is None and readout is not None:
                own = float(readout.p01[qubits[0]]), float(readout.p10[qubits[0]])
            is_useless = own is not None and sum(own) >= 2.0 * ALIKE
        elif name == "reset":
            is_useless = bool(resets) and resets[qubits[0]] >= ALIKE
        else:
            gate = model.calibration(name, qubits)
            side = 1 << len(qubits)
            is_useless = gate is not None and (gate.error or 0.0) >= (side - 1) / side
            is_useless = is_useless and depolarizes
        if is_useless:
            found.add(f"{name} on {', '.join(map(str, qubits))}")
    if not found:
        return ()
    return (
        f"{listed(sorted(found))}: by the calibration of device {document.name} the outcome is"
        " random, whatever the circuit; choose other qubits",
    )


def _has_useless(document: CalibrationSnapshot) -> bool:
    """Return whether a device has operations that `useless` may name."""
    measured = [each.error or 0.0 for each in document.measurements]
    measured += [sum(each.confusion or ()) / 2.0 for each in document.qubits]
    resets = [each.reset_error or 0.0 for each in document.qubits]
    # An error of 1 marks a gate that does not work: no circuit for the device has it.
    gates = [each.error for each in document.gates if each.error and each.error < BROKEN]
    return max((*measured, *resets), default=0.0) >= ALIKE or max(gates, default=0.0) >= 0.5


def _has_wide_gates(program: Program) -> bool:
    """Return whether the table of a program has gates on more than two qubits."""
    sizes = np.frombuffer(program.arities, np.uint16)[::3].tolist()
    return any(size > 2 and is_gate(name) for name, size in zip(program.names, sizes, strict=True))


def gates_of(program: Program) -> set[tuple[str, tuple[int, ...]]]:
    """Return the gates of a program with their qubits."""
    return {(name, qubits) for name, qubits in operations_of(program) if is_gate(name)}


def operations_of(program: Program) -> set[tuple[str, tuple[int, ...]]]:
    """Return the operations of a program that have qubits, but barriers and delays."""
    sizes = np.frombuffer(program.arities, np.uint16).reshape(-1, 3)[:, 0].tolist()
    qubits = np.frombuffer(program.qubits, np.uint16).tolist()
    results, at = set(), 0
    for row in np.frombuffer(program.ops, np.uint16).tolist():
        end = at + sizes[row]
        if sizes[row] and program.names[row] not in _PASSIVE:
            results.add((program.names[row], tuple(qubits[at:end])))
        at = end
    return results


def outside_fit(scope: FitScope, has: list[str], name: str) -> tuple[str, ...]:
    """Return a warning about a circuit that differs from those which the device was fitted to; ()
    if it does not. `has`: its `differences`; `name`: of the task."""
    family = scope.family(name)
    if family and any(scope.families) and family not in scope.families:
        has = [f"family {family}", *has]
    if not has:
        return ()
    families = ", ".join(each for each in scope.families if each)
    seen = [f"of {families}"] if families else []
    seen += [f"of {scope.first} to {scope.last}"] if scope.first else []
    seen.append(f"with at most {scope.widest} qubits and {scope.two_qubit_gates} two-qubit gates")
    if scope.one_qubit_gates is not None and scope.delay_ns is not None:
        seen.append(
            f"at most {scope.one_qubit_gates} other gates and {scope.delay_ns:.4g} ns of delays"
            " on a qubit"
        )
    if scope.depth is not None and scope.duration_ns is not None:
        seen.append(f"of depth {scope.depth} and {scope.duration_ns:.4g} ns")
    if not scope.placed:
        seen.append(f"on qubits {listed(map(str, scope.qubits))} (others are as calibrated)")
    return (
        f"the noise was fitted to {scope.bodies} circuits {', '.join(seen)}; this circuit has"
        f" {', '.join(has)}",
    )


def _gate_text(gate: str, qubits: tuple[int, ...]) -> str:
    return f"{gate} on {', '.join(map(str, qubits))}" if qubits else gate


MAX_MODELS = 32
MAX_PROGRAMS = 256
CACHE_BYTES = 64 * 2**20  # of noise programs; the newest one is kept whatever its size
MODEL_BYTES = 256 * 2**20  # of models with their channels and documents; the newest one is kept
_READ_BYTES = 8  # of a document that is read, for each byte of its text
_DELAYS = frozenset({"delay", "delay_dt"})  # their durations may be parameters


class Noise:
    """Caches of noise documents, models and programs. Used from the main thread. A model is built
    once for each document and noise options, a noise program once for each structure."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}
        self._documents: dict[str, Document] = {}
        self._models: OrderedDict[tuple[str, NoiseFactors], NoiseAttachment] = OrderedDict()
        self._programs: OrderedDict[tuple[bytes, bytes], NoiseProgram] = OrderedDict()
        self._program_bytes = 0
        self._limited: dict[tuple[str, NoiseFactors], tuple[str, ...]] = {}
        self._times: dict[str, ShotTimes] = {}  # by key of `_in_force`
        self._scopes: dict[tuple[bytes, str], tuple[list[str], ActingCalibration]] = {}
        self._useless: dict[str, bool] = {}  # by key of `_in_force`
        self._gaps: dict[str, Gaps] = {}  # by key of `_in_force`
        self._of_structures: dict[tuple[bytes, str, NoiseFactors], tuple[str, ...]] = {}
        self._shots_ns: OrderedDict[tuple[bytes, str], float] = OrderedDict()

    def receive(self, message: NoiseDocument) -> None:
        """Store a document for later chunks, which name it by its digest."""
        if message.alone:
            self._bodies.clear()
            self._documents.clear()
            self._models.clear()
            self._times.clear()
            self._scopes.clear()
        self._bodies[message.digest] = message.body

    def program(
        self, program: Program, circuit: Circuit, terms: TaskOptions
    ) -> NoiseProgram | None:
        """Return the noise program of a circuit under these options; None if no noise acts on it.
        `circuit`: that of the program, maybe with bound delays. Raises Unsupported, NoiseError."""
        from simulators.circuit.passes import attach_noise

        attachment = self._attachment(terms, program)
        if circuit.labels and not self._has_channels(terms):  # a device knows its gates by name
            circuit = msgspec.structs.replace(circuit, labels=())
        times_are_parameters = attach_noise.depends_on_params(circuit)
        key = (
            program.digest + circuit.params_data if times_are_parameters else program.structure,
            attachment.model.digest,
        )
        result = self._programs.get(key)
        if result is None:
            result = self._programs[key] = attachment.attach(circuit)
            self._program_bytes += result.memory_bytes
            self._bound_models()  # its channels are new
            while len(self._programs) > MAX_PROGRAMS or (
                self._program_bytes > CACHE_BYTES and len(self._programs) > 1
            ):
                _, oldest = self._programs.popitem(last=False)
                self._program_bytes -= oldest.memory_bytes
        else:
            self._programs.move_to_end(key)
        return result if result.kinds else None

    def calibration(self, terms: TaskOptions) -> CalibrationSnapshot:
        """Return the calibration of a task's device. Raises Unsupported for a noise model of the
        caller's own."""
        from noise_models.custom import CustomModel

        document = self._document(terms.snapshot)
        if isinstance(document, CustomModel):
            hint = "noise= with factors of components; or write the channels in the circuit"
            raise Unsupported("a noise model of your own for a circuit of stim", hint=hint)
        return document

    def attachment(self, terms: TaskOptions, program: Program) -> NoiseAttachment:
        """Return the noise of a task's device that acts on a program of it. Raises NoiseError."""
        result = self._attachment(terms, program)
        self._bound_models()
        return result

    def record(self, program: Program, assigned: AssignedTask, terms: TaskOptions) -> DeviceRecord:
        """Return the description of a task's device for its result."""
        document = self._document(terms.snapshot)
        ops = np.frombuffer(program.ops, np.uint16)
        rows = np.bincount(ops, minlength=len(program.names)).tolist()
        gates: dict[str, int] = {}
        for name, count in zip(program.names, rows, strict=True):
            if count and is_gate(name):
                gates[name] = gates.get(name, 0) + count
        modules, links = tuple[str, ...](), tuple[LinkUse, ...]()
        if (joined := getattr(document, "modules", ())) and terms.device:
            found = [
                LinkInfo(each.pair, 1.0 - each.infidelity, each.mean_wait_ns)
                for each in getattr(document, "links", ())
            ]
            links = links_of(program, joined, found)
            places = memoryview(assigned.initial_layout).cast("H").tolist()
            modules = modules_of(places or range(program.num_qubits), joined)
        return DeviceRecord(
            terms.device,
            terms.snapshot,
            wall_clock_s(getattr(document, "calibrated", "")),
            terms.noise,
            terms.compiled,
            assigned.layout,
            tuple(sorted(gates.items())),
            assigned.initial_layout,
            self._warnings(document, program, terms),
            terms.stale == STALE,
            modules,
            links,
            self._scoped(terms, program)[1].outside,
        )

    def device_ns(
        self, program: Program, circuit: Circuit, assigned: AssignedTask, terms: TaskOptions
    ) -> int:
        """Time of a task on its device in ns; 0 without a device, for exact results, and for a
        noise document that is not a calibration."""
        times = self._shot_times(terms, program)
        if times is None or not assigned.shots:
            return 0
        if not _DELAYS.isdisjoint(program.names):
            values = np.frombuffer(assigned.bindings, np.float64).reshape(assigned.count, -1)
            rows = values if program.num_slots else [None] * assigned.count
            total_ns = sum(times.shot_ns(circuit, row) for row in rows)
            return device_time_ns(assigned.shots, assigned.count, times.overhead_ns, total_ns)
        key = (program.structure, terms.snapshot)
        shot_ns = self._shots_ns.get(key)
        if shot_ns is None:
            model = self._attachment(terms, program).model.digest
            noise = self._programs.get((program.structure, model))
            noise_ns = -1.0 if noise is None else noise.duration_ns
            shot_ns = self._shots_ns[key] = times.shot_ns(circuit, duration_ns=noise_ns)
            if len(self._shots_ns) > MAX_PROGRAMS:
                self._shots_ns.popitem(last=False)
        count = assigned.count
        return device_time_ns(assigned.shots, count, times.overhead_ns, count * shot_ns)

    def _has_channels(self, terms: TaskOptions) -> bool:
        from noise_models.custom import CustomModel

        return isinstance(self._document(terms.snapshot), CustomModel)

    def _shot_times(self, terms: TaskOptions, program: Program) -> ShotTimes | None:
        """Return the durations of the task's device; None if they are not known."""
        key, document = self._in_force(terms, program)
        result = self._times.get(key)
        if result is None and terms.device:
            from noise_models.calibration import CalibrationSnapshot
            from simulators.circuit.passes.shot_times import ShotTimes

            if not isinstance(document, CalibrationSnapshot):
                return None
            if len(self._times) >= MAX_MODELS:
                self._times.clear()
            result = self._times[key] = ShotTimes(document)
        return result

    def _warnings(
        self, document: Document, program: Program, terms: TaskOptions
    ) -> tuple[str, ...]:
        """Return warnings about requested noise that does not act as its numbers say, and about
        noise that was fitted to other circuits."""
        from noise_models.custom import CustomModel

        if isinstance(document, CustomModel):
            circuit = Circuit.from_program(program)
            acts = self.program(program, circuit, terms) is not None
            return unused_channels(document, program, terms, acts=acts)
        scope, outside = document.fitted, tuple[str, ...]()
        name, in_force = self._in_force(terms, program)
        if scope is not None:
            outside = outside_fit(scope, self._scoped(terms, program)[0], terms.name)
        if in_force is not document:
            assert scope is not None
            text = f"its noise is that of the calibration before the fit, of {scope.device}"
            outside = (f"{outside[0]}: {text}",)
            assert not isinstance(in_force, CustomModel)
            document = in_force
        elif scope is not None and scope.refused:
            text = f"the fit of device {terms.device or document.name} was refused, and stored by"
            outside = (f"{text} force: {scope.refused}", *outside)
        if _OFF not in terms.noise:
            model = None if terms.device else self._attachment(terms, program).model
            if name not in self._gaps:
                if len(self._gaps) >= MAX_MODELS:
                    self._gaps.clear()
                self._gaps[name] = gaps(document)
            lacking = self._gaps[name]
            outside = (
                *uncalibrated(document, lacking, program, model, terms.noise),
                *outside,
            )
            if name not in self._useless:
                if len(self._useless) >= MAX_MODELS:
                    self._useless.clear()
                self._useless[name] = _has_useless(document)
            is_plain = not (_has_wide_gates(program) or (document.layers and program.conditions))
            if self._useless[name] or not terms.device or not is_plain:
                outside = (*self._of_structure(document, program, terms), *outside)
        if not terms.noise:
            return outside
        key = (name, terms.noise)
        result = self._limited.get(key)
        if result is None:
            from noise_models.limits import limited

            if len(self._limited) >= MAX_MODELS:
                self._limited.clear()
            result = self._limited[key] = limited(self._attachment(terms, program).model)
        return result + outside

    def _of_structure(
        self, document: CalibrationSnapshot, program: Program, terms: TaskOptions
    ) -> tuple[str, ...]:
        """Return `useless`, `on_pairs` and `outside_layers` of a circuit, which depend on its
        structure alone."""
        key = program.structure, terms.snapshot, terms.noise
        result = self._of_structures.get(key)
        if result is None:
            if len(self._of_structures) >= MAX_PROGRAMS:
                self._of_structures.clear()
            model = self._attachment(terms, program).model
            result = (
                *useless(document, model, program),
                *on_pairs(model, program),
                *outside_layers(model, program),
            )
            self._of_structures[key] = result
        return result

    def _document(self, digest: str) -> Document:
        result = self._documents.get(digest)
        if result is None:
            from noise_models import document

            body = self._bodies.get(digest, b"")
            if not body:
                hint = "submit the task again"
                raise Unsupported(f"the noise document {digest[:16]} is not here", hint=hint)
            result = self._documents[digest] = document.load(body)
        return result

    def _in_force(self, terms: TaskOptions, program: Program) -> tuple[str, Document]:
        """Return the calibration of a task's device that acts on its circuit, and its key."""
        _, found = self._scoped(terms, program)
        name = f"outside {terms.snapshot}" if found.outside else terms.snapshot
        return name, found.document

    def _scoped(self, terms: TaskOptions, program: Program) -> tuple[list[str], ActingCalibration]:
        """Return what a circuit has that none of those had which its device was fitted to, and the
        calibration that acts on it."""
        document = self._document(terms.snapshot)
        scope: FitScope | None = getattr(document, "fitted", None)
        if scope is None:
            return [], ActingCalibration(document)
        key = program.digest, terms.snapshot
        result = self._scopes.get(key)
        if result is None:
            circuit = Circuit.from_program(program)
            device = cast("CalibrationSnapshot", document)  # a custom model is no fit
            has = differences(scope, circuit, device)
            result = has, acting(document, circuit) if has else ActingCalibration(document)
            if len(self._scopes) >= MAX_PROGRAMS:
                self._scopes.clear()
            self._scopes[key] = result
        return result

    def _attachment(self, terms: TaskOptions, program: Program) -> NoiseAttachment:
        """Return the noise of a task's device that acts on its circuit."""
        name, in_force = self._in_force(terms, program)
        key = name, terms.noise
        result = self._models.get(key)
        if result is None:
            from noise_models import document as documents
            from noise_models.options import NoiseOptions
            from simulators.circuit.passes.attach_noise import NoiseAttachment

            options = NoiseOptions.parse(terms.noise)
            model = documents.model(in_force, options)
            result = self._models[key] = NoiseAttachment(model)
            self._bound_models()
        else:
            self._models.move_to_end(key)
        return result

    def _bound_models(self) -> None:
        """Drop the models that were used least recently."""
        total = sum(
            each.memory_bytes + _READ_BYTES * len(self._bodies.get(digest, b""))
            for (digest, _), each in self._models.items()
        )
        while len(self._models) > MAX_MODELS or (total > MODEL_BYTES and len(self._models) > 1):
            (digest, _), oldest = self._models.popitem(last=False)
            total -= oldest.memory_bytes + _READ_BYTES * len(self._bodies.get(digest, b""))

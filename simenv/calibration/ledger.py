"""Error ledgers of circuits on devices, and devices in this process.

An error ledger is the loss of fidelity of one circuit on one device, by component, gate and qubit.
Each component of the noise is attached alone, so every loss has one component, one operation or
waiting time, and its qubits. Sums are first-order: the fidelity is about exp(-loss). Coherent
errors of one component are added with their phases, so that one that undoes others has a negative
loss. The population of |1> in equilibrium is part of relaxation, idle and preparation.

`LocalDevices` holds emulated devices for commands that run without a service; `circuit_ledger`
computes the ledger of a circuit on a device by name, without an environment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import wait
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from noise_models import document as documents
from noise_models.build import NOT_AER
from noise_models.custom import CustomModel
from noise_models.device_model import JUMPS, DeviceModel
from noise_models.model import NoiseModel
from noise_models.options import COMPONENTS, NoiseOptions
from noise_models.strict_json import NoiseError
from simenv import config
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.prepare import prepare_one
from simenv.errors import OptionError, ProgramError
from simenv.model import TaskOptions, decode_program
from simenv.model.devices import DeviceInfo
from simenv.service.devices.registry import DeviceRegistry
from simenv.service.devices.resolve import DocumentPending, EmulatedDevices
from simenv.wire.messages.client import NoiseDocument
from simulators.circuit.analysis.fit_scope import acting
from simulators.circuit.analysis.location_losses import MAX_QUBITS, IdealStates, LocationLosses
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, Q0, Q1, NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.detuning import rotations
from simulators.circuit.passes.leakage import lost
from simulators.circuit.passes.light_cone import light_cone, output_support
from simulators.circuit.validation.admission import validation_error
from simulators.compiler import warmup
from simulators.errors import EngineError

if TYPE_CHECKING:
    from simenv.service.devices.context import DeviceContext

__all__ = ["MAX_QUBITS", "EdgeLoss", "ErrorLedger", "GateLoss", "error_ledger"]

_THERMAL, _COHERENT = "qubit.thermal", "gate.coherent"
_CORRELATED = "qubit.correlated_readout"
_PARTS = tuple(name for name in COMPONENTS if name not in (_THERMAL, _CORRELATED))
_OF_GATES = (
    *("gate.depolarizing", "gate.coherent", "gate.leakage", "link.pair", "qubit.relaxation"),
    "custom",
)
_LAYER = "gate.layer"
_SILENT = 1e-300  # factor of layers that replace the errors of their gates and have none
_ROUNDING = 1e-15  # loss that counts as none
_STANDS_OUT = 1.5  # factor over the median loss of a use of the circuit's other pairs

Pair = tuple[int, int]


class GateLoss(msgspec.Struct, frozen=True, omit_defaults=True):
    """Loss by all uses of one gate on one set of qubits of the device. `coherent`: the part of the
    gate's rotations, `rotations`: their angles in rad by Pauli, the first letter of which acts on
    the first of `qubits`."""

    name: str
    qubits: tuple[int, ...]
    uses: int
    loss: float
    coherent: float = 0.0
    rotations: tuple[tuple[str, float], ...] = ()

    @property
    def turns(self) -> str:
        """Angles with their unit; "" without rotations."""
        angles = ", ".join(f"{name} {angle:+.3f}" for name, angle in self.rotations)
        return f"{angles} rad" if angles else ""


class EdgeLoss(msgspec.Struct, frozen=True):
    """Loss by the gates on a pair of qubits, and by its crosstalk."""

    qubits: Pair
    uses: int
    gates: float
    crosstalk: float

    @property
    def loss(self) -> float:
        """Sum of both losses."""
        return self.gates + self.crosstalk


class ErrorLedger(msgspec.Struct, frozen=True):
    """First-order losses of fidelity, the largest first."""

    loss: float  # sum over all components
    components: tuple[tuple[str, float], ...]
    gates: tuple[GateLoss, ...]
    edges: tuple[EdgeLoss, ...]
    qubits: tuple[tuple[int, float], ...]  # a loss on two qubits counts half for each
    avoid: EdgeLoss | None  # of the pairs that stand out, that with the largest loss above others'
    # "ideal": of the circuit's own state; "mixed": wider than MAX_QUBITS, with resets or branches
    state: str
    logical: str = ""  # code and chip of the device, whose errors are then logical ones
    outside_fit: tuple[str, ...] = ()  # see `fit_scope.ActingCalibration`

    @property
    def fidelity(self) -> float:
        """exp(-loss), the estimate of the fidelity of the outcomes."""
        return float(np.exp(-self.loss))


def error_ledger(
    circuit: Circuit, document: documents.Document, options: NoiseOptions
) -> ErrorLedger:
    """Ledger of a circuit on the qubits of a device. `document`: its calibration, or a custom noise
    model, which has one component. Raises Unsupported, NoiseError."""
    model = documents.model(document, options)
    circuit = attach_noise(circuit, model).located(circuit)
    ideal = IdealStates(circuit)
    programs = [
        (name, part)
        for name, alone in _alone(document, options).items()
        for part in _parts(circuit, attach_noise(circuit, documents.model(document, alone)))
    ]
    losses = ideal.losses([program for _, program in programs])
    built = _Sums(circuit, ideal, model)
    for (name, program), loss in zip(programs, losses, strict=True):
        built.add(name, program, loss)
    return built.ledger()


def _parts(circuit: Circuit, program: NoiseProgram) -> list[NoiseProgram]:
    """Parts of a noise program whose losses add up: its channels, its leakage, and the rotations of
    each qubit by one standard deviation of its detuning, whose phases add. All shots that leak
    count as lost. The square of a detuning has the mean of that of its standard deviation, so that
    this is the mean loss of a shot."""
    parts = [_acting(circuit, program)]
    if program.leakage is not None:
        parts.append(_acting(circuit, lost(program)))
    if program.detunings is not None:
        turns = (rotations(program, q) for q in np.unique(program.detunings.qubits).tolist())
        parts += [_acting(circuit, each) for each in turns]
    return parts


def _alone(document: documents.Document, options: NoiseOptions) -> Mapping[str, NoiseOptions]:
    """Options with each component alone; one entry `custom` for a model without components."""
    if isinstance(document, CustomModel):
        return {"custom": options}
    entries = {}
    lacking = NOT_AER if options.recipe != "simenv" else ()
    for name in _PARTS:
        if name in lacking:
            continue
        kept = {each: options.factor(each) for each in (name, _THERMAL, _CORRELATED)}
        if not kept[name]:
            continue
        if name != _LAYER and options.factor(_LAYER):
            kept[_LAYER] = _SILENT
        factors = {each: kept.get(each, 0.0) for each in COMPONENTS if each not in lacking}
        if JUMPS in lacking:  # a part of relaxation
            factors[JUMPS] = dict(options.factors).get(JUMPS, 1.0)
        pairs = tuple(sorted((each, value) for each, value in factors.items() if value != 1.0))
        entries[name] = msgspec.structs.replace(options, factors=pairs)
    return entries


def _acting(circuit: Circuit, program: NoiseProgram) -> NoiseProgram:
    support = output_support(("counts",), (), circuit)
    if support is None:
        return program
    acting = light_cone(circuit, support, program).acting
    return msgspec.structs.replace(program, locations=program.locations[acting])


class _Sums:
    def __init__(self, circuit: Circuit, ideal: IdealStates, model: NoiseModel) -> None:
        self._circuit = circuit
        self._model = model
        self._coherent: dict[tuple[str, tuple[int, ...]], float] = defaultdict(float)
        self._ideal = ideal
        self._components: dict[str, float] = defaultdict(float)
        self._gates: dict[tuple[str, tuple[int, ...]], float] = defaultdict(float)
        self._crosstalk: dict[Pair, float] = defaultdict(float)
        self._qubits: dict[int, float] = defaultdict(float)

    def add(self, name: str, program: NoiseProgram, losses: LocationLosses) -> None:
        """Losses of one component."""
        for row, loss in zip(program.locations.tolist(), losses.channels.tolist(), strict=True):
            qubits = tuple(q for q in (row[Q0], row[Q1]) if q >= 0)
            self._spread(name, qubits, loss)
            if name == "gate.crosstalk":
                self._crosstalk[min(qubits), max(qubits)] += loss
            elif name in _OF_GATES and row[AFTER_OP] >= 0:
                self._gates[self._gate(row[AFTER_OP])] += loss
                if name == _COHERENT:
                    self._coherent[self._gate(row[AFTER_OP])] += loss
            elif name == _LAYER:
                together = self._following(row[AFTER_OP])
                for qubit in set(qubits).intersection(together):
                    self._gates[together[qubit]] += loss / len(qubits)
        for qubit, loss in losses.readout.items():
            self._spread(name, (qubit,), loss)

    def _spread(self, name: str, qubits: tuple[int, ...], loss: float) -> None:
        self._components[name] += loss
        for qubit in qubits:
            self._qubits[qubit] += loss / len(qubits)

    def _following(self, k: int) -> dict[int, tuple[str, tuple[int, ...]]]:
        """Gates of the layer that is listed after operation k, by qubit."""
        results: dict[int, tuple[str, tuple[int, ...]]] = {}
        for gate in map(self._gate, range(k + 1, self._circuit.ops.size)):
            if len(gate[1]) != 2 or not results.keys().isdisjoint(gate[1]):
                break
            results.update(dict.fromkeys(gate[1], gate))
        return results

    def _gate(self, k: int) -> tuple[str, tuple[int, ...]]:
        return self._circuit.table.names[self._circuit.ops[k]], self._ideal.operands.qubits(k)

    def _rotations(self, name: str, qubits: tuple[int, ...]) -> tuple[tuple[str, float], ...]:
        """Angles of a gate's rotations beside its over-rotation, as they act."""
        if not isinstance(self._model, DeviceModel):
            return ()
        gate, factor = (
            self._model.calibration(name, qubits),
            self._model.options.factor(_COHERENT),
        )
        if gate is None or not factor:
            return ()
        is_reversed = gate.qubits not in ((), qubits)
        return tuple(
            (each.pauli[::-1] if is_reversed else each.pauli, each.angle_rad * factor)
            for each in gate.rotations
        )

    def ledger(self) -> ErrorLedger:
        """Ledger of all sums, sorted."""
        uses: dict[tuple[str, tuple[int, ...]], int] = defaultdict(int)
        for k in range(self._circuit.ops.size):
            uses[self._gate(k)] += 1
        gates = [
            GateLoss(*key, uses[key], loss, self._coherent.get(key, 0.0), self._rotations(*key))
            for key, loss in self._gates.items()
            if abs(loss) > _ROUNDING
        ]
        edges = self._edges(gates)
        return ErrorLedger(
            sum(self._components.values()),
            _sorted(self._components.items()),
            tuple(sorted(gates, key=lambda each: -each.loss)),
            edges,
            _sorted(self._qubits.items()),
            _outstanding(edges),
            "ideal" if self._ideal.is_known else "mixed",
        )

    def _edges(self, gates: Iterable[GateLoss]) -> tuple[EdgeLoss, ...]:
        sums: dict[Pair, tuple[int, float]] = {}
        for gate in gates:
            if len(gate.qubits) == 2:
                pair = min(gate.qubits), max(gate.qubits)
                uses, loss = sums.get(pair, (0, 0.0))
                sums[pair] = uses + gate.uses, loss + gate.loss
        results = [
            EdgeLoss(pair, *sums.get(pair, (0, 0.0)), self._crosstalk.get(pair, 0.0))
            for pair in sums.keys() | self._crosstalk.keys()
        ]
        return tuple(sorted(results, key=lambda edge: (-edge.loss, edge.qubits)))


K = TypeVar("K")


def _sorted(items: Iterable[tuple[K, float]]) -> tuple[tuple[K, float], ...]:
    return tuple(sorted((each for each in items if abs(each[1]) > _ROUNDING), key=lambda x: -x[1]))


def _outstanding(edges: tuple[EdgeLoss, ...]) -> EdgeLoss | None:
    """Pair of those whose loss for each use is well above the median of the others, of which that
    median for each use would save most."""
    excess: dict[Pair, tuple[float, EdgeLoss]] = {}
    used = [edge for edge in edges if edge.uses]
    for edge in used if len(used) > 1 else ():
        others = median(each.loss / each.uses for each in used if each is not edge)
        if edge.loss / edge.uses > _STANDS_OUT * others:
            excess[edge.qubits] = edge.loss - edge.uses * others, edge
    return max(excess.values(), key=lambda pair: pair[0])[1] if excess else None


T = TypeVar("T")


class LocalDocuments:
    """Noise documents in memory, by their digest in hexadecimal."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._bodies

    def body(self, digest: str) -> bytes:
        """Body of a document; b"" if it is unknown."""
        return self._bodies.get(digest, b"")

    def matching(self, start: str) -> str:
        """Digest of a document by its first digits; "": there is none."""
        return next((digest for digest in self._bodies if digest.startswith(start)), "")

    def add(self, digest: str, body: bytes, owner: str = "") -> None:  # noqa: ARG002 - one user
        """Store a document."""
        self._bodies[digest] = body


class LocalDevices:
    """A DeviceSource for submits, with the part of admission that resolves their options."""

    def __init__(self) -> None:
        self._registry = DeviceRegistry(config.devices_folder())
        self._documents = LocalDocuments()
        self._emulated = EmulatedDevices((), self._registry, self._documents)

    def device(self, name: str) -> DeviceInfo:
        """An emulated device. Raises NotFoundError, OptionError."""
        return _awaited(lambda: self._emulated.info(name))

    def devices(self) -> Mapping[str, DeviceInfo]:
        """Empty mapping: there are no pools."""
        return {}

    def store(self, document: bytes) -> str:
        """Store a noise document; return its digest in hexadecimal. Raises OptionError."""
        result = self._registry.check(document).result()
        self._documents.add(result.digest, result.body)
        return result.digest

    def resolved(self, terms: TaskOptions) -> tuple[TaskOptions, DeviceContext | None]:
        """Options with the digest of their noise document, and the limits that a circuit must meet.
        Raises OptionError, NotFoundError."""
        result = _awaited(lambda: self._emulated.resolved(terms))
        return result, _awaited(lambda: self._emulated.context(result))

    def document(self, terms: TaskOptions) -> NoiseDocument | None:
        """The noise document of resolved terms; None without noise."""
        if not terms.snapshot:
            return None
        return NoiseDocument(terms.snapshot, self._documents.body(terms.snapshot))


def _awaited(ask: Callable[[], T]) -> T:
    """Repeat the call until all files that it needs have been read."""
    while True:
        try:
            return ask()
        except DocumentPending as waiting:
            wait([waiting.future])


def circuit_ledger(
    circuit: Any,
    device: str,
    *,
    noise: Any = "on",
    compile: str = "auto",  # noqa: A002 - named as in `Client.submit`
) -> ErrorLedger:
    """Estimate the loss of a circuit's fidelity on a device, to first order, without a run.

    `circuit`, `noise` and `compile`: as for `Client.submit`. `device`: of the library, or one that
    `simenv devices import` made. Raises ProgramError, OptionError, NotFoundError, and
    InfeasibleError for a circuit that the device does not execute.
    """
    warmup.prepare(config.kernel_folder())
    local = LocalDevices()
    order = prepare_one(
        circuit, {"device": device, "noise": noise, "compile": compile}, SubmitDevices(local)
    )
    terms, limits = local.resolved(order.terms)
    stored = local.document(terms)
    assert stored is not None  # a device has a document
    program = decode_program(order.specs[0].program)
    packed = Circuit.from_program(program)
    if wrong := validation_error(packed):
        raise ProgramError(wrong)
    assert limits is not None
    try:
        found = acting(documents.load(stored.body), packed)
        document = found.document
        result = error_ledger(packed, document, NoiseOptions.parse(terms.noise))
        result = msgspec.structs.replace(result, outside_fit=found.outside)
    except (NoiseError, EngineError) as error:
        raise OptionError(f"noise: {error.message}", hint=error.hint) from error
    limits.examined(packed, profile(packed, terms.outputs, ()), terms)
    if not result.components:
        message = "no noise acts on this circuit"
        raise OptionError(message, hint="turn the noise on, or name another device")
    origin = getattr(document, "logical", None)  # of a calibration
    if origin is None:
        return result
    text = f"{origin.code} of distance {origin.distance} on {origin.chip}"
    return msgspec.structs.replace(result, logical=text)

"""An environment as a Qiskit BackendV2, its Targets, and the choice of a backend.

Targets of devices, cached by calibration, and the Target of an ideal pool. A Target of 156 qubits
takes a tenth of a second to make; backends of one calibration share it.
"""

from __future__ import annotations

import itertools
import operator
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Delay, Measure, Parameter, Reset, controlflow
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.primitives import BasePrimitiveJob
from qiskit.providers import BackendV2, Options, QubitProperties
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit.transpiler import Target

from simenv._version import __version__
from simenv.client.client import Client, connect
from simenv.client.reservations import Reservation
from simenv.client.submission.options import DEFAULTS, item_seeds, no_option
from simenv.client.submission.send import BatchItem, submit_batch
from simenv.client.tasks.task import Task
from simenv.frontends.qiskit.job import SimenvJob, disjoint, refusals
from simenv.model import MAX_QUBITS
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.model.options import BatchOptions
from simenv.transpiler.plugins import translation_plugin
from simenv.transpiler.transpiler import target_of

_KEPT = 16
_CONTROL_FLOW = {
    "if_else": controlflow.IfElseOp,
    "while_loop": controlflow.WhileLoopOp,
    "for_loop": controlflow.ForLoopOp,
    "switch_case": controlflow.SwitchCaseOp,
    "break_loop": controlflow.BreakLoopOp,
    "continue_loop": controlflow.ContinueLoopOp,
}
_NO_GATES = ("measure", "reset", "delay", "barrier")
_known: OrderedDict[tuple[str, str, bool], Target] = OrderedDict()
_lock = threading.Lock()


def device_target(info: DeviceInfo, *, fractional_gates: bool = False) -> Target:
    """Target of a calibrated device: gates, couplings, durations in seconds and errors. Without
    gates on two qubits one of which lacks another gate: Qiskit would place circuits there, and
    fail."""
    key = info.name, info.calibration_id, fractional_gates
    with _lock:
        result = _known.get(key) if info.calibration_id else None
        if result is None:
            complete = Availability(info).complete
            result = _known[key] = target_of(complete, fractional_gates=fractional_gates)
            if len(_known) > _KEPT:
                _known.popitem(last=False)
        _known.move_to_end(key)
        return result


def ideal_target(info: DeviceInfo) -> Target:
    """Target of an ideal pool, with any number of qubits and all pairs coupled: the gates of the
    pool that Qiskit knows, measurement, reset, delays and control flow."""
    target = Target(description=f"simenv pool {info.name}", num_qubits=None)
    standard = get_standard_gate_name_mapping()
    for gate in info.gates:
        if gate.name in standard and gate.name not in _NO_GATES:
            target.add_instruction(standard[gate.name])
    for instruction in (Measure(), Reset(), Delay(Parameter("t"))):
        target.add_instruction(instruction)
    for name, kind in _CONTROL_FLOW.items():
        target.add_instruction(kind, name=name)
    return target


def ideal_info(client: Client, pool: str | None) -> DeviceInfo:
    """Description of an ideal backend: the named pool, else the first simulator, else the first
    pool."""
    pools = client.devices()
    if pool is not None and pool in pools:
        return pools[pool]
    ideal = [info for info in pools.values() if info.kind is DeviceKind.IDEAL]
    return (ideal or list(pools.values()))[0]


_ENGINES = {
    "statevector": "statevector",
    **dict.fromkeys(("densitymatrix", "density_matrix"), "densitymatrix"),
    "stabilizer": "stabilizer",
    **dict.fromkeys(("tensornetwork", "tensor_network", "matrix_product_state"), "mps"),
}
_TYPES = {"simulator": None, "emulator": DeviceKind.EMULATED, "hardware": DeviceKind.HARDWARE}


class EngineSelection(NamedTuple):
    """Options of a submit that a type and a capability stand for."""

    engine: str = "auto"
    kind: DeviceKind | None = None  # kind of the pool's device; None: any


def selected(type_: str | None, capability: str | None) -> EngineSelection:
    """Engine and kind of device of a type and a capability. Raises ValueError for unknown words, or
    a machine with a simulator's capability."""
    kind, method = _word(type_), _word(capability)
    if kind is not None and kind not in _TYPES:
        raise ValueError(f"type={type_!r}: there are {', '.join(_TYPES)}")
    if method is not None and method not in _ENGINES:
        raise ValueError(f"capability={capability!r}: there are {', '.join(_ENGINES)}")
    if kind == "hardware" and method is not None:
        raise ValueError(f"capability={capability!r} is of simulators, and type='hardware'")
    engine = "auto" if method is None else _ENGINES[method]
    return EngineSelection(engine, None if kind is None else _TYPES[kind])


def _word(value: str | None) -> str | None:
    return None if value is None else str(value).strip().lower().replace("-", "_")


SHOTS = 1024
IDEAL_NAME = "simenv"
# Options of `Client.submit`.
_OF_RUN = (
    *("noise", "precision", "compile", "priority", "queue_timeout_s", "run_timeout_s", "account"),
    *("qos", "trace", "fractional_gates"),
)


class SimenvBackend(BackendV2):  # type: ignore[misc]  # qiskit is untyped
    """Runs circuits as tasks of an environment. Thread-safe, as its client is.

    Options of `run`, with their defaults: `shots` (1024; None: the default), `seed` (None: one is
    drawn; also as `seed_simulator`), `memory` (False), `noise` ("auto"; see `Client.submit`),
    `precision` ("double"), `compile` ("auto": a circuit that does not fit the device is compiled,
    once a structure), `fractional_gates` (False; True: the Target has them, and circuits are
    compiled to them where they are cheaper),
    `engine_options` (None; `options` of `Client.submit`, such as {"twirl": 1}),
    `priority` (0; higher runs first), `queue_timeout_s` and `run_timeout_s` (None; seconds of
    waiting and of running after which a circuit ends as expired), `account` and `qos` (None;
    account and class of service: the defaults of the user),
    `trace` (None; the W3C traceparent that the tasks continue; see `Client.submit`).
    """

    def __init__(
        self,
        device: str | None = None,
        env: Client | str | None = None,
        *,
        type: str | None = None,  # noqa: A002 - named as in QFw's backend
        capability: str | None = None,
        pool: str | None = None,
        engine: str | None = None,
        **options: Any,
    ) -> None:
        """Choose a device or pool. `device`: an emulated device by name, or the pool of a device;
        None: an ideal one. `env`: a client; a name, or None: `simenv.connect(env)`, closed by
        `close`. `type`: simulator, emulator or hardware; `capability`: a method of simulation,
        such as "statevector"; `pool`: the only pool; `engine`: an engine by name. `options`:
        defaults of `run`.

        Raises NoServiceError without an environment, NotFoundError for an unknown device,
        QiskitBackendNotFoundError if there is no pool of that type, ValueError for an unknown type
        or capability, AttributeError for an unknown option.
        """
        choice = selected(type, capability)
        if not options.keys() <= (known := dict(self._default_options().items())).keys():
            raise AttributeError(no_option(options, known))
        self._own = not isinstance(env, Client)
        self._client = env if isinstance(env, Client) else connect(env)
        self._device, self._pool, self._kind = device, pool, choice.kind
        self._engine = engine or choice.engine
        self._reservation: Reservation | None = None
        self._key = ""  # of `keyed`
        self._keys: Iterator[str] | None = None  # idempotency keys of submissions
        self._accepted: deque[Task] = deque()  # of an earlier submission with these keys
        self._unfinished: list[Task] = []  # under the reservation; copies share it and its lock
        # Jobs that submit in threads of their own.
        self._submitting: list[BasePrimitiveJob[Any, Any]] = []
        self._lock = threading.Lock()
        self._info = self._described()
        self._ideal: Target | None = None  # of an ideal pool
        super().__init__(
            name=self._device or device or pool or IDEAL_NAME,
            description=f"{self._info.technology} {self._info.model} of a simenv environment",
            backend_version=self._info.version or __version__,
        )
        if options:
            self.set_options(**options)

    @classmethod
    def _default_options(cls) -> Options:
        return Options(
            shots=SHOTS,
            seed=None,
            seed_simulator=None,
            memory=False,
            engine_options=None,
            **{name: DEFAULTS[name] for name in _OF_RUN},
        )

    def _described(self) -> DeviceInfo:
        """Description of the device or pool that runs the circuits."""
        if self._device is not None:
            if self._device not in self._client.pools():
                info = self._client.device(self._device)
                self._device = info.name  # fez, for FakeFez
                return info
            self._device, self._pool = None, self._device
        if self._kind is None or self._pool is not None:
            return ideal_info(self._client, self._pool)
        pools = self._client.devices()
        for info in pools.values():
            if info.kind is self._kind:
                self._pool = info.name
                return info
        text = f"environment {self._client.name!r} has no pool of {self._kind} kind; there are"
        text += f" {', '.join(pools)}"
        raise QiskitBackendNotFoundError(text)

    @property
    def client(self) -> Client:
        """Client of the environment."""
        return self._client

    @property
    def info(self) -> DeviceInfo:
        """Description of the device or pool at the time when this backend was made."""
        return self._info

    @property
    def target(self) -> Target:
        """Target with gates, couplings, durations in seconds and errors; of an ideal pool any
        width."""
        if self._info.kind is not DeviceKind.IDEAL:
            fractional = bool(self.options.fractional_gates)
            return device_target(self._info, fractional_gates=fractional)
        if self._ideal is None:
            self._ideal = ideal_target(self._info)
        return self._ideal

    def get_translation_stage_plugin(self) -> str | None:
        """Name of the plugin with which Qiskit's `transpile` translates for this backend; None for
        gates without angles: Qiskit has other stages for Clifford and T gates, and takes no name
        there."""
        if self._device is not None and self._info.is_discrete:
            return None
        own = translation_plugin(self.target) if self._device is not None else ""
        return own or "translator"

    @property
    def num_qubits(self) -> int:
        """Qubits of the device; of an ideal pool, whose Target has no limit, the largest number of
        qubits of a program."""
        return self.target.num_qubits or MAX_QUBITS

    def qubit_properties(
        self, qubit: int | Sequence[int]
    ) -> QubitProperties | list[QubitProperties]:
        """T1 and T2 in seconds and frequency in Hz of a qubit, or of each of several; None where
        nothing was measured. Raises what BackendV2 does for a pool without calibrated qubits, and
        IndexError for a qubit that the device does not have."""
        calibrated = self.target.qubit_properties
        if calibrated is None:
            return super().qubit_properties(qubit)
        if isinstance(qubit, Sequence):
            return [calibrated[each] for each in self._checked_qubits(qubit)]
        return calibrated[self._checked_qubits([qubit])[0]]

    def _checked_qubits(self, qubits: Iterable[int]) -> list[int]:
        checked = [operator.index(qubit) for qubit in qubits]
        if absent := [qubit for qubit in checked if not 0 <= qubit < self.num_qubits]:
            raise IndexError(f"qubit {absent[0]}: {self.name!r} has 0 to {self.num_qubits - 1}")
        return checked

    @property
    def is_emulated(self) -> bool:
        """True if circuits run with the noise of a device."""
        return self._info.kind is not DeviceKind.IDEAL

    @property
    def simulator(self) -> bool:
        """True if circuits are not bound to a device's gates and couplings, as in other
        backends."""
        return not self.is_emulated

    @property
    def max_circuits(self) -> None:
        """None: no limit, because a long list is sent in several messages."""
        return None

    @property
    def pool(self) -> str | None:
        """Pool of all circuits; None: any."""
        return self._pool

    def reserved(self, reservation: Reservation) -> SimenvBackend:
        """Copy of the backend whose circuits run under a reservation."""
        built = self.__copy__()
        built._reservation = reservation
        built._unfinished, built._submitting, built._lock = [], [], threading.Lock()
        return built

    def keyed(self, key: str, accepted: Iterable[Task] = ()) -> SimenvBackend:
        """Copy of the backend for one call of a primitive, which may be repeated in any process:
        its submissions have idempotency keys, and its job the number `key`. `accepted`: tasks of an
        earlier call, in their order, which are not sent again. The seed of the call must be the
        same each time."""
        built = self.__copy__()
        built._key, built._accepted = key, deque(accepted)
        built._keys = (f"{key}/{number}" for number in itertools.count())
        return built

    def new_job_id(self) -> str:
        """Number of a new job: that of `keyed`, else a random one."""
        return self._key or str(uuid.uuid4())

    def __copy__(self) -> SimenvBackend:
        """Backend with options of its own, over the same connection."""
        built = SimenvBackend.__new__(SimenvBackend)
        built.__dict__.update(self.__dict__)
        built._options = Options(**dict(self.options.items()))
        built._own = False
        return built

    def __deepcopy__(self, memo: dict[int, Any]) -> SimenvBackend:
        """Copy as `__copy__`: qiskit-ibm-runtime copies backends, and a connection is not
        copied."""
        return self.__copy__()

    def run(
        self,
        run_input: QuantumCircuit | Sequence[QuantumCircuit],
        *,
        parameter_binds: Mapping[Any, Any] | Sequence[Mapping[Any, Any]] | None = None,
        **options: Any,
    ) -> SimenvJob:
        """Run one circuit or many: one job, whose result has one entry for each circuit and each
        set of its values.

        `parameter_binds`: for each circuit a mapping from parameter to a list of values; one
        mapping for one circuit. `options`: see the class.

        Raises TypeError for an argument that is no circuit or an unknown option, ValueError for
        values that do not match, QiskitError for a circuit that the environment does not run. No
        circuit is accepted then.
        """
        several = isinstance(run_input, Iterable) and not isinstance(run_input, QuantumCircuit)
        circuits: list[Any] = list(run_input) if several else [run_input]
        for circuit in circuits:
            if not isinstance(circuit, QuantumCircuit):
                raise TypeError(f"run() got a {type(circuit).__name__}, and takes QuantumCircuits")
        chosen = self._chosen(options)
        memory = bool(chosen.pop("memory"))
        binds = _binds(parameter_binds, len(circuits))
        values = [_rows(circuit, bound) for circuit, bound in zip(circuits, binds, strict=True)]
        job_id = self.new_job_id()
        name = f"qiskit-{job_id[:8]}"  # in `simenv queue`
        outputs = ("counts", "memory") if memory else ("counts",)
        with refusals():
            seeds = item_seeds(chosen.pop("seed"), len(circuits), None)
            items = [
                BatchItem(
                    disjoint(circuit),
                    self.submit_options(outputs=outputs, seed=seed, name=name, **chosen),
                    rows,
                )
                for circuit, seed, rows in zip(circuits, seeds, values, strict=True)
            ]
            tasks = self.submitted(items)
        return SimenvJob(self, job_id, circuits, tasks, dict(chosen, memory=memory))

    def submitted(self, items: Sequence[BatchItem]) -> list[list[Task]]:
        """Submit items; return the tasks of each. Raises SimenvError; then none was accepted."""
        if self._accepted:
            rows = [1 if item.values is None else len(item.values) for item in items]
            return [[self._accepted.popleft() for _ in range(count)] for count in rows]
        key = None if self._keys is None else next(self._keys)
        result = submit_batch(self._client.session, self._client.submit_devices, items, key)
        if self._reservation is not None:
            with self._lock:
                self._unfinished[:] = [task for task in self._unfinished if not task.done()]
                self._unfinished += [task for tasks in result for task in tasks]
        return result

    def wait_for(self, job: BasePrimitiveJob[Any, Any]) -> None:
        """Make `wait` also wait for a job that submits in its own thread."""
        if self._reservation is not None:
            with self._lock:
                self._submitting.append(job)

    def wait(self) -> None:
        """Wait for the tasks that were submitted under a reservation. Raises ServiceLostError."""
        with self._lock:
            jobs, self._submitting[:] = list(self._submitting), []
        for job in jobs:
            with suppress(Exception):  # its `result` raises the error
                job.result()
        with self._lock:
            tasks = list(self._unfinished)
        for task in tasks:
            task.wait()

    def submit_options(self, **options: Any) -> BatchOptions:
        """Options of a submit: the arguments, and this backend's device, pool and engine."""
        entries: dict[str, Any] = {
            "device": self._device,
            "pool": self._pool,
            "engine": self._engine,
            "reservation": self._reservation,
            **options,
        }
        entries["options"] = entries.pop("engine_options", None)
        return entries  # type: ignore[return-value]

    def primitive_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `run` that primitives share (all but shots, seeds and memory), with the given
        ones in place of the backend's. Raises TypeError for others."""
        own = ("shots", "seed", "seed_simulator", "memory")
        shared = {name: value for name, value in self.options.items() if name not in own}
        if not options.keys() <= shared.keys():
            raise TypeError(no_option(options, shared))
        return {**shared, **options}

    def _chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        defaults = dict(self.options.items())
        if not options.keys() <= defaults.keys():
            raise TypeError(f"run(): {no_option(options, defaults)}")
        chosen = {**defaults, **options}
        chosen.pop("seed_simulator")
        named = [
            options[name] for name in ("seed", "seed_simulator") if options.get(name) is not None
        ]
        if len(set(named)) > 1:
            raise ValueError(f"seed={named[0]!r} and seed_simulator={named[1]!r}: give one")
        chosen["seed"] = named[0] if named else self.default_seed
        if chosen["shots"] is None:  # as for Aer's backends
            chosen["shots"] = defaults["shots"] or SHOTS
        elif chosen["shots"] == 0:
            raise ValueError("shots=0: run() takes 1 or more; SimenvEstimator gives exact values")
        return chosen

    @property
    def default_seed(self) -> int | None:
        """Seed of runs without one: the option `seed`, else `seed_simulator`."""
        options = self.options
        seed: int | None = options.seed_simulator if options.seed is None else options.seed
        return seed

    def close(self) -> None:
        """Close the connection, if this backend made it."""
        if self._own:
            self._client.close()

    def __repr__(self) -> str:
        return f"<SimenvBackend {self.name!r} of {self._client.name}>"


def _binds(parameter_binds: Any, circuits: int) -> list[Mapping[Any, Any] | None]:
    if parameter_binds is None:
        return [None] * circuits
    binds = [parameter_binds] if isinstance(parameter_binds, Mapping) else list(parameter_binds)
    if len(binds) != circuits:
        raise ValueError(f"{len(binds)} parameter_binds for {circuits} circuits: one for each")
    return binds


def _rows(circuit: QuantumCircuit, bound: Mapping[Any, Any] | None) -> NDArray[np.float64] | None:
    """Parameter values of a circuit, float64 [K, parameters], in the order of
    `circuit.parameters`."""
    if not bound:
        if circuit.num_parameters:
            text = f"circuit {circuit.name!r} has {circuit.num_parameters} parameters without a"
            text += " value: give parameter_binds"
            raise ValueError(text)
        return None
    named = {str(getattr(key, "name", key)): values for key, values in bound.items()}
    names = [parameter.name for parameter in circuit.parameters]
    if set(named) != set(names):
        raise ValueError(
            f"parameter_binds of {circuit.name!r} name {', '.join(sorted(named))}; its parameters"
            f" are {', '.join(names) or 'none'}"
        )
    columns = [np.atleast_1d(np.asarray(named[name], np.float64)) for name in names]
    if any(column.ndim != 1 or column.size != columns[0].size for column in columns):
        raise ValueError(f"parameter_binds of {circuit.name!r}: lists of different lengths")
    return np.column_stack(columns)

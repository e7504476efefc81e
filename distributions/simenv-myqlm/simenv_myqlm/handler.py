"""myQLM's objects as records and back: the only module that imports qat, inside its functions.

Written from myQLM's public documentation and from its modules that are published under the Apache
licence. Nothing of myQLM is installed where simenv is tested, so no test of simenv runs this
module against the real classes: `scripts/check_myqlm.py` does, for those who have a licence.
"""

from __future__ import annotations

import threading
import warnings
from functools import cache
from typing import Any

from simenv_myqlm.errors import MissingMyQLMError, UnsupportedError
from simenv_myqlm.gateway import GatewayConnection
from simenv_myqlm.hardware import HardwareModel, KrausChannel, snapshot_of
from simenv_myqlm.programs import GATES, base_of
from simenv_myqlm.pulses import pulse_job
from simenv_myqlm.records import (
    Break,
    Circuit,
    Gate,
    Instruction,
    Job,
    Logic,
    Matrix,
    Measure,
    Observable,
    PulseJob,
    Reset,
    Result,
    Term,
)
from simenv_myqlm.runner import Runner

_LICENCE = (
    "install myqlm in this environment yourself, if its licence (Bull myQLM EULA) permits your use;"
    " simenv neither installs nor distributes it"
)
_GATE = 0  # the type of an operation that is a gate
_CLASSICAL = ("MEASURE", "RESET", "CLASSIC", "BREAK", "CLASSICCTRL")
_PLACEHOLDERS = ("LOCK", "RELEASE")  # of ancillas; they run nothing
_IDLE = {"T_1": ("T_1", "T1", "t1"), "T_phi": ("T_phi", "Tphi", "t_phi")}  # attributes of channels
_CONNECTION = ("url", "token", "token_file", "ca_file", "request_s", "retry_s")


def _missing(error: ImportError) -> MissingMyQLMError:
    return MissingMyQLMError(f"myQLM cannot be imported: {error}", _LICENCE)


@cache
def qpu_class() -> type[Any]:
    """Return the class SimenvQPU, whose base is myQLM's. Raises MissingMyQLMError."""
    try:
        from qat.core.qpu import QPUHandler
    except ImportError as error:
        raise _missing(error) from error

    class SimenvQPU(QPUHandler):  # type: ignore[misc]  # qat has no types
        """A QPU that runs circuits in an environment of simenv, over HTTP.

        `url`, `token`, `token_file`, `ca_file`, `request_s`, `retry_s`: see GatewayConnection; all
        others, such as device, pool, noise, seed or amplitudes: see Runner. A batch is sent as a
        whole: jobs that differ in angles alone are one sweep. Raises SimenvQPUError."""

        def __init__(self, **options: Any) -> None:
            super().__init__()
            where = {name: options.pop(name) for name in _CONNECTION if name in options}
            self._runner = Runner(GatewayConnection(**where), **options)
            # Of each thread: a served handler runs batches of several callers at a time.
            self._prepared = threading.local()

        def submit(self, batch: Any, meta_data: Any = None) -> Any:
            """Run a batch, or a job; return myQLM's BatchResult, or its Result."""
            records = [record_of(job) for job in getattr(batch, "jobs", None) or [batch]]
            # The base asks `submit_job` for each; what it adds to jobs and results stays its own.
            results = self._runner.run(records)
            self._prepared.results = list(zip(records, results, strict=True))
            try:
                return (
                    super().submit(batch) if meta_data is None else super().submit(batch, meta_data)
                )
            finally:
                del self._prepared.results

        def submit_job(self, job: Any) -> Any:
            """Return the Result of one job."""
            record = record_of(job)
            results: list[tuple[Job | PulseJob, Result]] = getattr(self._prepared, "results", [])
            for index, (prepared, result) in enumerate(results):
                if prepared == record:
                    del results[index]
                    return result_of(result)
            return result_of(self._runner.run([record])[0])

    SimenvQPU.__module__, SimenvQPU.__qualname__ = "simenv_myqlm", "SimenvQPU"
    return SimenvQPU


def record_of(job: Any) -> Job | PulseJob:
    """Return a myQLM job as a record. Raises UnsupportedError, MissingMyQLMError."""
    try:
        from qat.comm.shared.ttypes import ProcessingType
    except ImportError as error:
        raise _missing(error) from error
    if getattr(job, "circuit", None) is None:
        schedule = getattr(job, "schedule", None)
        if schedule is None:
            hint = "circuits and Pulser sequences run; annealing does not: see the guide"
            raise UnsupportedError("the job has neither a circuit nor a schedule", hint)
        return pulse_job(getattr(schedule, "_other", None), int(job.nbshots or 0))
    if getattr(job, "psi_0", None) not in (None, ""):
        raise UnsupportedError("the job has an initial state psi_0", "prepare it by gates")
    if job.type == ProcessingType.OBSERVABLE:
        observable = _observable(job.observable)
    elif job.type == ProcessingType.SAMPLE:
        observable = None
    else:
        raise UnsupportedError(f"the job has the type {job.type}", "SAMPLE or OBS")
    return Job(
        _circuit(job.circuit),
        int(job.nbshots or 0),
        None if job.qubits is None else tuple(map(int, job.qubits)),
        observable,
        aggregate=job.aggregate_data is not False,
        amp_threshold=float(job.amp_threshold or 0.0),
        threshold=float(getattr(job, "threshold", None) or 0.0),
    )


def _observable(observable: Any) -> Observable:
    if observable is None or getattr(observable, "_ising", None) is not None:
        raise UnsupportedError(
            "the observable is no sum of Pauli terms", "Observable(n, pauli_terms=...)"
        )
    terms = tuple(
        Term(complex(term.coeff), str(term.op), tuple(map(int, term.qbits)))
        for term in observable.terms
    )
    return Observable(terms, complex(observable.constant_coeff or 0.0))


def _circuit(circuit: Any) -> Circuit:
    from qat.comm.datamodel.ttypes import OpType

    kinds = {int(getattr(OpType, name)): name for name in (*_CLASSICAL, *_PLACEHOLDERS)
             if hasattr(OpType, name)}  # fmt: skip
    instructions: list[Instruction] = []
    for op in circuit:  # with the gates of its routines
        kind = kinds.get(int(op.type), "")
        qubits, cbits = tuple(map(int, op.qbits or ())), tuple(map(int, op.cbits or ()))
        if kind == "MEASURE":
            instructions.append(Measure(qubits, cbits))
        elif kind == "RESET":
            instructions.append(Reset(qubits, cbits))
        elif kind == "CLASSIC":
            instructions.append(Logic(str(op.formula), cbits[0]))
        elif kind == "BREAK":
            instructions.append(Break(str(op.formula)))
        elif kind == "CLASSICCTRL":
            formula = str(op.formula or "")
            name, params, matrix = _gate(op, circuit)
            controls = () if formula else cbits
            instructions.append(Gate(name, params, qubits, matrix, controls, formula))
        elif int(op.type) == _GATE:
            name, params, matrix = _gate(op, circuit)
            instructions.append(Gate(name, params, qubits, matrix))
        elif kind not in _PLACEHOLDERS:
            raise UnsupportedError(f"instruction {len(instructions)} has the type {op.type}")
    return Circuit(int(circuit.nbqbits), tuple(instructions))


def _gate(op: Any, circuit: Any) -> tuple[str, tuple[float | str, ...], Matrix | None]:
    """Return name, angles and matrix of the gate of an operation."""
    from qat.core.util import extract_syntax

    definition = circuit.gateDic[op.gate]
    inner, controls = definition, 0
    while inner.is_ctrl or inner.nbctrls:
        controls += inner.nbctrls or 1
        inner = circuit.gateDic[inner.subgate]
    try:
        name, params = extract_syntax(definition, circuit.gateDic)
    except (AttributeError, KeyError, TypeError, ValueError):  # a gate of a matrix alone
        name, params = str(op.gate), []
    matrix = None if inner.matrix is None else _matrix(inner.matrix)
    base, _, _ = base_of(str(name))
    if base not in GATES and matrix is not None:
        name = "C-" * controls + base  # a dagger has a matrix of its own
    return str(name), tuple(map(_parameter, params)), matrix


def _parameter(value: Any) -> float | str:
    """Return an angle, or the text of an expression of free variables."""
    if callable(getattr(value, "get_variables", None)) and value.get_variables():
        return str(value)
    for attribute in ("double_p", "int_p"):  # of a parameter as it is stored
        if (number := getattr(value, attribute, None)) is not None:
            return float(number)
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _matrix(matrix: Any) -> Matrix:
    """Return the rows of a matrix, which is stored as a list of entries."""
    entries = [complex(entry.re, entry.im) for entry in matrix.data]
    columns = int(matrix.nCols)
    return tuple(
        tuple(entries[start : start + columns]) for start in range(0, len(entries), columns)
    )


def result_of(record: Result) -> Any:
    """Return a record as myQLM's Result."""
    from qat.comm.datamodel.ttypes import ComplexNumber
    from qat.comm.shared.ttypes import IntermediateMeasurement
    from qat.core import Result as MyQLMResult
    from qat.core.wrappers.result import Sample

    result = MyQLMResult()
    result.raw_data, result.meta_data = [], dict(record.meta_data)
    if record.value is not None:
        result.value, result.error = record.value, record.error
        return result
    for each in record.samples:
        before = [
            IntermediateMeasurement(
                gate_pos=one.gate_pos, cbits=list(one.cbits), probability=one.probability
            )
            for one in each.intermediate_measurements
        ]
        amplitude = None
        if each.amplitude is not None:
            amplitude = ComplexNumber(re=each.amplitude.real, im=each.amplitude.imag)
        sample = Sample(
            state=each.state, probability=each.probability, amplitude=amplitude,
            intermediate_measurements=before,
        )  # fmt: skip
        if each.err is not None:
            sample.err = each.err
        result.raw_data.append(sample)
    return result


def device_of(model: Any, name: str, num_qubits: int, **more: Any) -> dict[str, Any]:
    """Return a HardwareModel of Qaptiva as a snapshot that `simenv devices import` reads. `more`:
    coupling, readout_error; see `hardware.HardwareModel`. What a snapshot cannot keep is a
    UserWarning. Raises UnsupportedError."""
    record = _hardware(model, num_qubits, **more)
    for remark in record.remarks:
        warnings.warn(remark, stacklevel=2)
    return snapshot_of(record, name)


def _hardware(model: Any, num_qubits: int, **more: Any) -> HardwareModel:
    specification = model.gates_specification
    times = {
        str(gate): _constant(time, f"the time of gate {gate!r}")
        for gate, time in dict(specification.gate_times or {}).items()
    }
    noise: dict[str, KrausChannel] = {}
    for gate, channel in dict(model.gate_noise or {}).items():
        if isinstance(channel, dict):
            hint = "one channel for all qubits, or import a snapshot with values of each qubit"
            raise UnsupportedError(f"gate {gate!r} has noise of single qubits", hint)
        noise[str(gate)] = _kraus(channel, str(gate))
    found: dict[str, float] = {}
    for each in model.idle_noise or ():
        known = _idle(each) or (_idle(each()) if callable(each) else {})
        if not known:
            hint = "ParametricAmplitudeDamping and ParametricPureDephasing"
            raise UnsupportedError(f"the idle noise {type(each).__name__}", hint)
        found |= known
    return HardwareModel(num_qubits, times, noise, found.get("T_1"), found.get("T_phi"), **more)


def _idle(channel: Any) -> dict[str, float]:
    """Return the time of an idle channel by its name; nothing of another channel or function."""
    for name, attributes in _IDLE.items():
        for attribute in attributes:
            if (value := getattr(channel, attribute, None)) is not None:
                return {name: float(value)}
    return {}


def _constant(time: Any, what: str) -> float:
    """Return a time that does not depend on an angle."""
    if not callable(time):
        return float(time)
    values = {float(time(angle)) for angle in (0.1, 1.0, 3.0)}
    if len(values) > 1:
        raise UnsupportedError(f"{what} depends on the angle", "a number")
    return values.pop()


def _kraus(channel: Any, gate: str) -> KrausChannel:
    made = channel
    if callable(channel) and not hasattr(channel, "kraus_operators"):
        try:
            made = channel()
        except TypeError:  # of a gate with an angle
            made = channel(0.1)
    operators = getattr(made, "kraus_operators", None)
    if operators is None:
        raise UnsupportedError(
            f"the noise of gate {gate!r} has no Kraus operators", "QuantumChannelKraus"
        )
    return KrausChannel(
        tuple(tuple(tuple(map(complex, row)) for row in each) for each in operators)
    )

"""Results of tasks, and the check of results that arrive damaged.

A result has its provenance and the settings that reproduce it. The data stay packed as the worker
sent them; dictionaries and arrays are made when they are first read. Read-only.

Damage is detected by a checksum, and the result is fetched again. The service checks its stored
copy. If that is intact, it is sent again; else the task runs again, which gives the same bits.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from simenv import result_files
from simenv.client import result_data, result_display
from simenv.client.result_data import (
    DecodedResult,
    Provenance,
    ProvenanceSource,
    ResultSource,
    Stages,
)
from simenv.errors import NotFoundError, OptionError, StoreError
from simenv.model import DeviceRecord, ResultData, task_name
from simenv.model.task import AmplitudeResultData
from simenv.text import run_time
from simenv.wire.messages.queries import VerifyResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simenv.model.accounts import Receipt
    from simenv.wire.messages.client import Completion

_IDEAL = DeviceRecord("", "")


class Result(msgspec.Struct, eq=False, gc=False):
    """The result of one task, or of one binding of it: row `row` of the decoded result. Raises
    OptionError when an output is read that was not requested in `outputs`. A subclass whose fields
    may close a reference cycle needs `gc=True`; its copies are of this class."""

    _decoded: DecodedResult
    _provenance_source: ProvenanceSource
    _row: int = 0
    _counts: dict[str, int] | None = None
    _probabilities: dict[str, float] | None = None

    @property
    def _data(self) -> AmplitudeResultData:
        return self._decoded.data

    @property
    def _provenance(self) -> Provenance:
        return self._provenance_source.provenance()

    @property
    def counts(self) -> dict[str, int]:
        """Shots by outcome: clbit 0 rightmost, last register leftmost, one space between."""
        result = self._counts
        if result is None:
            decoded = self._decoded
            data = decoded.data
            if not data.counts:
                self._require(decoded.has("counts"), "counts")
            rows, packed_counts = decoded.counts(self._row)
            result = result_data.counts(rows, data.outcome_width, packed_counts, data.registers)
            self._counts = result
        return result

    @property
    def probabilities(self) -> dict[str, float]:
        """Exact probability by outcome; impossible outcomes are left out. Keys as in `counts`; if
        the circuit measures nothing, qubit 0 is rightmost."""
        if self._probabilities is None:
            data = self._data
            self._require(self._decoded.has("probabilities"), "probabilities")
            rows, values = self._decoded.probabilities(self._row)
            registers = data.registers or (("", data.num_qubits),)
            self._probabilities = result_data.probabilities(
                rows, data.probability_width, values, registers
            )
        return self._probabilities

    @property
    def statevector(self) -> NDArray[np.complexfloating[Any, Any]]:
        """complex128 (complex64 in single precision) [2**num_qubits]; qubit 0: lowest index bit."""
        self._require(self._decoded.has("statevector"), "statevector")
        return self._decoded.statevector(self._row)

    @property
    def amplitudes(self) -> dict[str, complex]:
        """Amplitude of each requested bit string, in their order; the highest qubit leftmost."""
        self._require(self._decoded.has("amplitudes"), "amplitudes")
        strings, values = self._decoded.amplitudes(self._row)
        return dict(zip(strings, values.tolist(), strict=True))

    @property
    def expectation(self) -> float:
        """The expectation value of the only observable."""
        values = self.expectations
        if len(values) != 1:
            hint = "read .expectations"
            raise OptionError(f"this result has {len(values)} expectation values", hint=hint)
        return values[0]

    @property
    def expectations(self) -> tuple[float, ...]:
        """Expectation value of each observable, in order."""
        self._require(self._decoded.has("expectations"), "expectation")
        return tuple(self._decoded.estimates(self._row)[0::2])

    @property
    def std_errors(self) -> tuple[float, ...]:
        """Standard error of each expectation value; 0.0 if it is exact."""
        self._require(self._decoded.has("expectations"), "expectation")
        return tuple(self._decoded.estimates(self._row)[1::2])

    @property
    def gradients(self) -> NDArray[np.float64]:
        """float64 [observables, parameters]: derivatives by each of `circuit.parameters`."""
        self._require(self._decoded.has("gradients"), "gradient")
        return self._decoded.gradients(self._row)

    @property
    def gradient(self) -> NDArray[np.float64]:
        """float64 [parameters]: gradient of the only observable."""
        result = self.gradients
        if len(result) != 1:
            hint = "read .gradients"
            raise OptionError(f"this result has gradients of {len(result)} observables", hint=hint)
        only: NDArray[np.float64] = result[0]
        return only

    @property
    def outcomes(self) -> NDArray[np.unsignedinteger[Any]]:
        """Distinct outcomes, ascending: uint8/16/32/64 [k], or uint8 [k, width] beyond 64 clbits.
        Clbit 0 is bit 0; in wide rows bit 0 of byte 0."""
        self._require(self._decoded.has("counts"), "counts")
        return result_files.outcomes(self._decoded.counts(self._row)[0], self._data.outcome_width)

    @property
    def outcome_counts(self) -> NDArray[np.uint32]:
        """uint32 [k]: number of shots of each of `outcomes`."""
        self._require(self._decoded.has("counts"), "counts")
        return result_files.array_of(self._decoded.counts(self._row)[1], "<u4")

    @property
    def memory(self) -> NDArray[np.uint8]:
        """Bits of each shot, in order: uint8 [shots, ceil(clbits / 8)]. Clbit c is bit c % 8 of
        byte c // 8; `registers` follow one another from clbit 0."""
        import numpy as np

        self._require(self._decoded.has("memory"), "memory")
        packed = np.frombuffer(self._decoded.memory(self._row), np.uint8)
        return packed.reshape(self._data.shots, -1)

    def memory_strings(self) -> list[str]:
        """Return the outcome of each shot, in order, with keys as in `counts`."""
        memory = self.memory
        return result_data.strings(memory.data.cast("B"), memory.shape[1], self._data.registers)

    @property
    def value(self) -> bytes:
        """Packed return value of a call, see `simenv.model.calls`; `Client.call` decodes it."""
        if not self._decoded.has("value"):
            raise OptionError(f"task {self.task} has no value", hint="it ran a circuit, not a call")
        return bytes(self._decoded.packed("value"))

    @property
    def registers(self) -> tuple[tuple[str, int], ...]:
        """Classical registers (name, size), the first from clbit 0; bits outside registers come
        last, as a register without a name. Empty if the circuit measures nothing."""
        return self._data.registers

    @property
    def task(self) -> str:
        """Id of the task; with the row if the task has several bindings: `t-8k2f.17`."""
        task = self._provenance.task
        return task if self._data.count == 1 else f"{task}.{self._row}"

    @property
    def name(self) -> str:
        """The name given at submission, or ""."""
        return self._provenance.name

    @property
    def shots(self) -> int:
        """Number of shots; 0: exact."""
        return self._data.shots

    @property
    def seed(self) -> int:
        """The seed; program, shots, engine, seed and `binding_index` determine the counts."""
        return self._data.seed

    @property
    def binding_index(self) -> int:
        """Index of its binding in the sweep: a part of the random key."""
        return self._data.binding + self._row

    @property
    def engine(self) -> str:
        """The engine that ran the task; `auto` was resolved at acceptance."""
        return self._provenance.engine

    @property
    def engine_reason(self) -> str:
        """The reason for the choice of this engine."""
        return self._provenance.route

    @property
    def precision(self) -> str:
        """double (complex128) or single (complex64)."""
        return self._data.precision

    @property
    def options(self) -> dict[str, float]:
        """Options of the engine that were given."""
        return dict(self._data.options)

    @property
    def _device(self) -> DeviceRecord:
        return self._data.device or _IDEAL

    @property
    def device(self) -> str | None:
        """The emulated device with its noise; None: an ideal device, or a noise model alone."""
        return self._device.name or None

    @property
    def snapshot(self) -> str | None:
        """Digest of the calibration or noise model, in hexadecimal; None: no noise."""
        return None if self._data.device is None else self._data.device.snapshot

    @property
    def calibrated(self) -> str | None:
        """Date of the calibration that acted, or of the day whose fit did; ISO 8601, UTC. None: not
        known."""
        calibrated_s = self._device.calibrated_s
        return datetime.fromtimestamp(calibrated_s, UTC).isoformat() if calibrated_s else None

    @property
    def snapshot_age_s(self) -> float | None:
        """Seconds from the calibration until now; None if its time is unknown."""
        calibrated_s = self._device.calibrated_s
        return time() - calibrated_s if calibrated_s else None

    @property
    def noise(self) -> dict[str, float]:
        """Factors of the noise components that were given; empty: all as calibrated."""
        return dict(self._device.noise)

    @property
    def compiled(self) -> str | None:
        """Compiler, level and seed; None: the circuit ran as it was written."""
        return self._device.compiled or None

    @property
    def calibration_stale(self) -> bool:
        """True if the circuit was compiled for another calibration than the one at its start."""
        return self._device.stale

    @property
    def outside_fit(self) -> tuple[str, ...]:
        """What the circuit has that no circuit of the device's fit had, for which the calibration
        before the fit acted; (): the device's own calibration did."""
        return self._device.outside_fit

    @property
    def layout(self) -> tuple[int, ...] | None:
        """The device's qubit of each circuit qubit, at its end; None: the same numbers."""
        return _qubits(self._device.layout)

    @property
    def initial_layout(self) -> tuple[int, ...] | None:
        """The device's qubit of each circuit qubit, at its beginning; None: the same numbers."""
        return _qubits(self._device.initial_layout)

    @property
    def gates(self) -> dict[str, int] | None:
        """Number of gates that ran on the device, by name; None without a device."""
        return None if self._data.device is None else dict(self._data.device.gates)

    @property
    def pairs(self) -> dict[str, int] | None:
        """Number of Bell pairs that a shot makes on each link, by its qubits, such as "a.0-b.0";
        those in loops once. None: the device is one QPU."""
        record = self._device
        return {use.link: use.pairs for use in record.links} if record.modules else None

    @property
    def modules(self) -> tuple[str, ...] | None:
        """Module of each circuit qubit, at its beginning; None: the device is one QPU."""
        return self._device.modules or None

    @property
    def wait_s(self) -> float | None:
        """Mean wait for all pairs of a shot, one after the other, in seconds; None: the device is
        one QPU."""
        record = self._device
        waits_ns = sum(use.pairs * use.wait_ns for use in record.links)
        return 1e-9 * waits_ns if record.modules else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Requested noise that was not applied as given; usually empty."""
        return self._device.warnings

    @property
    def device_time_s(self) -> float | None:
        """Seconds of the task on its device, all bindings together; None: unknown."""
        return self.timing.device_s or None

    @property
    def node(self) -> str:
        """The node on which the task ran."""
        return self._provenance.origin.node

    @property
    def worker(self) -> str:
        """The worker that ran the task."""
        return self._provenance.origin.worker

    @property
    def version(self) -> str:
        """Version of the worker."""
        return self._provenance.origin.version

    @property
    def ranks(self) -> int:
        """Number of MPI ranks that ran the task together."""
        return self._provenance.origin.ranks

    @property
    def slots(self) -> int:
        """Number of slots granted to the task."""
        return self._provenance.slots

    @property
    def attempts(self) -> int:
        """Number of attempts; 1: the first one succeeded."""
        return self._provenance.attempts

    @property
    def num_qubits(self) -> int:
        """Number of qubits of the circuit, also if it was compiled for a wider device."""
        return len(self.layout or ()) or self._data.num_qubits

    @property
    def truncation(self) -> float | None:
        """Weight that an approximating engine discarded; None if it discarded none."""
        return self._data.truncation or None

    @property
    def error(self) -> dict[str, dict[str, float]] | None:
        """Error of an engine that truncates, measured on regions of the circuit that were run
        exactly, too; None: the engine states none. `local`: `rms`, `max` and the `standard_error`
        of `rms`, of values on one and two qubits; `subset`: bound `tvd` of the total variation
        distance of `bits` bits; `negative`: `mass` that was clipped, mean of the shots; `regions`:
        their `number` and `qubits`, and `trajectories` of the exact side, 0 for density matrices.
        It says nothing about correlations of more bits."""
        return result_display.measured_error(self._data)

    @property
    def remark(self) -> str:
        """Remark of the engine, e.g. "12 branches"."""
        return self._data.remark

    @property
    def timing(self) -> Stages:
        """Seconds in each stage, from the submission to the counts."""
        return self._provenance.timing

    @property
    def receipt(self) -> Receipt | None:
        """What the task used, in billing units too, and why it waited; fetched from the service
        when it is first read. None: the result was copied or unpickled, or the service no longer
        keeps the task's end."""
        return self._provenance_source.receipt()

    def has(self, output: str) -> bool:
        """Return whether the result has an output: counts, probabilities, statevector,
        expectations, gradients, memory, amplitudes, value. Reads no file."""
        return self._decoded.has(output)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a file ending in .h5, .npz or .json, atomically. Raises OptionError,
        StoreError."""
        result_display.save(self, self._decoded, self._row, Path(path))

    def parts(self, suffix: str) -> tuple[int | None, Iterator[bytes | bytearray | memoryview]]:
        """Return the size of the file that `save` would write, None for .npz, and an iterator over
        its bytes, which writes no file. `suffix`: .h5 or .npz. Raises StoreError."""
        return result_display.parts(self, self._decoded, self._row, suffix)

    def to_dict(self, arrays: bool = True) -> dict[str, Any]:
        """Return the result as builtins: None for outputs that were not requested (`amplitudes` is
        then left out); [re, im] pairs for amplitudes, or the file of a statevector. `arrays`: False
        leaves out all outputs."""
        return result_display.builtins(self, self._decoded, arrays)

    def __reduce__(self) -> tuple[Callable[..., Result], tuple[ResultData, Provenance]]:
        """Support pickling and copying: the copy contains the arrays of a large result and needs no
        service. Raises StoreError if the result file cannot be read."""
        provenance = msgspec.structs.replace(self._provenance, task=self.task)
        return _restored, (self._decoded.extract(self._row), provenance)

    def __copy__(self) -> Result:
        restore, state = self.__reduce__()
        return restore(*state)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = ("task", "num_qubits", "shots", "engine", "timing.run_s", "worker", "warnings")
        return [(name, attrgetter(name)(self)) for name in shown]

    def __repr__(self) -> str:
        return (
            f"<Result {self.task} | {self.num_qubits} qubits, "
            f"{f'{self.shots} shots' if self.shots else 'exact'} | {self.engine}, "
            f"{run_time(self.timing.run_s)} on {self.worker}"
            f"{' | warning: ' + '; '.join(self.warnings) if self.warnings else ''}>"
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw a histogram of the counts, else of the exact probabilities; at most the 64 most
        likely outcomes. `axes`: of matplotlib; None: of a new figure. Returns the axes. Raises
        OptionError without matplotlib (`simenv[plots]`), or if the result has neither."""
        return result_display.histogram(self, axes)

    def _repr_html_(self) -> str:
        """HTML for notebooks: provenance, and a histogram or a table of values."""
        return result_display.result_html(self)

    def _require(self, has_output: bool, output: str) -> None:
        if not has_output:
            hints = {
                "expectation": "observables=...",
                "amplitudes": 'amplitudes=["0101", ...]',
                "gradient": 'observables=..., outputs=("expectation", "gradient"), shots=None',
            }
            hint = hints.get(output, f'outputs=("{output}",)')
            raise OptionError(f"task {self.task} has no {output}", hint=f"submit it with {hint}")


def _restored(data: ResultData, provenance: Provenance) -> Result:
    """Restore a pickled result. Raises VersionMismatchError if another version wrote it."""
    return Result(DecodedResult.of(data, provenance.task), provenance)


def _qubits(packed: bytes) -> tuple[int, ...] | None:
    return tuple(memoryview(packed).cast("H").tolist()) if packed else None


def is_intact(completion: Completion) -> bool:
    """Return whether a result has the checksum that its worker recorded."""
    return zlib.crc32(completion.payload) == completion.checksum


def fetch_again(
    source: ResultSource, number: int, receive: Callable[[], Completion | None], reason: str
) -> Completion:
    """Have the service check a task's result; return the intact or the new one.

    `receive`: waits for the next completion of the task; `reason`: text about the damage. Raises
    NotFoundError if the service has removed the result, StoreError if it is still damaged.
    """
    name = task_name(number)
    if source.request(VerifyResult(0, number)).word in ("unknown", "removed"):
        hint = "submit it again with its seed; results.keep_gib limits the stored results"
        raise NotFoundError(f"the result of task {name} is no longer kept", hint=hint)
    completion = receive()
    if completion is None or not is_intact(completion):
        raise damaged(name, reason)
    return completion


def damaged(name: str, reason: str) -> StoreError:
    """Return the error for a result that is still damaged after its task has run again."""
    message = f"the result of task {name} is damaged: {reason}"
    hint = "submit it again with its seed; if that happens again, look at disk and memory"
    return StoreError(message, hint=hint)

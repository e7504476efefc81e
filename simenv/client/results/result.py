"""What a finished task found, and everything needed to find it again.

Packed as the worker sent it; dictionaries and arrays are made when they are first read. Read-only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.results import bitstrings, drawing, notebook
from simenv.client.results.decoded import DecodedResult, Provenance, ProvenanceSource, Stages
from simenv.errors import OptionError
from simenv.model import ResultData
from simenv.store import hdf5_layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Result:
    """The outcome of one task, or of one binding of it: row `row` of the decoded result.

    Raises OptionError when something is read that was not asked for in `outputs`.
    """

    __slots__ = ("_counts", "_data", "_decoded", "_known", "_probabilities", "_row")

    def __init__(self, decoded: DecodedResult, provenance: ProvenanceSource, row: int = 0) -> None:
        self._decoded = decoded
        self._data = decoded.data
        self._row = row
        self._known = provenance
        self._counts: dict[str, int] | None = None
        self._probabilities: dict[str, float] | None = None

    @property
    def _provenance(self) -> Provenance:
        return self._known.provenance()

    @property
    def counts(self) -> dict[str, int]:
        """Outcome -> number of shots. Clbit 0 rightmost, last register leftmost, one space."""
        result = self._counts
        if result is None:
            data, decoded = self._data, self._decoded
            if not data.counts:
                self._need(decoded.has("counts"), "counts")
            rows, packed_counts = decoded.counts(self._row)
            result = bitstrings.counts(rows, data.outcome_width, packed_counts, data.registers)
            self._counts = result
        return result

    @property
    def probabilities(self) -> dict[str, float]:
        """Outcome -> exact probability; what cannot happen is left out.

        Keys as in `counts`; where the circuit measures nothing, qubit 0 is rightmost.
        """
        if self._probabilities is None:
            data = self._data
            self._need(self._decoded.has("probabilities"), "probabilities")
            rows, values = self._decoded.probabilities(self._row)
            registers = data.registers or (("", data.num_qubits),)
            self._probabilities = bitstrings.probabilities(
                rows, data.probability_width, values, registers
            )
        return self._probabilities

    @property
    def statevector(self) -> NDArray[np.complexfloating[Any, Any]]:
        """complex128 (complex64 in single precision) [2**num_qubits]; qubit 0: lowest index bit."""
        self._need(self._decoded.has("statevector"), "statevector")
        return self._decoded.statevector(self._row)

    @property
    def expectation(self) -> float:
        """The value of the only observable."""
        values = self.expectations
        if len(values) != 1:
            raise OptionError(
                f"this result has {len(values)} expectation values", hint="read .expectations"
            )
        return values[0]

    @property
    def expectations(self) -> tuple[float, ...]:
        """One value for each observable, in their order."""
        self._need(self._decoded.has("expectations"), "expectation")
        return tuple(self._decoded.estimates(self._row)[0::2])

    @property
    def std_errors(self) -> tuple[float, ...]:
        """The standard error of each expectation value; 0.0 where it is exact."""
        self._need(self._decoded.has("expectations"), "expectation")
        return tuple(self._decoded.estimates(self._row)[1::2])

    @property
    def gradients(self) -> NDArray[np.float64]:
        """float64 [observables, parameters]: each value by each of `circuit.parameters`."""
        self._need(self._decoded.has("gradients"), "gradient")
        return self._decoded.gradients(self._row)

    @property
    def gradient(self) -> NDArray[np.float64]:
        """float64 [parameters]: that of the only observable."""
        result = self.gradients
        if len(result) != 1:
            raise OptionError(
                f"this result has gradients of {len(result)} observables", hint="read .gradients"
            )
        only: NDArray[np.float64] = result[0]
        return only

    @property
    def outcomes(self) -> NDArray[np.unsignedinteger[Any]]:
        """Distinct outcomes, ascending: uint8/16/32/64 [k], or uint8 [k, width] beyond 64 clbits.
        Clbit 0 is bit 0; in wide rows bit 0 of byte 0."""
        self._need(self._decoded.has("counts"), "counts")
        return hdf5_layout.outcomes(self._decoded.counts(self._row)[0], self._data.outcome_width)

    @property
    def outcome_counts(self) -> NDArray[np.uint32]:
        """uint32 [k]: how often each of `outcomes` was seen."""
        self._need(self._decoded.has("counts"), "counts")
        return hdf5_layout.array_of(self._decoded.counts(self._row)[1], "<u4")

    @property
    def memory(self) -> NDArray[np.uint8]:
        """Bits of each shot, in order: uint8 [shots, ceil(clbits / 8)]. Clbit c is bit c % 8 of
        byte c // 8; `registers` lie one after the other from clbit 0."""
        import numpy as np

        self._need(self._decoded.has("memory"), "memory")
        packed = np.frombuffer(self._decoded.memory(self._row), np.uint8)
        return packed.reshape(self._data.shots, -1)

    def memory_strings(self) -> list[str]:
        """The outcome of each shot, in order; keys as in `counts`."""
        memory = self.memory
        return bitstrings.strings(memory.data.cast("B"), memory.shape[1], self._data.registers)

    @property
    def value(self) -> bytes:
        """Of a call: what it returned, packed as `simenv.model.calls` says. The futures that
        `Client.call` returns give the value itself."""
        if not self._decoded.has("value"):
            raise OptionError(f"task {self.task} has no value", hint="it ran a circuit, not a call")
        return bytes(self._decoded.packed("value"))

    @property
    def registers(self) -> tuple[tuple[str, int], ...]:
        """Classical registers (name, size), the first from clbit 0; bits without one come last, as
        a register without a name. Empty: the circuit measures nothing."""
        return self._data.registers

    @property
    def task(self) -> str:
        """The task's id; of one binding of several, with its row: `t-8k2f.17`."""
        task = self._provenance.task
        return task if self._data.count == 1 else f"{task}.{self._row}"

    @property
    def name(self) -> str:
        """The name its owner gave it, or ""."""
        return self._provenance.name

    @property
    def shots(self) -> int:
        """0: exact, nothing was sampled."""
        return self._data.shots

    @property
    def seed(self) -> int:
        """With the same program, shots, engine and `binding_index` it gives the same counts
        again."""
        return self._data.seed

    @property
    def binding_index(self) -> int:
        """The number of its parameter values in their sweep: a part of the random key."""
        return self._data.binding + self._row

    @property
    def engine(self) -> str:
        """What computed it; `auto` was resolved at acceptance."""
        return self._provenance.engine

    @property
    def engine_reason(self) -> str:
        """Why this engine was chosen."""
        return self._provenance.route

    @property
    def precision(self) -> str:
        """double (complex128) or single (complex64)."""
        return self._data.precision

    @property
    def options(self) -> dict[str, float]:
        """The engine's own options that were given."""
        return dict(self._data.options)

    @property
    def device(self) -> str | None:
        """The emulated device whose noise it has; None: an ideal one, or a noise model alone."""
        settings = self._data.device
        return None if settings is None else settings.name or None

    @property
    def snapshot(self) -> str | None:
        """Digest of the calibration or noise model, in hexadecimal; None: without noise."""
        settings = self._data.device
        return None if settings is None else settings.snapshot

    @property
    def snapshot_age_s(self) -> float | None:
        """Seconds from the calibration until now; None where its time is not known."""
        settings = self._data.device
        return (
            None
            if settings is None or not settings.calibrated_s
            else time() - settings.calibrated_s
        )

    @property
    def noise(self) -> dict[str, float]:
        """Factors of the noise components that were given; empty: all as calibrated."""
        settings = self._data.device
        return {} if settings is None else dict(settings.noise)

    @property
    def compiled(self) -> str | None:
        """Compiler, level and seed; None: the circuit ran as it was written."""
        settings = self._data.device
        return None if settings is None else settings.compiled or None

    @property
    def calibration_stale(self) -> bool:
        """Was it compiled for another calibration than that at its start?"""
        settings = self._data.device
        return settings is not None and settings.stale

    @property
    def layout(self) -> tuple[int, ...] | None:
        """The device's qubit of each qubit of the circuit, at its end; None: they are the same."""
        settings = self._data.device
        return None if settings is None else _qubits(settings.layout)

    @property
    def initial_layout(self) -> tuple[int, ...] | None:
        """The device's qubit of each qubit of the circuit, at its beginning; as `layout`."""
        settings = self._data.device
        return None if settings is None else _qubits(settings.initial_layout)

    @property
    def gates(self) -> dict[str, int] | None:
        """Gates that ran on the device, by name; None without a device."""
        settings = self._data.device
        return None if settings is None else dict(settings.gates)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Noise that was asked for and does not act as it was given; mostly none."""
        settings = self._data.device
        return () if settings is None else settings.warnings

    @property
    def device_time_s(self) -> float | None:
        """Seconds of the task on its device, all bindings together; None: not known."""
        return self.timing.device_s or None

    @property
    def node(self) -> str:
        """The machine it ran on."""
        return self._provenance.origin.node

    @property
    def worker(self) -> str:
        """Which of the pool's workers ran it."""
        return self._provenance.origin.worker

    @property
    def version(self) -> str:
        """Of the worker."""
        return self._provenance.origin.version

    @property
    def ranks(self) -> int:
        """Processes that ran it together."""
        return self._provenance.origin.ranks

    @property
    def slots(self) -> int:
        """Granted to this task."""
        return self._provenance.slots

    @property
    def attempts(self) -> int:
        """1: nothing went wrong on the way."""
        return self._provenance.attempts

    @property
    def num_qubits(self) -> int:
        """Of the circuit; a compiled one runs on the qubits of its device."""
        return len(self.layout or ()) or self._data.num_qubits

    @property
    def truncation(self) -> float | None:
        """Weight given up by an approximating engine; None where nothing is."""
        return self._data.truncation or None

    @property
    def remark(self) -> str:
        """What the engine has to say, e.g. "12 branches"."""
        return self._data.remark

    @property
    def timing(self) -> Stages:
        """Seconds in each stage, from the submission to the counts."""
        return self._provenance.timing

    def has(self, output: str) -> bool:
        """Was that asked for: counts, probabilities, statevector, expectations, gradients,
        memory, value? Reads no file."""
        return self._decoded.has(output)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to a file ending in .h5, .npz or .json.

        The file is whole or not there. Raises OptionError, StoreError.
        """
        from simenv.client.results import export

        export.save(self, self._decoded, self._row, Path(path))

    def to_dict(self, arrays: bool = True) -> dict[str, Any]:
        """All as builtins; null for what was not asked for, [re, im] pairs for amplitudes, or where
        they are if they lie in a file. `arrays`: False leaves out what was found."""
        from simenv.client.results import export

        return export.builtins(self, self._decoded, arrays)

    def __reduce__(self) -> tuple[Callable[..., Result], tuple[ResultData, Provenance]]:
        """Pickling and copying: self-contained, with the arrays of a large result; needs no
        service where it is read. Raises StoreError where its file cannot be read."""
        provenance = msgspec.structs.replace(self._provenance, task=self.task)
        return _restored, (self._decoded.extract(self._row), provenance)

    def __repr__(self) -> str:
        return (
            f"<Result {self.task} | {self.num_qubits} qubits, "
            f"{f'{self.shots} shots' if self.shots else 'exact'} | {self.engine}, "
            f"{1e3 * self.timing.run_s:.3g} ms on {self.worker}"
            f"{' | warning: ' + '; '.join(self.warnings) if self.warnings else ''}>"
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw a histogram of the counts, else of the exact probabilities; at most the 64 most
        likely outcomes. `axes`: of matplotlib; None: of a new figure. Returns the axes.

        Raises OptionError without matplotlib (`simenv[plots]`), or where there are neither.
        """
        return drawing.histogram(self, axes)

    def _repr_html_(self) -> str:
        """What a notebook shows: where it came from, and a histogram or a table of values."""
        return notebook.result_html(self)

    def _need(self, there: bool, output: str) -> None:
        if not there:
            hints = {
                "expectation": "observables=...",
                "gradient": 'observables=..., outputs=("expectation", "gradient"), shots=None',
            }
            hint = hints.get(output, f'outputs=("{output}",)')
            raise OptionError(f"task {self.task} has no {output}", hint=f"submit it with {hint}")


def _restored(data: ResultData, provenance: Provenance) -> Result:
    """A result from its pickle. Raises VersionMismatchError if another version wrote it."""
    return Result(DecodedResult(data, provenance.task), provenance)


def _qubits(packed: bytes) -> tuple[int, ...] | None:
    return tuple(memoryview(packed).cast("H").tolist()) if packed else None

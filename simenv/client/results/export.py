"""Export of a result to HDF5, npz or JSON, with the metadata that reproduce it.

Layout of format number 1 (metadata `format`). Arrays that the result has:

    statevector             complex [2**num_qubits], qubit 0: lowest index bit
    counts/outcomes         uint8/16/32/64 [k], or uint8 [k, bytes] beyond 64 clbits; clbit 0: bit 0
    counts/counts           uint32 [k]
    probabilities/outcomes  as above
    probabilities/values    float64 [k]
    expectations            float64 [observables, 2]: value, standard error
    gradients               float64 [observables, parameters]
    memory                  uint8 [shots, ceil(clbits / 8)]; clbit c: bit c % 8 of byte c // 8
    amplitudes/bitstrings   uint8 [strings, num_qubits]: 0 and 1, highest qubit first
    amplitudes/values       complex [strings]

In HDF5 these are datasets, and the metadata are attributes of the root. In npz they are arrays with
`/` in their names, and `metadata` is JSON text. In JSON all data are one object, as in
`Result.to_dict`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from simenv.errors import OptionError
from simenv.files import replacing
from simenv.model import TaskState
from simenv.result_files import hdf5_layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simenv.client.results.decoded import DecodedResult

JSON_AMPLITUDES = 2**20  # most amplitudes that are written as text
KINDS = (".h5", ".hdf5", ".npz", ".json")
_ARRAYS = (
    *("counts", "probabilities", "statevector", "expectations", "std_errors", "gradients"),
    *("memory", "amplitudes"),
)
# Metadata whose property of `Result` has another name.
_PROPERTY = {"binding": "binding_index", "route": "engine_reason"}
_METADATA = (
    *("shots", "seed", "binding", "engine", "route", "precision", "options", "device", "snapshot"),
    *("snapshot_age_s", "noise", "compiled", "calibration_stale", "layout", "initial_layout"),
    *("gates", "warnings", "device_time_s", "node", "worker", "version", "ranks", "slots"),
    *("attempts", "num_qubits", "truncation", "remark"),
)


class ExportableResult(Protocol):
    """A result to export; `Result` implements it."""

    @property
    def task(self) -> str: ...
    @property
    def num_qubits(self) -> int: ...
    def to_dict(self, arrays: bool = True) -> dict[str, Any]: ...


def builtins(result: Any, decoded: DecodedResult, arrays: bool) -> dict[str, Any]:
    """Return a `Result` as builtins, see `Result.to_dict`; `decoded` has its rows."""
    has = decoded.has if arrays else (lambda _field: False)
    settings = {name: getattr(result, _PROPERTY.get(name, name)) for name in _METADATA}
    return {
        "task": result.task,
        "name": result.name,
        "state": str(TaskState.DONE),
        "counts": result.counts if has("counts") else None,
        "probabilities": result.probabilities if has("probabilities") else None,
        "statevector": _amplitudes(result, decoded) if has("statevector") else None,
        "expectations": list(result.expectations) if has("expectations") else None,
        "std_errors": list(result.std_errors) if has("expectations") else None,
        "gradients": result.gradients.tolist() if has("gradients") else None,
        "memory": result.memory_strings() if has("memory") else None,
        **({"amplitudes": _by_bit_string(result)} if has("amplitudes") else {}),
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.items()
        },
        "timing": msgspec.structs.asdict(result.timing),
    }


def _amplitudes(result: Any, decoded: DecodedResult) -> list[list[float]] | dict[str, Any]:
    if decoded.bulk is not None and decoded.bulk.size("statevector"):
        return decoded.bulk.where("statevector")
    return [[float(a.real), float(a.imag)] for a in result.statevector]


def _by_bit_string(result: Any) -> dict[str, list[float]]:
    return {text: [value.real, value.imag] for text, value in result.amplitudes.items()}


def save(result: ExportableResult, decoded: DecodedResult, row: int, path: Path) -> None:
    """Write a result, row `row` of `decoded`, in the format of the suffix of `path`, atomically.

    Raises OptionError for another suffix or a file that cannot be written, StoreError if the arrays
    of the result cannot be read.
    """
    write = {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".json": _json}.get(path.suffix.lower())
    if write is None:
        raise OptionError(
            f"cannot save {path}: {path.suffix or 'no ending'!r} is no known kind of file",
            hint=f"end it with one of: {', '.join(KINDS)}",
        )
    if not path.parent.is_dir():
        raise OptionError(f"cannot save {path}: there is no folder {path.parent}")
    try:
        write(result, decoded, row, path)
    except OSError as error:
        hint = f"another file; the result is kept: simenv result {result.task}"
        raise OptionError(f"cannot save {path}: {error.strerror}", hint=hint) from error


def metadata(result: ExportableResult, decoded: DecodedResult) -> dict[str, Any]:
    """Return the metadata of a result as builtins, without its arrays."""
    settings = {k: v for k, v in result.to_dict(arrays=False).items() if k not in _ARRAYS}
    registers = [list(register) for register in decoded.data.registers]
    return {
        "format": hdf5_layout.FORMAT,
        "content": "a simenv result",
        "registers": registers,
        **settings,
    }


def contents(decoded: DecodedResult, row: int) -> dict[str, NDArray[Any]]:
    """Return the arrays by their names in a file; large ones are mapped, not read."""
    import numpy as np

    data = decoded.data
    entries: dict[str, NDArray[Any]] = {}
    if decoded.has("statevector"):
        entries["statevector"] = decoded.statevector(row)
    if decoded.has("counts"):
        rows, counts = decoded.counts(row)
        entries["counts/outcomes"] = hdf5_layout.outcomes(rows, data.outcome_width)
        entries["counts/counts"] = hdf5_layout.array_of(counts, "<u4")
    if decoded.has("probabilities"):
        rows, values = decoded.probabilities(row)
        entries["probabilities/outcomes"] = hdf5_layout.outcomes(rows, data.probability_width)
        entries["probabilities/values"] = hdf5_layout.array_of(values, "<f8")
    if decoded.has("expectations"):
        entries["expectations"] = np.array(decoded.estimates(row), "<f8").reshape(-1, 2)
    if decoded.has("gradients"):
        entries["gradients"] = decoded.gradients(row)
    if decoded.has("memory"):
        packed = np.frombuffer(decoded.memory(row), np.uint8)
        entries["memory"] = packed.reshape(data.shots, -1)
    if decoded.has("amplitudes"):
        strings, chosen = decoded.amplitudes(row)
        text = np.frombuffer("".join(strings).encode(), np.uint8)
        entries["amplitudes/bitstrings"] = text.reshape(len(strings), -1) - np.uint8(ord("0"))
        entries["amplitudes/values"] = chosen
    return entries


def _hdf5(result: ExportableResult, decoded: DecodedResult, row: int, path: Path) -> None:
    from simenv.result_files import writer

    settings = metadata(result, decoded)
    attributes = {
        key: value if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()
        for key, value in settings.items()
        if value is not None
    }
    writer.write(path, contents(decoded, row), attributes, mode=0o666)  # less the umask


def _npz(result: ExportableResult, decoded: DecodedResult, row: int, path: Path) -> None:
    import numpy as np

    text = msgspec.json.encode(metadata(result, decoded)).decode()
    with replacing(path, mode=0o666, sync=True) as file:
        np.savez(file, metadata=np.array(text), **contents(decoded, row))  # type: ignore[arg-type]


def _json(result: ExportableResult, decoded: DecodedResult, row: int, path: Path) -> None:
    if decoded.has("statevector") and result.num_qubits > JSON_AMPLITUDES.bit_length() - 1:
        raise OptionError(
            f"cannot save {path}: {2**result.num_qubits} amplitudes are too many for text",
            hint=f"save {path.with_suffix('.h5')}",
        )
    settings = result.to_dict()
    if settings["statevector"] is not None:  # to_dict gives a reference to a file for large ones
        settings["statevector"] = [[a.real, a.imag] for a in decoded.statevector(row).tolist()]
    with replacing(path, mode=0o666, sync=True) as file:
        file.write(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")

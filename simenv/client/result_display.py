"""Display of results: HTML, drawings, and export to files.

HTML of clients, tasks and results for notebooks has no scripts or files. All text is escaped,
because owners choose the names of tasks and environments. Drawings are the circuit of a task, and a
histogram with matplotlib.

A result is exported to HDF5, npz or JSON, with the metadata that reproduce it. Layout of format
number 1 (metadata `format`), with the arrays that the result has:

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

A pulse sequence has those of `simenv.client.pulse_arrays`, and `pulses` in its metadata.

In HDF5 these are datasets, and the metadata are attributes of the root. In npz they are arrays with
`/` in their names, and `metadata` is JSON text. In JSON all data are one object, as in
`Result.to_dict`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv import result_files
from simenv.client import pulse_arrays
from simenv.client.circuits import to_qiskit
from simenv.errors import OptionError
from simenv.files import replacing
from simenv.model import TaskState, decode_program
from simenv.model.task import AmplitudeResultData
from simenv.text import run_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simenv.client.result_data import DecodedResult
    from simenv.model import PoolInfo, ServiceInfo, TaskInfo, TaskSpec

MAX_BARS = 16  # outcomes shown; the others are summed
MAX_VALUES = 16  # expectation values shown
BAR_PX = 240


ResultLike = Any  # a `Result`, whose module imports this one


def client_text(info: ServiceInfo) -> str:
    """Return a line about an environment, for terminals."""
    up = sum(pool.workers for pool in info.pools)
    target = sum(pool.target for pool in info.pools)
    pools = f"{len(info.pools)} pool{'s' if len(info.pools) != 1 else ''}"
    return (
        f"<simenv {info.name}@{info.node} | {pools}, {up}/{target} workers up | "
        f"{info.queued} waiting>"
    )


def result_html(result: ResultLike) -> str:
    """Return HTML of a result: provenance, a histogram of counts, tables of values, amplitudes."""
    shots = f"{result.shots} shots" if result.shots else "exact"
    facts = [
        ("qubits", str(result.num_qubits)),
        ("sampled", shots),
        ("seed", str(result.seed)),
        ("engine", f"{result.engine}, {run_time(result.timing.run_s)} on {result.worker}"),
    ]
    if result.device is not None or result.snapshot is not None:
        facts.append(("device", result.device or f"noise model {result.snapshot}"))
    facts += [("warning", text) for text in result.warnings]
    parts = [_heading(f"Result {result.task}", result.name), _pairs(facts)]
    if result.has("counts"):
        total = sum(result.counts.values())
        shares = {key: count / total for key, count in result.counts.items()}
        parts.append(_bars(shares, {key: str(count) for key, count in result.counts.items()}))
    elif result.has("probabilities"):
        chances = result.probabilities
        parts.append(_bars(chances, {key: f"{value:.4g}" for key, value in chances.items()}))
    if result.has("expectations"):
        values = list(zip(result.expectations, result.std_errors, strict=True))
        rows = [
            (str(number), f"{value:.6g}", f"{error:.2g}" if error else "exact")
            for number, (value, error) in enumerate(values[:MAX_VALUES])
        ]
        if len(values) > MAX_VALUES:
            rows.append((f"{len(values) - MAX_VALUES} more", "", ""))
        parts.append(_table(("observable", "value", "standard error"), rows))
    if result.has("amplitudes"):
        pairs = list(result.amplitudes.items())
        shown = [(text, f"{value:.6g}") for text, value in pairs[:MAX_VALUES]]
        if len(pairs) > MAX_VALUES:
            shown.append((f"{len(pairs) - MAX_VALUES} more", ""))
        parts.append(_table(("bit string", "amplitude"), shown))
    return "".join(parts)


def task_html(task: str, name: str, state: str, info: TaskInfo | None) -> str:
    """Return HTML of a task: its state and, before its end, the pending reason."""
    facts = [("state", state)]
    if info is not None:
        facts += [("width", str(info.num_qubits)), ("pool", info.pool), ("worker", info.worker)]
        facts.append(("reason", info.reason))
    return _heading(f"Task {task}", name) + _pairs([(key, value) for key, value in facts if value])


def client_html(info: ServiceInfo, dashboard: str | None) -> str:
    """Return HTML of an environment: its pools and their queues, and a link to the web page."""
    heading = _heading(f"simenv {info.name}", f"on {info.node}, {info.queued} waiting")
    columns = ("pool", "engine", "workers", "busy", "waiting", "state")
    link = f'<div><a href="{escape(dashboard)}">{escape(dashboard)}</a></div>' if dashboard else ""
    return heading + _table(columns, map(_pool, info.pools)) + link


def _pool(pool: PoolInfo) -> tuple[str, ...]:
    workers = f"{pool.workers} of {pool.target}"
    busy, waiting = str(pool.busy), str(pool.waiting)
    state = f"{pool.state}: {pool.reason}" if pool.reason else pool.state
    return (pool.name, pool.engine, workers, busy, waiting, state)


def _heading(title: str, note: str) -> str:
    return f"<div><b>{escape(title)}</b> {escape(note)}</div>"


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    lines = (f"{escape(key)}: {escape(value)}" for key, value in pairs)
    return f"<div>{'<br>'.join(lines)}</div>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _bars(shares: dict[str, float], texts: dict[str, str]) -> str:
    """Return a histogram of the most likely outcomes, in the order of the outcomes."""
    best = sorted(sorted(shares, key=lambda key: -shares[key])[:MAX_BARS])
    longest = max((shares[key] for key in best), default=1.0) or 1.0
    rows = []
    for key in best:
        width = max(1, round(BAR_PX * shares[key] / longest))
        bar = (
            f'<div style="width:{width}px;height:0.9em;background:#4c78a8"'
            f' title="{shares[key]:.2%}"></div>'
        )
        rows.append(
            f"<tr><td><code>{escape(key)}</code></td><td>{bar}</td>"
            f"<td>{escape(texts[key])}</td></tr>"
        )
    if len(shares) > len(best):
        rest = sum(shares.values()) - sum(shares[key] for key in best)
        rows.append(f"<tr><td>{len(shares) - len(best)} more</td><td></td><td>{rest:.2%}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


MAX_DRAWN_QUBITS = 20  # a larger drawing is unreadable
MAX_DRAWN_OPERATIONS = 200
FOLD_COLUMNS = 120
MAX_HISTOGRAM_BARS = 64


def circuit_of(spec: TaskSpec) -> Any:
    """Return the `QuantumCircuit` of a task, as it was sent, with the parameter values of a single
    binding; else with parameters p0, p1 ... Raises ProgramError."""
    import numpy as np

    circuit = to_qiskit(decode_program(spec.program))
    if spec.bindings and spec.count == 1:
        # Sorted by name, p10 would come before p2.
        values = np.frombuffer(spec.bindings, np.float64).tolist()
        named = {p.name: p for p in circuit.parameters}
        used = {named[f"p{k}"]: value for k, value in enumerate(values) if f"p{k}" in named}
        circuit = circuit.assign_parameters(used)
    return circuit


def circuit_html(spec: TaskSpec) -> str:
    """Return a collapsed text drawing of a circuit; "" for a circuit that is too large to be
    readable. Raises ProgramError."""
    circuit = circuit_of(spec)
    if circuit.num_qubits > MAX_DRAWN_QUBITS or circuit.size() > MAX_DRAWN_OPERATIONS:
        return ""
    text = str(circuit.draw("text", fold=FOLD_COLUMNS))
    style = "line-height:1.1;white-space:pre"
    return f'<details><summary>circuit</summary><pre style="{style}">{escape(text)}</pre></details>'


def histogram(result: ResultLike, axes: Any) -> Any:
    """Draw the counts, or the exact probabilities, of a result; see `Result.plot`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        hint = "pip install 'simenv[plots]'"
        raise OptionError("a plot needs matplotlib, which is not installed", hint=hint) from None
    entry = result.counts if result.has("counts") else result.probabilities
    best = sorted(sorted(entry, key=lambda key: -entry[key])[:MAX_HISTOGRAM_BARS])
    if axes is None:
        size = min(12.0, 2.0 + 0.35 * len(best)), 3.5
        _, axes = pyplot.subplots(figsize=size, layout="constrained")  # long outcomes are not cut
    axes.bar(best, [entry[key] for key in best])
    axes.tick_params(axis="x", labelrotation=90 if len(best) > 4 else 0)
    axes.set_ylabel("counts" if result.has("counts") else "probability")
    left = len(entry) - len(best)
    axes.set_title(f"{result.task}{f', {left} rarer outcomes left out' if left else ''}")
    return axes


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
    *(
        "calibrated",
        "snapshot_age_s",
        "noise",
        "compiled",
        "calibration_stale",
        "outside_fit",
        "layout",
        "initial_layout",
    ),
    *(
        "gates",
        "modules",
        "pairs",
        "wait_s",
        "warnings",
        "device_time_s",
        "node",
        "worker",
        "version",
        "ranks",
        "slots",
    ),
    *("attempts", "num_qubits", "truncation", "remark"),
)


def measured_error(data: AmplitudeResultData) -> dict[str, dict[str, float]] | None:
    """Return the error that was measured beside a run, see `Result.error`."""
    error = data.error
    if error is None:
        return None
    return {
        "local": {
            "rms": error.local_rms,
            "max": error.local_max,
            "standard_error": error.local_standard_error,
        },
        "subset": {"bits": error.subset_bits, "tvd": error.subset_tvd},
        "negative": {"mass": error.negative},
        "regions": {
            "number": error.regions,
            "qubits": error.region_qubits,
            "trajectories": error.trajectories,
        },
    }


def builtins(result: ResultLike, decoded: DecodedResult, arrays: bool) -> dict[str, Any]:
    """Return a `Result` as builtins, see `Result.to_dict`; `decoded` has its rows."""
    has = decoded.has if arrays else (lambda _field: False)
    settings = {name: getattr(result, _PROPERTY.get(name, name)) for name in _METADATA}
    amplitudes: dict[str, Any] = {}
    if has("amplitudes"):
        named = {text: [a.real, a.imag] for text, a in result.amplitudes.items()}
        amplitudes = {"amplitudes": named}
    statevector: Any = None
    if has("statevector") and decoded.bulk is not None and decoded.bulk.size("statevector"):
        statevector = decoded.bulk.where("statevector")
    elif has("statevector"):
        statevector = [[float(a.real), float(a.imag)] for a in result.statevector]
    return {
        "task": result.task,
        "name": result.name,
        "state": str(TaskState.DONE),
        "counts": result.counts if has("counts") else None,
        "probabilities": result.probabilities if has("probabilities") else None,
        "statevector": statevector,
        "expectations": list(result.expectations) if has("expectations") else None,
        "std_errors": list(result.std_errors) if has("expectations") else None,
        "gradients": result.gradients.tolist() if has("gradients") else None,
        "memory": result.memory_strings() if has("memory") else None,
        **amplitudes,
        **({} if decoded.data.error is None else {"error": measured_error(decoded.data)}),
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.items()
        },
        "timing": msgspec.structs.asdict(result.timing),
    }


def save(result: ResultLike, decoded: DecodedResult, row: int, path: Path) -> None:
    """Write a result, row `row` of `decoded`, in the format of the suffix of `path`, atomically.
    Raises OptionError for another suffix or a file that cannot be written, StoreError if the arrays
    of the result cannot be read."""
    write = {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".json": _json}.get(path.suffix.lower())
    if write is None:
        message = f"cannot save {path}: {path.suffix or 'no ending'!r} is no known kind of file"
        raise OptionError(message, hint=f"end it with one of: {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise OptionError(f"cannot save {path}: there is no folder {path.parent}")
    try:
        write(result, decoded, row, path)
    except OSError as error:
        hint = f"another file; the result is kept: simenv result {result.task}"
        raise OptionError(f"cannot save {path}: {error.strerror}", hint=hint) from error


def metadata(result: ResultLike, decoded: DecodedResult) -> dict[str, Any]:
    """Return the metadata of a result as builtins, without its arrays."""
    settings = {k: v for k, v in result.to_dict(arrays=False).items() if k not in _ARRAYS}
    registers = [list(register) for register in decoded.data.registers]
    pulses = _pulses(result, decoded)
    if pulses is not None:
        settings["pulses"] = pulse_arrays.metadata(pulses)
    return {
        "format": result_files.FORMAT,
        "content": "a simenv result",
        "registers": registers,
        **settings,
    }


def _pulses(result: ResultLike, decoded: DecodedResult) -> Any:
    """Return the outcomes of a pulse sequence; None: the task ran something else."""
    if not decoded.has("value"):
        return None
    return pulse_arrays.answer_of(result.engine, decoded.packed("value"))


def contents(result: ResultLike, decoded: DecodedResult, row: int) -> dict[str, NDArray[Any]]:
    """Return the arrays by their names in a file; large ones are mapped, not read."""
    import numpy as np

    if (pulses := _pulses(result, decoded)) is not None:
        return pulse_arrays.arrays(pulses)
    data = decoded.data
    entries: dict[str, NDArray[Any]] = {}
    if decoded.has("statevector"):
        entries["statevector"] = decoded.statevector(row)
    if decoded.has("counts"):
        rows, counts = decoded.counts(row)
        entries["counts/outcomes"] = result_files.outcomes(rows, data.outcome_width)
        entries["counts/counts"] = result_files.array_of(counts, "<u4")
    if decoded.has("probabilities"):
        rows, values = decoded.probabilities(row)
        entries["probabilities/outcomes"] = result_files.outcomes(rows, data.probability_width)
        entries["probabilities/values"] = result_files.array_of(values, "<f8")
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


def parts(
    result: ResultLike, decoded: DecodedResult, row: int, suffix: str
) -> tuple[int | None, Iterator[bytes | bytearray | memoryview]]:
    """Return the size of the file that `save` would write, None for .npz, and an iterator over its
    bytes; no file is written. `suffix`: .h5 or .npz. Raises StoreError."""
    if suffix == ".npz":
        return None, _npz_parts(result, decoded, row)
    return result_files.parts(contents(result, decoded, row), _attributes(result, decoded))


def _attributes(result: ResultLike, decoded: DecodedResult) -> dict[str, str | int | float]:
    return {
        key: value if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()
        for key, value in metadata(result, decoded).items()
        if value is not None
    }


def _hdf5(result: ResultLike, decoded: DecodedResult, row: int, path: Path) -> None:
    attributes = _attributes(result, decoded)
    result_files.write(
        path, contents(result, decoded, row), attributes, mode=0o666
    )  # less the umask


class _Written(io.RawIOBase):
    """Bytes that were written and not yet taken. Not seekable."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._blocks.append(bytes(data))
        return len(self._blocks[-1])

    def take(self) -> list[bytes]:
        """Return what was written since the last call."""
        blocks, self._blocks = self._blocks, []
        return blocks


def _npz_parts(result: ResultLike, decoded: DecodedResult, row: int) -> Iterator[bytes]:
    """Yield the file that `numpy.savez` would write, of the arrays and their metadata."""
    import numpy as np

    text = msgspec.json.encode(metadata(result, decoded)).decode()
    out = _Written()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in {"metadata": np.array(text), **contents(result, decoded, row)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(member, header)
                for block in result_files.flat_blocks(array, once=True):
                    member.write(block)
                    yield from out.take()
    yield from out.take()


def _npz(result: ResultLike, decoded: DecodedResult, row: int, path: Path) -> None:
    with replacing(path, mode=0o666, sync=True) as file:
        for block in _npz_parts(result, decoded, row):
            file.write(block)


def _json(result: ResultLike, decoded: DecodedResult, row: int, path: Path) -> None:
    if decoded.has("statevector") and result.num_qubits > JSON_AMPLITUDES.bit_length() - 1:
        message = f"cannot save {path}: {2**result.num_qubits} amplitudes are too many for text"
        raise OptionError(message, hint=f"save {path.with_suffix('.h5')}")
    if _pulses(result, decoded) is not None:
        hint = f"save {path.with_suffix('.npz')}; JSON: the to_dict() of its PulseResult"
        raise OptionError(f"cannot save {path}: the result of a pulse sequence", hint=hint)
    settings = result.to_dict()
    if settings["statevector"] is not None:  # to_dict gives a reference to a file for large ones
        settings["statevector"] = [[a.real, a.imag] for a in decoded.statevector(row).tolist()]
    with replacing(path, mode=0o666, sync=True) as file:
        file.write(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")

"""Conversion of an ended task into the files of its bundle, and of a bundle into a task."""

from __future__ import annotations

import io
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simenv.cli.bundle import container
from simenv.cli.bundle.manifest import BundleFailure, Manifest, manifest, one_row, read
from simenv.cli.observe.trace import lost_attempts
from simenv.client.connection.local_process import last_lines
from simenv.errors import NoServiceError, OptionError, ProgramError, SimenvError
from simenv.model import TaskSpec
from simenv.model.calls import is_call
from simenv.wire.messages.queries import LogRow, Submitted

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task

LOG_LINES = 200
_LIBRARIES = ("simenv", "qiskit", "numpy", "numba", "msgspec", "pyzmq")
_README = """A task of simenv, to be run again.

    simenv submit {name} --wait

runs the same program with the same bindings, shots, seed, engine and options, on the environment
that is up or on a private one: with the same versions it ends as it did.

bundle.json     what was asked, where it ran, how it ended, with which versions
program.bin     the program as it travels
program.qasm    the same as OpenQASM 3 (program.qpy: Qiskit's own format, where that cannot be)
bindings.npy    float64, one row of parameter values for each binding
result.json     what was found
worker.log      the worker's last words
"""


def collect(client: Client, task: Task, path: Path) -> None:
    """Wait for the task's end, and write its bundle."""
    error = task.exception()
    row = client.history.task(task)
    submitted = client.history.submitted(task)
    if is_call(submitted.terms):
        raise OptionError(
            f"task {task.id} is a call of engine {submitted.terms.engine}: bundles are of circuits",
            hint="call the function again",
        )
    if task.row is not None and submitted.spec.count > 1:
        submitted = one_row(submitted, task.row)
    files = {
        container.MANIFEST: _manifest(client, task, row, submitted, error),
        container.PROGRAM: submitted.spec.program,
        **_readable_program(submitted.spec),
    }
    if submitted.spec.bindings:
        files[container.BINDINGS] = _npy(submitted.spec)
    if error is None:
        files["result.json"] = _result_json(task)
    log = getattr(error, "log", "") or _log(client, row)
    if log:
        files["worker.log"] = log.encode()
    files["README.txt"] = _README.format(name=path.name).encode()
    container.write(path, files)


def load(path: Path) -> Submitted:
    """Return the task of a bundle; its engine is the one that ran it."""
    files = container.read(path)
    settings = read(files[container.MANIFEST], str(path))
    spec = settings.spec(
        files[container.PROGRAM], _values(files.get(container.BINDINGS), settings, path)
    )
    return Submitted(0, settings.terms, spec, settings.route, settings.submitted_s)


def _manifest(
    client: Client, task: Task, row: LogRow, submitted: Submitted, error: SimenvError | None
) -> bytes:
    failure = None
    if error is not None:
        reason, host = getattr(error, "reason", ""), getattr(error, "host", "")
        failure = BundleFailure(error.code, reason, error.message, error.hint, host)
    lost = tuple(each.reason for each in lost_attempts(client, row))
    settings = manifest(submitted, row, task.id, failure, _versions(client), lost)
    return msgspec.json.format(msgspec.json.encode(settings)) + b"\n"


def _versions(client: Client) -> dict[str, str]:
    entries = {"python": platform.python_version()}
    with suppress(NoServiceError):  # a journal does not store the version
        entries["service"] = client.status().version
    for name in _LIBRARIES:
        try:
            entries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**entries, "machine": platform.machine(), "system": platform.platform()}


def _readable_program(spec: TaskSpec) -> dict[str, bytes]:
    """Return the program as OpenQASM 3 with its only binding inserted; as QPY if that fails.

    Return no files if the program cannot be converted into a QuantumCircuit.
    """
    from qiskit import qasm3, qpy

    from simenv.client.results.drawing import circuit_of

    try:
        circuit = circuit_of(spec)
    except SimenvError:
        return {}  # program.bin has the program
    try:
        return {"program.qasm": qasm3.dumps(circuit).encode()}
    except Exception:  # noqa: BLE001  # Qiskit's exporter may raise anything
        text = io.BytesIO()
        qpy.dump(circuit, text)
        return {"program.qpy": text.getvalue()}


def _npy(spec: TaskSpec) -> bytes:
    import numpy as np

    text = io.BytesIO()
    values = np.frombuffer(spec.bindings, np.float64).reshape(spec.count, -1)
    np.save(text, values, allow_pickle=False)
    return text.getvalue()


def _values(body: bytes | None, meta: Manifest, path: Path) -> bytes:
    """Return the bindings in the wire format."""
    if body is None:
        return b""
    import numpy as np

    try:
        values = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ProgramError(f"{path}: {container.BINDINGS} cannot be read: {error}") from error
    if values.ndim != 2 or len(values) != meta.bindings:
        raise ProgramError(
            f"{path}: {container.BINDINGS} has shape {values.shape}; expected {meta.bindings} rows"
        )
    return np.ascontiguousarray(values, np.float64).tobytes()


def _result_json(task: Task) -> bytes:
    results = [each.to_dict() for each in task.results(0.0)]
    shown = results[0] if len(results) == 1 else results
    return msgspec.json.format(msgspec.json.encode(shown)) + b"\n"


def _log(client: Client, row: LogRow) -> str:
    """Return the end of the worker's log if it is on this machine's disks; else ""."""
    logs = Path(client.service).with_name("logs")
    return "\n".join(last_lines(logs / f"{row.worker}.log", LOG_LINES)) if row.worker else ""

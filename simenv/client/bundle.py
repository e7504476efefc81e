"""The files of a bundle: all that is needed to run an ended task again.

`simenv result --bundle` writes them to a folder or an archive, and a gateway sends the archive.
"""

from __future__ import annotations

import io
import platform
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from simenv.client import bundle_manifest
from simenv.errors import NoServiceError, OptionError, SimenvError
from simenv.model import TaskSpec
from simenv.model.calls import is_call
from simenv.wire.messages.history import LogRow, Submitted

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task

MANIFEST = "bundle.json"
PROGRAM = "program.bin"
BINDINGS = "bindings.npy"
_LIBRARIES = ("simenv", "qiskit", "numpy", "numba", "msgspec", "pyzmq")
_README = """A task of simenv, to be run again.

    simenv run {name}

runs the same program with the same bindings, shots, seed, engine and options, on the environment
that is up or on a private one: with the same versions it ends as it did.

bundle.json     what was asked, where it ran, how it ended, with which versions
program.bin     the program as it travels
program.qasm    the same as OpenQASM 3 (program.qpy: Qiskit's own format, where that cannot be)
bindings.npy    float64, one row of parameter values for each binding
result.json     what was found
worker.log      the worker's last words
"""


def files_of(
    client: Client, task: Task, name: str, *, with_result: bool = True
) -> dict[str, bytes]:
    """Wait for the task's end; return the files of its bundle, by name. `name`: of the bundle.
    Raises OptionError for a call."""
    error = task.exception()
    row = client.history.task(task)
    submitted = client.history.submitted(task)
    if is_call(submitted.terms):
        raise OptionError(
            f"task {task.id} is a call of engine {submitted.terms.engine}: bundles are of circuits",
            hint="call the function again",
        )
    if task.row is not None and submitted.spec.count > 1:
        submitted = bundle_manifest.one_row(submitted, task.row)
    files = {
        MANIFEST: _manifest(client, task, row, submitted, error),
        PROGRAM: submitted.spec.program,
        **_readable_program(submitted.spec),
    }
    if submitted.spec.bindings:
        values = np.frombuffer(submitted.spec.bindings, np.float64)
        text = io.BytesIO()
        np.save(text, values.reshape(submitted.spec.count, -1), allow_pickle=False)
        files[BINDINGS] = text.getvalue()
    if error is None and with_result:
        results = [each.to_dict() for each in task.results(0.0)]
        files["result.json"] = _json(results[0] if len(results) == 1 else results)
    files["README.txt"] = _README.format(name=name).encode()
    return files


def _manifest(
    client: Client, task: Task, row: LogRow, submitted: Submitted, error: SimenvError | None
) -> bytes:
    failure = None
    if error is not None:
        reason, host = getattr(error, "reason", ""), getattr(error, "host", "")
        failure = bundle_manifest.BundleFailure(error.code, reason, error.message, error.hint, host)
    lost = tuple(each.message for each in client.history.lost_attempts(row))
    versions = _versions(client)
    return _json(bundle_manifest.manifest(submitted, row, task.id, failure, versions, lost))


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
    """Return the program as OpenQASM 3 with its only binding inserted; as QPY if that fails. Return
    no files if the program cannot be converted into a QuantumCircuit."""
    from qiskit import qasm3, qpy

    from simenv.client.result_display import circuit_of

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


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"

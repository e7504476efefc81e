"""The files of a bundle: all that is needed to run an ended task again.

`simenv result --bundle` writes them to a folder or an archive, and a gateway sends the archive.
"""

from __future__ import annotations

import io
import platform
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from simenv.client import bundle_manifest
from simenv.client.submission.calls import CallTask
from simenv.client.submission.pulses import pulse_result
from simenv.errors import NoServiceError, OptionError, SimenvError
from simenv.model import TaskOptions
from simenv.model.calls import decode_call, is_call, is_pulse_call
from simenv.model.pulses import PulseCall
from simenv.wire.messages.history import LogRow, Submitted

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.result import Result
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
program.qasm    the same as OpenQASM 3 (program.qpy: Qiskit's own format, where that cannot be;
                sequence.json, noise.json: a pulse sequence and its noise model, for pulser)
bindings.npy    float64, one row of parameter values for each binding
result.json     what was found
worker.log      the worker's last words
"""


def files_of(
    client: Client, task: Task, name: str, *, with_result: bool = True
) -> dict[str, bytes]:
    """Wait for the task's end; return the files of its bundle, by name. `name`: of the bundle.
    Raises OptionError for a call, and for a pulse sequence on a device."""
    error = task.exception()
    row = client.history.task(task)
    submitted = client.history.submitted(task)
    _check(task, submitted.terms)
    if task.row is not None and submitted.spec.count > 1:
        submitted = bundle_manifest.one_row(submitted, task.row)
    files = {
        MANIFEST: _manifest(client, task, row, submitted, error),
        PROGRAM: submitted.spec.program,
        **_readable_program(submitted),
    }
    if submitted.spec.bindings:
        values = np.frombuffer(submitted.spec.bindings, np.float64)
        text = io.BytesIO()
        np.save(text, values.reshape(submitted.spec.count, -1), allow_pickle=False)
        files[BINDINGS] = text.getvalue()
    if error is None and with_result:
        details = task.details if isinstance(task, CallTask) else None
        found = task.results(0.0) if details is None else [details]
        results = [_builtins(each) for each in found]
        files["result.json"] = _json(results[0] if len(results) == 1 else results)
    files["README.txt"] = _README.format(name=name).encode()
    return files


def _check(task: Task, terms: TaskOptions) -> None:
    if not is_call(terms):
        return
    if not is_pulse_call(terms):
        raise OptionError(
            f"task {task.id} is a call of engine {terms.engine}: bundles are of circuits and"
            " pulse sequences",
            hint="call the function again",
        )
    if terms.snapshot:
        raise OptionError(
            f"task {task.id} ran with the calibration of a device, which a bundle does not have",
            hint="submit the sequence again, with the same device and seed",
        )


def _builtins(result: Result) -> dict[str, Any]:
    pulses = pulse_result(result)
    return result.to_dict() | ({} if pulses is None else {"pulses": pulses.to_dict()})


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


def _readable_program(submitted: Submitted) -> dict[str, bytes]:
    """Return the program as OpenQASM 3 with its only binding inserted; as QPY if that fails. Return
    no files if the program cannot be converted into a QuantumCircuit. A pulse sequence is the text
    that pulser reads, with that of its noise model."""
    spec = submitted.spec
    if is_call(submitted.terms):
        call = decode_call(submitted.terms.engine, spec.program)
        assert isinstance(call, PulseCall)
        texts = {"sequence.json": call.sequence, "noise.json": call.noise}
        return {name: text.encode() for name, text in texts.items() if text}
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

"""Writer of files of measured counts, from rows, from Qiskit and from an environment's own
tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv import files
from simenv.calibration.data.records import FORMAT, KIND
from simenv.errors import OptionError

if TYPE_CHECKING:
    from simenv.client.client import Client


def row(
    qasm: str,
    counts: Mapping[str, int],
    *,
    layout: Sequence[int] = (),
    **texts: str,
) -> dict[str, Any]:
    """Make one row of a file; `texts`: date, name, body, job, split, family.
    Empty fields are left out."""
    entries: dict[str, Any] = {"qasm": qasm, "counts": dict(counts)}
    if layout:
        entries["layout"] = list(layout)
    entries.update({field: text for field, text in texts.items() if text})
    return entries


def write(path: Path, rows: Iterable[Mapping[str, Any]], device: str = "") -> int:
    """Write rows by rename; return their number. No file is written after an error."""
    encoder = msgspec.json.Encoder()
    header: dict[str, Any] = {"kind": KIND, "format": FORMAT}
    if device:
        header["device"] = device
    total = 0
    with files.replacing(path) as out:
        out.write(encoder.encode(header) + b"\n")
        for each in rows:
            out.write(encoder.encode(each) + b"\n")
            total += 1
    return total


def rows_from_qiskit(
    circuits: Sequence[Any], result: Any, *, date: str = "", job: str = ""
) -> list[dict[str, Any]]:
    """Rows of QuantumCircuits and of their `qiskit.result.Result`, or of the PrimitiveResult of a
    SamplerV2 without parameters. A transpiled circuit has the device's qubits.

    Raises OptionError if their numbers differ.
    """
    if hasattr(result, "get_counts"):
        counts = [result.get_counts(k) for k in range(len(result.results))]
        job = job or str(result.job_id or "")
        date = date or str(getattr(result, "date", None) or "")
    else:
        counts = [each.join_data().get_counts() for each in result]
    if len(counts) != len(circuits):
        raise OptionError(
            f"{len(circuits)} circuits and {len(counts)} results", hint="one result for each"
        )
    return [
        row(qasm_of(circuit), entry, date=date, name=circuit.name or "", job=job)
        for circuit, entry in zip(circuits, counts, strict=True)
    ]


def rows_from_history(client: Client, tasks: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Rows of finished tasks of an environment, by their ids. Circuits are as they ran: those of an
    emulated device have its qubits.

    Raises NotFoundError for a task that is no longer kept, OptionError for one without counts.
    """
    from simenv.client.circuits import to_qiskit
    from simenv.model import decode_program

    for task in tasks:
        settings = client.history.submitted(task)
        result = client.task(task).result()
        if not result.counts:
            raise OptionError(f"task {result.task} has no counts", hint="a task with shots")
        circuit = to_qiskit(decode_program(settings.spec.program))
        date = datetime.fromtimestamp(settings.at_s, UTC).isoformat()
        yield row(
            qasm_of(circuit), result.counts, date=date, name=settings.terms.name, job=result.task
        )


def qasm_of(circuit: Any) -> str:
    """OpenQASM 3 of a QuantumCircuit, without global phases: counts do not depend on them, and
    Qiskit writes an invalid definition of their gate."""
    from qiskit import qasm3

    plain = circuit.copy_empty_like()
    plain.data = [each for each in circuit.data if each.operation.name != "global_phase"]
    return str(qasm3.dumps(plain))

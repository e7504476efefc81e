"""Work on what users send, in a process of each user with bounds of memory and time.

Large bodies, programs, and circuits to be written as text take any amount of memory and time, and
decoding holds the interpreter's lock: in this process they hold up their user alone. Invariant: the
gateway itself decodes no body of more than SMALL_BYTES.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec
import numpy as np

from simenv.errors import LimitExceededError, OptionError, SimenvError
from simenv.gateway.limits import PART_BYTES
from simenv.sandbox.function_process import SandboxProcess

SMALL_BYTES = PART_BYTES  # of a body that the event loop decodes
SECONDS = 20.0  # for one piece of work
MAX_TEXT_BYTES = 32 * 2**20  # of all circuits that are written at once
# Functions of the process, by name: bytes in, bytes out.
_FUNCTIONS = {
    "program": "simenv.client.circuits.untrusted_programs:bound",
    "native": "simenv.gateway.native.programs:decoded",
    "sequence": "simenv.gateway.native.programs:packed_pulses",
    "ibm": "simenv.gateway.ibm.job_request:decoded",
    "iqm": "simenv.gateway.iqm.job_request:checked",
    "pasqal_batch": "simenv.gateway.pasqal.requests:batch",
    "pasqal_jobs": "simenv.gateway.pasqal.requests:jobs",
    "pasqal_result": "simenv.gateway.pasqal.requests:result",
    "pasqal_devices": "simenv.gateway.pasqal.requests:devices",
    "circuits": f"{__name__}:circuits",
    "drawing": f"{__name__}:drawing",
    "pulses": "simenv.gateway.page.pulses:drawn",
}


def request_sandbox() -> SandboxProcess:
    """Return a process for `run`, which is started with its first work."""
    return SandboxProcess(__name__, "run", "request", seconds=SECONDS)


def call(sandbox: SandboxProcess, name: str, data: bytes, head: Any = None) -> bytes:
    """Return what a function of the process returns for `head`, plain values, and `data`. Blocks.
    Raises its errors, and LimitExceededError beyond the bounds."""
    packed = b"" if head is None else msgspec.msgpack.encode(head)
    before = b"%b %d\n%b" % (name.encode(), len(packed), packed)
    return sandbox.convert(data, head=before)


def run(data: bytes) -> bytes:
    """Do a piece of work; called in the process."""
    line, _, rest = data.partition(b"\n")
    name, size = line.split()
    module, _, function = _FUNCTIONS[name.decode()].partition(":")
    of_work: Callable[..., bytes] = getattr(import_module(module), function)
    if not int(size):
        return of_work(rest)
    return of_work(rest[int(size) :], msgspec.msgpack.decode(rest[: int(size)]))


def address_of(part: Any) -> int:
    """Return the address of the first byte of a buffer."""
    return int(np.frombuffer(part, np.uint8).ctypes.data)


def undecoded(what: str, error: Exception) -> OptionError:
    return OptionError(f"{what}: {error!s:.200}")


def circuits(data: bytes) -> bytes:
    """Write the circuits of tasks, a list of TaskSpec, in OpenQASM 3; called in the process. Raises
    LimitExceededError beyond MAX_TEXT_BYTES."""
    from qiskit import qasm3

    from simenv.client.result_display import circuit_of
    from simenv.model import TaskSpec

    texts, size = [], 0
    for spec in msgspec.msgpack.decode(data, type=list[TaskSpec]):
        texts.append(qasm3.dumps(circuit_of(spec)))
        size += len(texts[-1])
        if size > MAX_TEXT_BYTES:
            text = f"the circuits of this job take more than {MAX_TEXT_BYTES} bytes as text"
            raise LimitExceededError(text, hint="GET /api/v1/tasks/ID/circuit, one by one")
    return msgspec.json.encode({"transpiled_circuits": texts})


def drawing(data: bytes) -> bytes:
    """Draw the circuit of a TaskSpec, and write it in OpenQASM 3; called in the process."""
    from qiskit import qasm3

    from simenv.client.result_display import FOLD_COLUMNS, circuit_of
    from simenv.model import TaskSpec

    circuit = circuit_of(msgspec.msgpack.decode(data, type=TaskSpec))
    drawn = str(circuit.draw("text", fold=FOLD_COLUMNS))
    try:
        text = qasm3.dumps(circuit)
    except SimenvError:
        raise
    except Exception:  # noqa: BLE001 - an exporter that does not know an operation
        text = ""
    return msgspec.msgpack.encode((drawn, text))

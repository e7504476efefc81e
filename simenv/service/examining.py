"""A close look at programs: in a thread of its own where they are large, so that the loop goes on.

The kernels that look hold no lock of the interpreter. Invariant: the loop never spends more than a
small program's time here; a look that was begun is asked for again until it has been taken.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from simenv.errors import ProgramError, VersionMismatch
from simenv.model import READ_FORMATS, Program, Terms, decode_program
from simenv.service import rules
from simulators.circuit import check
from simulators.circuit.ir import Circuit
from simulators.circuit.profile import Profile
from simulators.circuit.profiling import profile

BESIDE_BYTES = 2**18  # a packed program from here on is looked at beside the loop

_THREAD = ThreadPoolExecutor(1, "examining")
Looked = tuple[Program, Profile]


class Later(Exception):
    """The look goes on beside: ask again when `future` is done."""

    def __init__(self, future: Future[Looked]) -> None:
        self.future = future


class Examining:
    """Looks that were begun, by what identifies them. Used from the loop's thread."""

    def __init__(self) -> None:
        self._begun: dict[object, Future[Looked]] = {}

    def look(self, key: object, packed: bytes, terms: Terms) -> Looked:
        """What a program is; SimenvError where it is not admissible, Later where that takes long
        and is not known yet."""
        if len(packed) < BESIDE_BYTES:
            return look(packed, terms)
        future = self._begun.get(key)
        if future is None:
            future = self._begun[key] = _THREAD.submit(look, packed, terms)
        if not future.done():
            raise Later(future)
        del self._begun[key]
        return future.result()


def look(packed: bytes, terms: Terms) -> Looked:
    """The program opened and profiled; SimenvError where no engine could run it under these
    terms."""
    program = open_program(packed)
    circuit = Circuit.from_buffers(*msgspec.structs.astuple(program)[1:])
    wrong = check.problem(circuit)
    if wrong:
        raise ProgramError(f"the program is not valid: {wrong}")
    found = profile(circuit, terms.outputs, rules.labels(terms))
    rules.check_final_state(terms, circuit, found)
    return program, found


def open_program(packed: bytes) -> Program:
    """A packed program of this version; what its arrays hold is not yet looked at."""
    try:
        program = decode_program(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProgramError(f"the program cannot be read: {error}") from error
    if program.format not in READ_FORMATS:
        read = " and ".join(map(str, READ_FORMATS))
        raise VersionMismatch(
            f"the program has format {program.format}, this service reads {read}",
            hint="client and service should be of one version",
        )
    return program

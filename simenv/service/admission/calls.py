"""Checks of calls: tasks that carry a function, circuits to compile, or a circuit with detectors,
in place of a program."""

from __future__ import annotations

import msgspec

from simenv.errors import NotAllowedError
from simenv.model import PROGRAM_FORMAT, Program, TaskOptions
from simenv.model.calls import TranspileCall, decode_call, target_entries
from simenv.model.detection import DetectionCall
from simulators import catalog
from simulators.circuit.analysis.profile import Profile

_NO_CIRCUIT = Program(PROGRAM_FORMAT, 0, 0, (), (), b"", b"", b"", b"", b"")
_NO_SIZES = Profile(0, 0, 0, 0, 0, 0, 0, 0, mid_circuit=False, conditions=0)


def check_owner(terms: TaskOptions, owner: str) -> None:
    """Check the owner of a task. Raises NotAllowedError if the owner of a key requests an engine
    that is reserved for the environment's own user."""
    card = catalog.card(terms.engine)
    if owner and card is not None and card.pool == "functions":
        raise NotAllowedError(
            f"engine {card.name!r} runs tasks of the environment's own user alone, and this one"
            f" came with the key {owner!r}",
            hint="connect without a key, as that user, where the environment runs",
        )


def examined(packed: bytes, terms: TaskOptions) -> tuple[Program, Profile]:
    """Return a call as a program without operations, and its profile.

    The profile has one operation for each circuit to compile and a gate for each entry of the
    compiler's table, one operation for a function, and the sizes of a circuit with detectors. Only
    workers decode the pickles and circuits in a call. Raises ProgramError, OptionError,
    LimitExceededError, VersionMismatchError.
    """
    call = decode_call(terms.engine, packed)
    if isinstance(call, DetectionCall):
        sizes = call.sizes
        return _NO_CIRCUIT, msgspec.structs.replace(
            _NO_SIZES,
            num_qubits=sizes.qubits,
            num_clbits=sizes.detectors + sizes.observables,
            operations=sizes.operations,
        )
    if isinstance(call, TranspileCall):
        return _NO_CIRCUIT, msgspec.structs.replace(
            _NO_SIZES, operations=len(call.circuits), gates_2q=target_entries(call.device)
        )
    return _NO_CIRCUIT, msgspec.structs.replace(_NO_SIZES, operations=1)

"""Steps that the engine `rydberg` takes for a packed pulse sequence."""

from __future__ import annotations

import msgspec

from simenv.model import TaskOptions
from simenv.model.calls import decode_call
from simenv.model.pulses import RYDBERG, PulseAnswer, PulseCall, settled
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog.engine import PulseEngine
from simulators.engine import RunControl


def steps_of_run(packed: bytes, shots: int) -> int:
    """Run a call and return its steps, over all trajectories."""
    call = decode_call(RYDBERG, packed)
    assert isinstance(call, PulseCall)
    call = settled(call, shots, on_device=False)
    assigned = AssignedTask(1, 1, 0, b"", shots, 7, b"", 0, trusted=True)
    value, _, _ = PulseEngine().call(call, assigned, TaskOptions(), RunControl())
    return msgspec.msgpack.decode(value, type=PulseAnswer).steps

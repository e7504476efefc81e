"""Arrays and metadata of the results of pulse sequences, as they are in files.

Layout of format number 1, with the arrays that the result has:

  pulses/atoms                        bytes [atoms]: names in UTF-8, in the register's order
  pulses/times                        float64 [times]: relative to the duration, 1.0: the end
  pulses/occupation                   float64 [times, atoms]
  pulses/correlation                  float64 [times, atoms, atoms]
  pulses/energy                       float64 [times, 2]: mean and second moment, rad/us
  pulses/expectation                  float64 [times, observables]
  pulses/standard_errors/NAME         of each of the four before, in its shape
  pulses/counts/times                 uint32 [k]: row of `pulses/times`, ascending
  pulses/counts/outcomes              uint64 [k, words]: the first atom is the highest bit of
                                      `atoms` bits; words of 64 bits, highest first
  pulses/counts/counts                uint64 [k]
  pulses/memory                       uint64 [times, shots, words]
  pulses/statevector                  complex128 [times, 2**atoms]: the first atom is the highest
                                      bit of an index
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from simenv.errors import VersionMismatchError
from simenv.model.calls import CALL_FORMAT
from simenv.model.pulses import PULSE_ENGINES, PulseAnswer, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN = (
    *("basis", "shots", "seed", "duration_ns", "error", "steps", "trajectories", "simulator"),
    "remark",
)


def _view_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.type is bytes:
        return memoryview
    return tuple[memoryview, ...] if field.name in ("outcomes", "counts") else field.type


def _views() -> Any:
    """Return a PulseAnswer whose arrays are views of the encoded answer, which may be mapped."""
    fields: list[Any] = []
    for each in msgspec.structs.fields(PulseAnswer):
        default = () if each.default is msgspec.NODEFAULT else (each.default,)
        fields.append((each.name, _view_of(each), *default))
    return msgspec.defstruct("PulseViews", fields, array_like=True, frozen=True)


_VIEWS = _views()


def answer_of(engine: str, value: bytes | memoryview) -> Any:
    """Return the outcomes of a pulse sequence in the value of a task, as a PulseAnswer whose arrays
    are views; None: it ran something else. Raises VersionMismatchError."""
    if engine not in PULSE_ENGINES or not len(value):
        return None
    answer = msgspec.msgpack.decode(value, type=_VIEWS)
    if answer.format != CALL_FORMAT:
        text = f"an answer of format {answer.format}, this client reads {CALL_FORMAT}"
        hint = "client and service should be of one version"
        raise VersionMismatchError(text, hint=hint)
    return answer


def metadata(answer: Any) -> dict[str, Any]:
    """Return what is no array, as builtins. `error` is None where none is known."""
    values = {name: getattr(answer, name) for name in _PLAIN}
    return values | {"error": answer.error if answer.error == answer.error else None}


def arrays(answer: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays by their names in a file; they share the memory of the answer."""
    import numpy as np

    times, atoms = len(answer.times), len(answer.atoms)
    size = words(atoms)
    names = np.array([name.encode() for name in answer.atoms])
    found: dict[str, NDArray[Any]] = {"atoms": names, "times": np.array(answer.times, "<f8")}
    shapes = {"occupation": (atoms,), "correlation": (atoms, atoms), "energy": (2,)}
    errors = np.frombuffer(answer.standard_errors, "<f8").reshape(times, -1)
    first = 0
    for name in ("occupation", "correlation", "energy", "expectation"):
        values = np.frombuffer(getattr(answer, name), "<f8").reshape(times, -1)
        width = values.shape[1]
        if not width:
            continue
        shape = (times, *shapes.get(name, (width,)))
        found[name] = values.reshape(shape)
        if errors.size:
            of_name = np.ascontiguousarray(errors[:, first : first + width])
            found[f"standard_errors/{name}"] = of_name.reshape(shape)
        first += width
    if answer.outcomes:
        counts = [np.frombuffer(each, "<u8") for each in answer.counts]
        rows = np.repeat(np.arange(times, dtype="<u4"), [len(each) for each in counts])
        found["counts/times"] = rows
        joined = np.frombuffer(b"".join(answer.outcomes), "<u8")
        found["counts/outcomes"] = joined.reshape(-1, size)
        found["counts/counts"] = np.concatenate(counts)
    if answer.memory:
        found["memory"] = np.frombuffer(answer.memory, "<u8").reshape(times, answer.shots, size)
    if answer.statevector:
        found["statevector"] = np.frombuffer(answer.statevector, "<c16").reshape(times, -1)
    return {f"pulses/{name}": array for name, array in found.items()}

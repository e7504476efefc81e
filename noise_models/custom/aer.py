"""Import of Qiskit Aer's noise models in the form of `NoiseModel.to_dict(serializable=True)`.

`errors` has quantum errors (`qerror`: a mixture of circuits after some operations) and readout
errors (`roerror`: row true, column read). Errors of given qubits replace those of all qubits.
Besides Aer's fields, `idle` may list relaxation times of waiting qubits (see `IdleEntry`), `name` a
name, `num_qubits` the size of the device. Without it the model holds for any number of qubits, as
in Aer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import custom, strict_json
from noise_models.channel import Channel, from_kraus, from_paulis, from_unitary, identity, tensor
from noise_models.strict_json import NoiseError, SnapshotError

_ROOT = np.sqrt(0.5)
_UNITARIES: dict[str, Sequence[Sequence[complex]]] = {
    "id": ((1, 0), (0, 1)),
    "x": ((0, 1), (1, 0)),
    "y": ((0, -1j), (1j, 0)),
    "z": ((1, 0), (0, -1)),
    "h": ((_ROOT, _ROOT), (_ROOT, -_ROOT)),
    "s": ((1, 0), (0, 1j)),
    "sdg": ((1, 0), (0, -1j)),
    "sx": ((0.5 + 0.5j, 0.5 - 0.5j), (0.5 - 0.5j, 0.5 + 0.5j)),
    "sxdg": ((0.5 - 0.5j, 0.5 + 0.5j), (0.5 + 0.5j, 0.5 - 0.5j)),
    "cx": ((1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0)),
    "cz": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, -1)),
    "swap": ((1, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 0), (0, 0, 0, 1)),
}
# Operations whose number of qubits Aer compares with that of their errors.
_SIZED = frozenset(
    {
        *("id", "x", "y", "z", "h", "s", "sdg", "sx", "sxdg", "t", "tdg", "p", "r", "rx", "ry"),
        *("rz", "u", "u1", "u2", "u3", "reset", "delay", "measure"),
        *("cx", "cy", "cz", "cp", "cu1", "cu3", "swap", "ecr", "rxx", "ryy", "rzz", "rzx"),
    }
)
_RESET = (np.array([[1, 0], [0, 0]], np.complex128), np.array([[0, 1], [0, 0]], np.complex128))


class _Instruction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    qubits: tuple[int, ...] = ()
    params: tuple[Any, ...] = ()


class _Error(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    operations: tuple[str, ...]
    probabilities: tuple[Any, ...]
    instructions: tuple[tuple[_Instruction, ...], ...] = ()
    gate_qubits: tuple[tuple[int, ...], ...] = ((),)
    id: str = ""


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    errors: tuple[_Error, ...]
    name: str = "aer"
    num_qubits: int = 0
    idle: tuple[custom.IdleEntry, ...] = ()


def from_aer(values: Any) -> custom.CustomModel:
    """Convert Aer's dictionary to a custom model. Raises SnapshotError, which names the field."""
    inputs = strict_json.converted(values, _Model)
    channels: list[custom.ChannelEntry] = []
    readout: list[custom.ReadoutEntry] = []
    for index, each in enumerate(inputs.errors):
        field = f"errors[{index}]"
        try:
            if each.type == "qerror":
                channels += _quantum(each, field)
            elif each.type == "roerror":
                readout += _readout(each, field)
            else:
                hint = "qerror"
                raise SnapshotError(f"{field}.type", strict_json.short_repr(each.type), hint=hint)
        except NoiseError as problem:
            if isinstance(problem, SnapshotError):
                raise
            raise SnapshotError(field, problem.message, hint=problem.hint) from None
    result = custom.CustomModel(
        name=inputs.name,
        num_qubits=inputs.num_qubits,
        channels=tuple(channels),
        idle=inputs.idle,
        readout=tuple(readout),
    )
    custom.check(result)
    return result


def _quantum(error: _Error, field: str) -> list[custom.ChannelEntry]:
    """Return the channel entries of a mixture of circuits."""
    weights = [_probability(each, f"{field}.probabilities") for each in error.probabilities]
    if len(weights) != len(error.instructions) or abs(sum(weights) - 1.0) > 1e-9:
        hint = "one for each circuit, sum 1"
        raise SnapshotError(f"{field}.probabilities", f"a sum of {sum(weights)}", hint=hint)
    named = [max(each.qubits, default=0) for circuit in error.instructions for each in circuit]
    size = max(named, default=0) + 1
    fewest = min((len(qubits) for qubits in error.gate_qubits if qubits), default=size)
    if size > max(2, min(_WIDEST, fewest)):
        raise SnapshotError(field, f"an error of {size} qubits", hint=_WIDE_HINT)
    if size > 2:
        return _wide(error, [weight / sum(weights) for weight in weights], size, field)
    total = np.zeros((4**size, 4**size))
    for k, (weight, circuit) in enumerate(zip(weights, error.instructions, strict=True)):
        built = identity(size)
        for i, instruction in enumerate(circuit):
            place = f"{field}.instructions[{k}][{i}]"
            for channel, qubits in _parts(instruction, place):
                built = built.then(_embedded(channel, qubits, size, place))
        total += weight / sum(weights) * built.ptm
    entry = _entry_fields(Channel(total))
    return [
        custom.ChannelEntry(
            gate=operation, qubits=qubits, operands=_operands(operation, qubits, size), **entry
        )
        for operation in error.operations
        for qubits in error.gate_qubits
    ]


def _operands(operation: str, qubits: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the operands that an error of this size acts on: in Aer the first ones, where the
    operation may have more; (): all."""
    if operation in _SIZED or 0 < len(qubits) <= size:
        return ()
    return tuple(range(size))


# Errors on more than two qubits: products of channels on one and two of them.

_WIDEST = 4  # qubits: 65,536 entries of a transfer matrix
_PRODUCT_TOLERANCE = 1e-12
_WIDE_HINT = (
    "channels act on 1 or 2 qubits: give an error of 3 or 4 as a product (tensor) of such ones, or"
    " errors of the gates on 1 and 2 qubits that the operation is transpiled to"
)
_Array = NDArray[np.float64]


def _wide(error: _Error, weights: list[float], size: int, field: str) -> list[custom.ChannelEntry]:
    """Return the entries of an error on three or four qubits that is a product of channels on one
    and two of them. Raises SnapshotError for another one."""
    total = np.zeros((4**size, 4**size))
    for k, (weight, circuit) in enumerate(zip(weights, error.instructions, strict=True)):
        is_pauli = all(each.name == "pauli" for each in circuit)
        built = np.ones((4**size, 1)) if is_pauli else np.eye(4**size)  # its diagonal suffices
        for i, instruction in enumerate(circuit):
            place = f"{field}.instructions[{k}][{i}]"
            for channel, qubits in _parts(instruction, place):
                built = _then(built, channel, qubits, size, place)
        total += weight * (np.diag(built[:, 0]) if is_pauli else built)
    for blocks in _partitions(tuple(range(size))):
        parts = [(block, _reduced(total, block)) for block in blocks]
        product = np.eye(4**size)
        for block, part in parts:
            product = _then(product, Channel(part), block, size, field)
        if np.abs(product - total).max() <= _PRODUCT_TOLERANCE:
            return [
                custom.ChannelEntry(
                    gate=operation, qubits=qubits, operands=block, **_entry_fields(Channel(part))
                )
                for operation in error.operations
                for qubits in error.gate_qubits
                for block, part in parts
            ]
    raise SnapshotError(field, f"a correlated error of {size} qubits", hint=_WIDE_HINT)


def _then(before: _Array, channel: Channel, qubits: Sequence[int], size: int, field: str) -> _Array:
    """Return columns of a transfer matrix, followed by a channel on some of `size` qubits."""
    width = channel.num_qubits
    _check_qubits(qubits, width, field)
    axes = [size - 1 - qubit for qubit in reversed(qubits)]  # of the last qubit first
    tensor = before.reshape((4,) * size + (-1,))
    applied = np.tensordot(
        channel.ptm.reshape((4,) * (2 * width)), tensor, (range(width, 2 * width), axes)
    )
    return np.moveaxis(applied, range(width), axes).reshape(before.shape)


def _reduced(total: _Array, block: tuple[int, ...]) -> _Array:
    """Return the transfer matrix of a product's factor on the qubits of `block`."""
    number = np.arange(4 ** len(block))
    places = np.zeros(number.size, np.int64)
    for k, qubit in enumerate(block):
        places += (number >> 2 * k & 3) << 2 * qubit
    return np.asarray(total[np.ix_(places, places)])


def _partitions(qubits: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """Iterate over the divisions of qubits into ones and pairs, ones first."""
    if not qubits:
        yield []
        return
    first, *others = qubits
    for rest in _partitions(tuple(others)):
        yield [(first,), *rest]
    for other in others:
        for rest in _partitions(tuple(each for each in others if each != other)):
            yield [(first, other), *rest]


def _probability(value: Any, field: str) -> float:
    if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0 + 1e-9:
        raise SnapshotError(field, strict_json.short_repr(value), hint="a number from 0 to 1")
    return float(value)


def _parts(instruction: _Instruction, field: str) -> Iterator[tuple[Channel, tuple[int, ...]]]:
    """Iterate over the channels of one instruction with the qubits that they act on: of a Pauli
    string one for each letter but I, of others one."""
    qubits, params = instruction.qubits, instruction.params
    if instruction.name != "pauli" or len(params) != 1 or not isinstance(params[0], str):
        yield _channel(instruction, field), qubits
        return
    letters = params[0]
    if not letters or not set(letters) <= {*_PAULIS}:
        raise SnapshotError(f"{field}.params", strict_json.short_repr(letters), hint="as X or XI")
    _check_qubits(qubits, len(letters), field)
    for letter, qubit in zip(reversed(letters), qubits, strict=True):  # the last acts on the first
        if letter != "I":
            yield _PAULIS[letter], (qubit,)


_PAULIS = {letter: from_paulis(np.eye(4)[k]) for k, letter in enumerate("IXYZ")}


def _check_qubits(qubits: Sequence[int], count: int, field: str) -> None:
    """Raise SnapshotError unless these are `count` different qubits."""
    if len(qubits) != count or len(set(qubits)) != count or min(qubits) < 0:
        hint = f"{count} different qubits"
        raise SnapshotError(f"{field}.qubits", str(qubits)[:60], hint=hint)


def _channel(instruction: _Instruction, field: str) -> Channel:
    """Return the channel of one instruction on its qubits."""
    name, params = instruction.name, instruction.params
    if name in _UNITARIES:
        return from_unitary(np.array(_UNITARIES[name], np.complex128))
    if name == "reset":
        return from_kraus(_RESET)
    if name == "unitary" and len(params) == 1:
        return from_unitary(_array(params[0], field))
    if name == "kraus" and params:
        return from_kraus([_array(each, field) for each in params])
    hint = f"kraus, unitary, pauli, reset, {', '.join(_UNITARIES)}"
    raise SnapshotError(f"{field}.name", strict_json.short_repr(name), hint=hint)


def _array(value: Any, field: str) -> NDArray[np.complex128]:
    try:
        return custom.matrix(msgspec.convert(value, custom.Matrix))
    except msgspec.ValidationError as error:
        raise SnapshotError(f"{field}.params", str(error)[:200], hint="rows of numbers") from None


def _embedded(channel: Channel, qubits: tuple[int, ...], size: int, field: str) -> Channel:
    """Extend a channel of some qubits to all qubits of the error."""
    _check_qubits(qubits, channel.num_qubits, field)
    if channel.num_qubits == size:
        return channel if qubits[0] == 0 else channel.reversed()
    return tensor(channel, identity(1)) if qubits[0] == 0 else tensor(identity(1), channel)


def _entry_fields(channel: Channel) -> dict[str, Any]:
    """Return the entry field that holds a channel: Pauli probabilities, or Kraus operators."""
    if channel.is_pauli:
        weights = np.maximum(channel.pauli_probabilities, 0.0)
        size = channel.num_qubits
        names = [
            "".join("IXYZ"[k >> 2 * i & 3] for i in reversed(range(size))) for k in range(4**size)
        ]
        return {"paulis": {name: float(p) for name, p in zip(names, weights, strict=True) if p}}
    return {
        "kraus": tuple(
            tuple(tuple((float(x.real), float(x.imag)) for x in row) for row in operator)
            for operator in channel.kraus()
        )
    }


def _readout(error: _Error, field: str) -> list[custom.ReadoutEntry]:
    """Return the entries of a readout error; Aer's rows are the true outcomes."""
    if set(error.operations) != {"measure"}:
        raise SnapshotError(f"{field}.operations", str(error.operations)[:60], hint="measure")
    try:
        rows = msgspec.convert(error.probabilities, tuple[tuple[float, ...], ...])
    except msgspec.ValidationError as problem:
        raise SnapshotError(f"{field}.probabilities", str(problem)[:200], hint="rows") from None
    if len({len(rows), *map(len, rows)}) != 1:
        raise SnapshotError(f"{field}.probabilities", "not square", hint="rows of one length")
    confusion = tuple(zip(*rows, strict=True))
    results = []
    for qubits in error.gate_qubits:
        if len(rows) == 2:
            results.append(custom.ReadoutEntry(qubits=qubits, p01=rows[0][1], p10=rows[1][0]))
        else:
            results.append(custom.ReadoutEntry(qubits=qubits, confusion=confusion))
    return results

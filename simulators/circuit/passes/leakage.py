"""Leakage of gates to a third level.

After a gate a qubit leaks from |1> with probability p, without coherence between its levels, and a
leaked qubit comes back to |1> with probability s: Kraus operators diag(1, sqrt(1 - p), sqrt(1 -
s)), sqrt(p) |2><1| and sqrt(s) |1><2|. So the state has no coherence between the third level and
the others, and a classical flag says whether a qubit is leaked (`leakage_flags`). Gates on it alone
do nothing. On the other qubits of a gate, and of a channel on two qubits, it acts like the
completely mixed state I / 2: a controlled-Z dephases the partner, a controlled-X on a leaked
control flips it half of the time. (The phase that a partner gets from a leaked transmon is random:
Varbanov et al., arXiv 2002.07119, section II.) While it waits, a leaked qubit decays to |1> and
from there to |0>: it comes back to one of them with probabilities of its own. It is read as |1>
with a probability of its own, and a reset brings it back.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel
from noise_models.model import NoiseModel
from simulators.circuit import gates
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import Leakage, NoiseProgram


def lost(program: NoiseProgram) -> NoiseProgram:
    """Leakage of the gates of a noise program as maps that only keep the shots that stay."""
    found = program.leakage
    assert found is not None
    out = found.leak > 0.0
    rates, number = np.unique(found.leak[out], return_inverse=True)
    locations = np.column_stack(
        (found.after[out], number, found.qubits[out], np.full(number.size, -1, np.int64))
    )
    channels = []
    for leak in rates.tolist():
        stays, one = math.sqrt(1.0 - leak), 1.0 - 0.5 * leak
        ptm = np.diag((one, stays, stays, one))
        ptm[0, 3] = ptm[3, 0] = 0.5 * leak
        channels.append(Channel(ptm))
    return NoiseProgram(program.digest, frozenset({"kraus"}), locations, tuple(channels))


class Waits(msgspec.Struct, frozen=True, eq=False):
    """Idle times: the operation and the location that each one's relaxation follows and precedes,
    by the rules of `Leakage`."""

    after: NDArray[np.int64]
    places: NDArray[np.int64]
    qubits: NDArray[np.int64]
    time_ns: NDArray[np.float64]


def leakage(
    circuit: Circuit,
    operands: Operands,
    model: NoiseModel,
    gate_ends: NDArray[np.int64],
    waits: Waits,
) -> Leakage | None:
    """Leakage of the gates of a circuit, and decay while leaked qubits wait; None: no gate leaks.
    `gate_ends` [operations + 1]: first location after those of the gate's own channels, operation
    -1 first."""
    names, ops = circuit.noise_names, circuit.ops
    known: dict[tuple[int, tuple[int, ...]], tuple[float, float]] = {}
    rows: list[tuple[int, int, int]] = []
    rates: list[tuple[float, float]] = []
    for k in np.flatnonzero((operands.codes >= gates.UNITARY) & (operands.counts > 0)).tolist():
        key = int(ops[k]), operands.qubits(k)
        if key not in known:
            known[key] = model.leakage(names[key[0]], key[1])
        if any(known[key]):
            rows += [(k, int(gate_ends[k + 1]), qubit) for qubit in key[1]]
            rates += [known[key]] * len(key[1])
    leaking = {row[2] for row, (leak, _) in zip(rows, rates, strict=True) if leak}
    if not leaking:
        return None
    acting = [n for n, row in enumerate(rows) if row[2] in leaking]
    events = np.array(rows, np.int64)[acting]
    found = np.column_stack((np.array(rates)[acting], np.zeros(len(acting))))
    idle, decays = _decays(waits, model, _first_leaks(events, found, operands))
    events, found = np.concatenate((events, idle)), np.concatenate((found, decays))
    order = np.lexsort((events[:, 1], events[:, 0]))
    after, place, qubits = events[order].T
    leak, seep, decay = found[order].T
    readout = np.array([model.leaked_readout(q) for q in range(circuit.num_qubits)])
    return Leakage(after, place, qubits, leak, seep, decay, readout)


def _first_leaks(
    events: NDArray[np.int64], rates: NDArray[np.float64], operands: Operands
) -> dict[int, int]:
    """Operation after which each qubit may be leaked; -1 in circuits with loops."""
    if not {gates.FOR, gates.WHILE}.isdisjoint(operands.codes.tolist()):
        return dict.fromkeys(events[:, 2].tolist(), -1)
    found = events[rates[:, 0] > 0.0][::-1]
    return dict(zip(found[:, 2].tolist(), found[:, 0].tolist(), strict=True))


def _decays(
    waits: Waits, model: NoiseModel, leaks: dict[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows (operation, location, qubit) of idle times of qubits that may be leaked, and their
    probabilities (0, to |1>, to |0>)."""
    known: dict[tuple[int, float], tuple[float, float]] = {}
    rows: list[tuple[int, int, int]] = []
    rates: list[tuple[float, float, float]] = []
    for after, place, qubit, time in zip(
        waits.after.tolist(), waits.places.tolist(), waits.qubits.tolist(), waits.time_ns.tolist(),
        strict=True,
    ):  # fmt: skip
        if leaks.get(qubit, after + 1) > after:
            continue
        key = qubit, time
        if key not in known:
            known[key] = model.seepage(*key)
        if any(known[key]):
            rows.append((after, place, qubit))
            rates.append((0.0, *known[key]))
    return np.array(rows, np.int64).reshape(-1, 3), np.array(rates).reshape(-1, 3)

"""Patches of a code on a chip: their places, and the chip's data for them.

A patch lies on the chip where the chip's couplings have those of the code. A patch for which there
is no place has values drawn from the chip (`noise_models.drawn`), and so have pairs of two patches,
which no planar chip couples. Qubits and pairs of which no code would be built are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import rustworkx

from noise_models.calibration import CalibrationSnapshot, GateCalibration
from noise_models.drawn import drawn
from noise_models.strict_json import SnapshotError
from simenv.calibration.logical.surface_code import SurfaceCode
from simenv.errors import OptionError

Pair = tuple[int, int]
Place = tuple[int, ...]  # qubit of the chip for each qubit of a patch
SEARCH_CALLS = 1_000_000  # steps of the search for one place, about a second
_WORST_GATE = 0.1  # average infidelity
_WORST_READOUT = 0.2  # p01 + p10
_BROKEN = 1.0  # the error of a gate that does not work


def selected(chip: CalibrationSnapshot) -> CalibrationSnapshot:
    """Return the chip without the qubits and pairs that are too bad for a code."""
    bad = set(chip.unusable) | set(chip.unmeasured)
    bad.update(
        qubit
        for qubit, each in enumerate(chip.qubits)
        if sum(each.confusion or (0.0, 0.0)) > _WORST_READOUT
    )
    gates = []
    for gate in chip.gates:
        if (gate.error or 0.0) > _WORST_GATE and gate.qubits:
            if len(gate.qubits) == 1:
                bad.update(gate.qubits)
            gate = msgspec.structs.replace(gate, error=_BROKEN)
        gates.append(gate)
    return msgspec.structs.replace(chip, unusable=tuple(sorted(bad)), gates=tuple(gates))


def places(chip: CalibrationSnapshot, code: SurfaceCode, count: int) -> list[Place]:
    """Return places of at most `count` patches without a common qubit, found one after the other by
    subgraph monomorphism (VF2++, Juttner and Madarasz, Discrete Appl. Math. 242, 69)."""
    free = sorted(set(range(chip.num_qubits)).difference(chip.unusable))
    size = code.num_qubits
    if chip.all_to_all:
        most = min(count, len(free) // size)
        return [tuple(free[k * size : (k + 1) * size]) for k in range(most)]
    patch = rustworkx.PyGraph()
    patch.add_nodes_from(range(size))
    patch.add_edges_from_no_data(list(code.pairs))
    pairs = sorted({(min(pair), max(pair)) for pair in chip.coupled})
    results: list[Place] = []
    while len(results) < count and len(free) >= size:
        index = {qubit: node for node, qubit in enumerate(free)}
        graph = rustworkx.PyGraph()
        graph.add_nodes_from(free)
        graph.add_edges_from_no_data(
            [(index[a], index[b]) for a, b in pairs if a in index and b in index]
        )
        found = next(
            iter(
                rustworkx.vf2_mapping(
                    graph, patch, subgraph=True, induced=False, call_limit=SEARCH_CALLS
                )
            ),
            None,
        )
        if found is None:
            break
        by_qubit = {qubit: free[node] for node, qubit in found.items()}
        results.append(tuple(by_qubit[qubit] for qubit in range(size)))
        free = sorted(set(free).difference(results[-1]))
    return results


def patch_chip(
    chip: CalibrationSnapshot, code: SurfaceCode, placed: Sequence[Place], count: int, seed: int
) -> CalibrationSnapshot:
    """Return the chip's data for `count` patches, the first of them at places of the chip. Qubit q
    of patch p is p * code.num_qubits + q. Data qubits of neighbours with the same number are
    coupled, by drawn pairs. Raises OptionError for a chip that has no values to draw."""
    size = code.num_qubits
    pairs = [(p * size + a, p * size + b) for p in range(count) for a, b in code.pairs]
    for p in range(count - 1):
        pairs += [(p * size + q, (p + 1) * size + q) for q in range(code.num_data)]
    try:
        result = drawn(chip, count * size, pairs, seed)
    except SnapshotError as error:
        hint = "a device with qubits and pairs that work"
        raise OptionError(f"no patches from device {chip.name}: {error}", hint=hint) from error
    if not placed:
        return result
    own = {q: p * size + k for p, place in enumerate(placed) for k, q in enumerate(place)}

    def in_patch(qubits: Sequence[int]) -> bool:
        """Return whether qubits of the result belong to one placed patch."""
        patches = {qubit // size for qubit in qubits}
        return len(patches) == 1 and patches.pop() < len(placed)

    def moved(gate: GateCalibration) -> GateCalibration | None:
        qubits = tuple(own.get(qubit, -1) for qubit in gate.qubits)
        if not qubits or -1 in qubits or not in_patch(qubits):
            return None
        return msgspec.structs.replace(gate, qubits=qubits)

    gates = [gate for gate in result.gates if not gate.qubits or not in_patch(gate.qubits)]
    gates += [new for gate in chip.gates if (new := moved(gate)) is not None]
    coupling = [pair for pair in result.coupling if not in_patch(pair)]
    ends = [(own[a], own[b]) for a, b in chip.coupled if a in own and b in own]
    coupling += [pair for pair in ends if in_patch(pair)]
    qubits = list(result.qubits)
    for qubit, number in own.items() if chip.qubits else ():
        qubits[number] = chip.qubits[qubit]
    zz = [term for term in result.zz if not in_patch(term.qubits)]
    for term in chip.zz:
        first, second = (own.get(qubit, -1) for qubit in term.qubits)
        if min(first, second) >= 0 and in_patch((first, second)):
            zz.append(msgspec.structs.replace(term, qubits=(first, second)))
    return msgspec.structs.replace(
        result, gates=tuple(gates), coupling=tuple(coupling), qubits=tuple(qubits), zz=tuple(zz)
    )


def corners(large: SurfaceCode, small: SurfaceCode) -> list[Place]:
    """Return the qubits of a smaller code in the four corners of a patch."""
    index = {site: qubit for qubit, site in enumerate(large.sites)}
    last = 2 * (large.distance - small.distance)
    return [
        tuple(index[x + right, y + down] for x, y in small.sites)
        for right in (0, last)
        for down in (0, last)
    ]

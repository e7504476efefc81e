"""Inference of the qubits that circuits ran on, where the data do not state them.

Circuits without a layout and a level of compilation ran on qubits that a compiler of their time
chose. On a device with few qubits there are few layouts: `with_layouts` takes the one that predicts
the training rows best, by the unfitted snapshot. One layout holds for all circuits with the same
number of qubits, as that of Qiskit's DenseLayout does, which depends on the device and on this
number alone (Qiskit's default of 2021 for circuits that need swaps).

Some of many layouts fit any counts well, such as those with more swaps where noise is larger than
calibrated. A layout is therefore used only if the unfitted snapshot predicts better at it than
devices that are fitted to the same rows with the compiler's choice of qubits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import accept
from simenv.calibration.data import CountsData
from simenv.calibration.fit import solve
from simenv.calibration.fit.attempt import FitBase
from simenv.calibration.fit.components import homogeneous
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.score import Predictor

MOST_LAYOUTS = 1000  # candidates for circuits with one number of qubits
LEAST_CIRCUITS = 3  # of a choice
_MOST_WORK = 2**26  # limit of 4^qubits times steps of a circuit that is predicted
_PRIOR = solve.Prior(solve.COMMON_WIDTH)  # of the fits: factors that all qubits share


def with_layouts(data: CountsData, snapshot: CalibrationSnapshot) -> CountsData:
    """Copy of the data with inferred layouts of rows whose layout and level are unknown. Test rows
    have no part in the choice, and get it. Raises DataError for a circuit that the device cannot
    run."""
    predictor = Predictor(snapshot, compiler=DeviceCompiler(snapshot), most_work=_MOST_WORK)
    layouts: dict[int, tuple[int, ...]] = {}
    unknown = [
        each for each in data.records if not (each.is_test or each.layout or each.level >= 0)
    ]
    for size in {each.source.loaded.num_qubits for each in unknown}:
        records = [each for each in unknown if each.source.loaded.num_qubits == size]
        circuits = accept.held_out_circuits(records, [0] * len(records), {})
        count = math.perm(snapshot.num_qubits, size)
        if size > 1 and count <= MOST_LAYOUTS and len(circuits) >= LEAST_CIRCUITS:
            layouts[size] = _chosen(circuits, predictor, snapshot, size)
    records = [
        each
        if each.layout or each.level >= 0
        else msgspec.structs.replace(each, layout=layouts.get(each.source.loaded.num_qubits, ()))
        for each in data.records
    ]
    return msgspec.structs.replace(data, records=tuple(records))


def _chosen(
    circuits: Sequence[accept.HeldOutCircuit],
    predictor: Predictor,
    snapshot: CalibrationSnapshot,
    size: int,
) -> tuple[int, ...]:
    """Layout with the least mean Hellinger distance; (): the compiler's choice."""
    distances = {
        layout: _distance(circuits, predictor, layout)
        for layout in ((), *itertools.permutations(range(snapshot.num_qubits), size))
    }
    best = min(distances, key=distances.__getitem__)
    fitted = (_fitted_distance(circuits, device) for device in (snapshot, homogeneous(snapshot)))
    return best if distances[best] < min(fitted) else ()


def _distance(
    circuits: Sequence[accept.HeldOutCircuit], predictor: Predictor, layout: tuple[int, ...]
) -> float:
    """Mean of the Hellinger distances sqrt(2 - 2 sum sqrt(p q)) of all circuits at a layout; a
    circuit without a prediction counts as one of disjoint distributions."""
    placed = [
        msgspec.structs.replace(each, record=msgspec.structs.replace(each.record, layout=layout))
        for each in circuits
    ]
    root = np.sqrt(np.nan_to_num(accept.fidelities(placed, [predictor])))
    return float(np.sqrt(np.maximum(2.0 - 2.0 * root, 0.0)).mean())


def _fitted_distance(
    circuits: Sequence[accept.HeldOutCircuit], snapshot: CalibrationSnapshot
) -> float:
    """The same by a fit of the device to these circuits, on the compiler's choice of qubits."""
    records = tuple(msgspec.structs.replace(each.record, time_s=math.nan) for each in circuits)
    base = FitBase.of(snapshot.name, snapshot, CountsData(records))
    blocks = solve.fit(base.problem, _PRIOR).blocks
    return float(np.sqrt([block.loss for block in blocks]).mean())

"""Places of patches on a chip, and the chip's data for them."""

from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("stim")

from noise_models import calibration as cal, library
from simenv.calibration.logical.patch_chip import (
    corners,
    patch_chip,
    places,
    selected,
)
from simenv.calibration.logical.surface_code import rotated


def square(rows: int, columns: int) -> cal.CalibrationSnapshot:
    """A square lattice whose qubits and pairs all have different values."""
    pairs = [
        (row * columns + column, (row + down) * columns + column + right)
        for row in range(rows)
        for column in range(columns)
        for down, right in ((0, 1), (1, 0))
        if row + down < rows and column + right < columns
    ]
    count = rows * columns
    return cal.CalibrationSnapshot(
        name="square",
        num_qubits=count,
        dynamic=True,
        native_gates=(cal.NativeGate("sx", 1), cal.NativeGate("rz", 1, 1), cal.NativeGate("cz", 2)),
        coupling=tuple(pairs),
        qubits=tuple(
            cal.QubitCalibration(t1_us=50.0 + q, t2_us=60.0, p01=0.01, p10=0.01, readout_ns=500.0)
            for q in range(count)
        ),
        gates=(
            cal.GateCalibration("rz", (), 0.0, 0.0),
            cal.GateCalibration("sx", (), 3e-4, 30.0),
            *(
                cal.GateCalibration("cz", pair, 1e-3 * (1 + k / 1000), 60.0)
                for k, pair in enumerate(pairs)
            ),
        ),
        zz=tuple(cal.ZZCoupling(pair, 10.0 + k) for k, pair in enumerate(pairs)),
    )


def test_patches_lie_side_by_side_on_couplings_of_the_chip() -> None:
    chip, code = square(10, 11), rotated(3)
    found = places(chip, code, 9)
    assert len(found) >= 3
    used = [qubit for place in found for qubit in place]
    assert len(used) == len(set(used))
    coupled = {frozenset(pair) for pair in chip.coupling}
    for place in found:
        assert all(frozenset((place[a], place[b])) in coupled for a, b in code.pairs)


def test_bad_qubits_and_pairs_are_avoided() -> None:
    chip, code = square(7, 7), rotated(3)
    (place,) = places(chip, code, 1)
    worse = list(chip.qubits)
    worse[place[0]] = msgspec.structs.replace(worse[place[0]], p01=0.3)
    gates = [
        msgspec.structs.replace(gate, error=0.5) if gate.qubits == chip.coupling[30] else gate
        for gate in chip.gates
    ]
    chip = msgspec.structs.replace(chip, qubits=tuple(worse), gates=tuple(gates))
    for found in places(selected(chip), code, 3):
        assert place[0] not in found
        pairs = {frozenset((found[a], found[b])) for a, b in code.pairs}
        assert frozenset(chip.coupling[30]) not in pairs


def test_no_lattice_of_degree_three_holds_a_patch() -> None:
    assert places(library.load("superconducting-lattice"), rotated(3), 1) == []


def test_a_placed_patch_has_the_values_of_its_place() -> None:
    chip, code = square(7, 7), rotated(3)
    found = places(chip, code, 1)
    made = patch_chip(chip, code, found, 2, seed=1)
    assert made.num_qubits == 2 * code.num_qubits
    errors = {frozenset(gate.qubits): gate.error for gate in chip.gates if len(gate.qubits) == 2}
    own = {frozenset(gate.qubits): gate.error for gate in made.gates if len(gate.qubits) == 2}
    for a, b in code.pairs:
        place = frozenset((found[0][a], found[0][b]))
        assert own[frozenset((a, b))] == errors[place]
    for qubit, place in enumerate(found[0]):
        assert made.qubits[qubit] == chip.qubits[place]
    coupled = {frozenset(pair) for pair in made.coupling}
    between = {frozenset((q, code.num_qubits + q)) for q in range(code.num_data)}
    patches = {
        frozenset((p * code.num_qubits + a, p * code.num_qubits + b))
        for p in range(2)
        for a, b in code.pairs
    }
    assert patches | between <= coupled
    extra = coupled - patches - between  # couplings of the chip inside the patch alone
    assert all(max(pair) < code.num_qubits for pair in extra)
    assert len({frozenset(term.qubits) for term in made.zz}) == len(made.zz)


def test_a_drawn_patch_is_the_same_alone_and_beside_others() -> None:
    chip, code = library.load("superconducting-lattice"), rotated(3)
    one, two = (patch_chip(selected(chip), code, [], count, seed=4) for count in (1, 2))
    assert one.qubits == two.qubits[: code.num_qubits]
    alone = {gate for gate in one.gates if len(gate.qubits) == 2}
    assert alone <= set(two.gates)
    assert two.qubits[: code.num_qubits] != two.qubits[code.num_qubits :]


def test_corners_of_a_patch_have_its_couplings() -> None:
    large, small = rotated(7), rotated(5)
    pairs = {frozenset(pair) for pair in large.pairs}
    found = corners(large, small)
    assert len(set(found)) == 4
    for place in found:
        assert all(frozenset((place[a], place[b])) in pairs for a, b in small.pairs)
        kinds = {check.ancilla: check.kind for check in large.checks}
        assert all(kinds[place[check.ancilla]] == check.kind for check in small.checks)

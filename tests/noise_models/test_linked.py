"""Union of the snapshots of several QPUs."""

import msgspec
import pytest

from noise_models import document, library
from noise_models.calibration import (
    AngleBounds,
    CalibrationSnapshot,
    GateCalibration,
    MeasurementCrosstalk,
    NativeGate,
    PauliError,
    QubitCalibration,
    ZZCoupling,
)
from noise_models.linked import LINK_ENDS, LinkDesign, linked
from noise_models.strict_json import SnapshotError

CHIP = CalibrationSnapshot(
    name="chip", num_qubits=3, technology="superconducting", dynamic=True, feed_forward_ns=600.0,
    native_gates=(NativeGate("rz", 1, 1), NativeGate("sx", 1), NativeGate("cz", 2)),
    coupling=((0, 1), (1, 0), (1, 2), (2, 1)), qubits=(QubitCalibration(t1_us=100.0),) * 3,
    gates=(
        GateCalibration("rz", error=0.0, duration_ns=0.0),
        GateCalibration("cz", error=0.01),
        GateCalibration("cz", (1, 2), error=0.03),
    ),
    zz=(ZZCoupling((0, 1), 40.0),), zz_strength=0.5,
    measurement_crosstalk=(MeasurementCrosstalk((), error=0.001),),
)  # fmt: skip
IONS = CalibrationSnapshot(
    name="ions", num_qubits=2, technology="trapped-ion", dynamic=True, all_to_all=True,
    feed_forward_ns=50e3, native_gates=(NativeGate("r", 1, 2), NativeGate("rzz", 2, 1)),
    gates=(GateCalibration("rzz", error=0.002),), rep_delay_ns=1e6,
)  # fmt: skip
LINK = LinkDesign(("a.0", "b.1"), fidelity=0.97, rate_hz=1e5)


def places(snapshot: CalibrationSnapshot, name: str) -> dict[tuple[int, ...], float | None]:
    return {gate.qubits: gate.error for gate in snapshot.gates if gate.name == name}


def test_each_module_keeps_its_own_gates() -> None:
    union = linked("duo", {"a": CHIP, "b": IONS}, [LINK])
    assert places(union, "cz") == {(0, 1): 0.01, (1, 0): 0.01, (1, 2): 0.03, (2, 1): 0.01}
    assert places(union, "rzz") == {(3, 4): 0.002, (4, 3): 0.002}
    assert places(union, "sx") == {(0,): None, (1,): None, (2,): None}
    assert places(union, "r") == {(3,): None, (4,): None}


def test_fractional_gates_are_those_of_all_modules_where_these_agree() -> None:
    bounds = ((0.0, 1.5),)
    chip = msgspec.structs.replace(
        CHIP,
        fractional_gates=(NativeGate("rx", 1, 1), NativeGate("rzz", 2, 1)),
        angle_bounds=(AngleBounds("rzz", bounds),),
        gates=(
            *CHIP.gates,
            GateCalibration("rx", error=0.001),
            GateCalibration("rzz", (0, 1), error=0.02),
        ),
    )
    two = linked("duo", {"a": chip, "b": chip}, [LINK])
    assert [each.name for each in two.fractional_gates] == ["rx", "rzz"]
    assert places(two, "rx") == {(qubit,): 0.001 for qubit in range(6)}
    assert places(two, "rzz") == {(0, 1): 0.02, (3, 4): 0.02}
    assert two.angle_bounds == (AngleBounds("rzz", bounds),)
    mixed = linked("duo", {"a": chip, "b": IONS}, [LINK])  # whose rzz is native, at any angle
    assert [each.name for each in mixed.fractional_gates] == ["rx"]
    assert places(mixed, "rzz") == {(3, 4): 0.002, (4, 3): 0.002}
    assert mixed.angle_bounds == ()


def test_pairs_of_a_link_are_made_on_its_qubits_alone() -> None:
    union = linked("duo", {"a": CHIP, "b": IONS}, [LINK])
    assert places(union, "rxx") == {(0, 4): pytest.approx(0.03), (4, 0): pytest.approx(0.03)}
    assert [(m.name, m.qubits, m.communication) for m in union.modules] == [
        ("a", (0, 1, 2), (0,)),
        ("b", (3, 4), (4,)),
    ]
    assert union.links[0].mean_wait_ns == pytest.approx(1e4)
    assert document.load(document.dump(union)) == union


def test_values_of_the_device_are_those_of_all_modules() -> None:
    union = linked("duo", {"a": CHIP, "b": IONS}, [LINK])
    assert union.acting_zz_khz == {(0, 1): 20.0}
    assert (union.feed_forward_ns, union.rep_delay_ns, union.technology) == (50e3, 1e6, "")
    pairs = {each.qubits for each in union.measurement_crosstalk}
    assert pairs == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    assert [each.t1_us for each in union.qubits] == [100.0, 100.0, 100.0, None, None]


def test_paulis_of_a_link_are_turned_with_its_qubits() -> None:
    link = LinkDesign(("a.0", "b.1"), paulis=(PauliError("IZ", 0.02),))
    union = linked("duo", {"a": CHIP, "b": IONS}, [link])
    found = {gate.qubits: gate.paulis[0].pauli for gate in union.gates if gate.paulis}
    assert found == {(0, 4): "IZ", (4, 0): "ZI"}


def test_bundled_devices_join() -> None:
    modules = {"a": library.load("superconducting-lattice"), "b": library.load("trapped-ions")}
    union = linked("duo", modules, [LinkDesign(("a.0", "b.0"), fidelity=0.9)])
    assert union.num_qubits == 59


def changed(**fields: object) -> LinkDesign:
    return msgspec.structs.replace(LINK, **fields)


@pytest.mark.parametrize(
    ("link", "text"),
    [
        (changed(ends=("a.0", "c.0")), "there is no module 'c'"),
        (changed(ends=("a.0", "a.1")), "a.0-a.1 joins module 'a' with itself"),
        (changed(ends=("a.0", "b.2")), "module 'b' has no qubit 2"),
        (changed(ends=("a.2", "b.0")), "qubit 2 of module 'a' does not work"),
        (changed(ends=("a", "b.0")), "end 'a' is no qubit"),
        (changed(rate_hz=0.0), "a.0-b.1 has the rate 0.0 /s"),
        (changed(rate_hz=-1.0), "the rate -1.0 /s"),
        (changed(fidelity=0.2), "a.0-b.1 has the fidelity 0.2"),
        (changed(fidelity=float("nan")), "the fidelity nan"),
        (changed(fidelity=None), "one of fidelity and paulis"),
        (changed(fidelity=None, paulis=(PauliError("IQ", 0.1),)), "of a.0-b.1.*'IQ'"),
    ],
)
def test_bad_links_are_refused_by_name(link: LinkDesign, text: str) -> None:
    chip = msgspec.structs.replace(CHIP, unusable=(2,))
    with pytest.raises(SnapshotError, match=text):
        linked("duo", {"a": chip, "b": IONS}, [link])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dynamic": False}, "ions has no measurements and conditions"),
        ({"unusable": (0,)}, "all usable qubits of ions are communication qubits"),
        ({"all_to_all": False}, "communication qubit 1 of ions has no gate with a data qubit"),
        ({"native_gates": (NativeGate("cz", 2, 1),)}, "gate cz has another number"),
        (
            {
                "native_gates": (NativeGate("rxx", 2, 1),),
                "angle_bounds": (AngleBounds("rxx", ((0.0, 1.0),)),),
            },
            "the angles of rxx have other limits",
        ),
    ],
)
def test_modules_that_cannot_be_linked_are_refused_by_name(
    change: dict[str, object], text: str
) -> None:
    ions = msgspec.structs.replace(IONS, **change)
    with pytest.raises(SnapshotError, match=text):
        linked("duo", {"a": CHIP, "b": ions}, [LINK])


def test_a_machine_needs_two_modules_and_a_link() -> None:
    with pytest.raises(SnapshotError, match="1 modules"):
        linked("duo", {"a": CHIP}, [LINK])
    with pytest.raises(SnapshotError, match="0 links"):
        linked("duo", {"a": CHIP, "b": IONS}, [])
    with pytest.raises(SnapshotError, match=r"a\.0-b\.1 is listed twice"):
        linked("duo", {"a": CHIP, "b": IONS}, [LINK, LINK])


def test_a_machine_is_bounded_before_it_is_written_out() -> None:
    ideal = library.load("ideal")  # small, but of every gate on every pair
    names = {f"m{number}": ideal for number in range(64)}
    with pytest.raises(SnapshotError, match=r"couplings and crosstalk of 64 modules"):
        linked("wide", names, [LinkDesign(("m0.0", "m1.0"), fidelity=0.9)])


def test_ends_of_links_may_have_hyphens() -> None:
    found = LINK_ENDS.fullmatch("a-x.0-b-1.2")
    assert found is not None
    assert found.groups() == ("a-x.0", "b-1.2")
    assert LINK_ENDS.fullmatch("a.0") is None

"""Calls of hostile clients are bounded at admission: devices to compile for, stim's circuits."""

import msgspec
import pytest
from failing import fails

from simenv.errors import LimitExceededError, OptionError, ProgramError, SimenvError
from simenv.model import GateInfo, calls
from simenv.model.devices import DeviceInfo, DeviceKind, OperationInfo
from simenv.model.options import TaskOptions, check_options
from simenv.service.program_rules import examined_call
from simenv.wire import codec
from simulators import catalog
from simulators.catalog.costs import CostQuery

TERMS = TaskOptions(engine=calls.TRANSPILER, outputs=("value",))
GATES = (GateInfo("cx", 2, 0), GateInfo("sx", 1, 0), GateInfo("rz", 1, 1))
RING = DeviceInfo(
    "ring", DeviceKind.IDEAL, "", "", "", "", 27, 1, GATES, False,
    coupling=tuple((k, (k + 1) % 27) for k in range(27)),
)  # fmt: skip


def _call(device: DeviceInfo, circuits: int = 1) -> bytes:
    packed = codec.encode(device)
    return codec.encode(
        calls.TranspileCall(calls.CALL_FORMAT, packed, 1, 7, 13, 0, (b"",) * circuits)
    )


def test_device_of_transpile_call_is_bounded() -> None:
    packed = _call(msgspec.structs.replace(RING, num_qubits=1_500, all_to_all=True, coupling=()))
    assert len(packed) < 517
    fails(LimitExceededError, r"1500 qubits .* the limit is 200000", examined_call, packed, TERMS)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"num_qubits": 2**62, "all_to_all": True}, ProgramError),
        ({"num_qubits": -5}, ProgramError),
        ({"num_qubits": 150_000, "coupling": ()}, LimitExceededError),
        ({"coupling": ((0, 27),)}, ProgramError),
        ({"operations": (OperationInfo("cx", (0, -1)),)}, ProgramError),
        (
            {"operations": (OperationInfo("cx", (0, 1)),) * 30_000, "gates": GATES * 9_000},
            SimenvError,
        ),
        ({"name": "\x1b[31mred"}, SimenvError),
        ({"name": "n" * 2**21}, LimitExceededError),
    ],
    ids=str,
)
def test_transpile_without_device(changes: dict[str, object], error: type[SimenvError]) -> None:
    fails(error, "", examined_call, _call(msgspec.structs.replace(RING, **changes)), TERMS)


def test_cost_of_transpile_call_follows_width_and_circuits() -> None:
    card = catalog.card(calls.TRANSPILER)
    wide = msgspec.structs.replace(RING, num_qubits=120, all_to_all=True, coupling=())
    small, many, large = (
        examined_call(_call(device, count), TERMS)[1]
        for device, count in ((RING, 1), (RING, 200), (wide, 1))
    )
    query = CostQuery()
    costs = card.costs
    assert costs.seconds(many, query, 1) > 50 * costs.seconds(small, query, 1)
    assert costs.seconds(large, query, 1) > 5 * costs.seconds(small, query, 1)
    assert costs.memory_bytes(large, query) > costs.memory_bytes(small, query) + 2**24


@pytest.mark.parametrize("depth", [65, 990])
def test_deeply_nested_blocks_of_stim_are_refused(depth: int) -> None:
    text = "REPEAT 2 {\n" * depth + "M 0\nDETECTOR rec[-1]\n" + "}\n" * depth
    call = calls.DetectionCall(
        calls.CALL_FORMAT, text, "", False, calls.DetectionSizes(1, 1, 1, 0, 1)
    )
    terms = TaskOptions(engine=calls.DETECTORS, outputs=("value",))
    with pytest.raises(LimitExceededError, match=f"nested {depth} deep; the limit is 64"):
        examined_call(codec.encode(call), terms)


def test_operations_of_nested_blocks_have_a_bound() -> None:
    stim = pytest.importorskip("stim")
    times = "REPEAT 1000000000000000 {\n"
    circuit = stim.Circuit(times * 60 + "M 0\nDETECTOR rec[-1]\n" + "}\n" * 60)
    sizes = calls.sizes_of(circuit)
    assert sizes.operations == 10**8 + 1
    call = calls.DetectionCall(calls.CALL_FORMAT, str(circuit), "", False, sizes)
    terms = TaskOptions(engine=calls.DETECTORS, outputs=("value",))
    fails(LimitExceededError, "the limit is", examined_call, codec.encode(call), terms)


@pytest.mark.parametrize("field", ["compiled", "compiled_for", "replaced_gates", "stale"])
def test_options_that_others_read_have_no_control_characters(field: str) -> None:
    text = "qiskit\x1b]0;owned\x07"
    terms = TaskOptions(**{field: (text,) if field == "replaced_gates" else text})
    fails(OptionError, "", check_options, terms)
    long = "x" * 300
    terms = TaskOptions(**{field: (long,) if field == "replaced_gates" else long})
    fails(OptionError, "", check_options, terms)


_ON_DEVICE = TaskOptions(
    engine=calls.DETECTORS, outputs=("value",), device="fez", snapshot="0" * 64
)  # fmt: skip
_SIZES = calls.DetectionSizes(3, 1, 1, 0, 9, 9)


def _placed(placement: calls.DevicePlacement | None, **changes: object) -> bytes:
    call = calls.DetectionCall(
        calls.CALL_FORMAT, "M 0\nDETECTOR rec[-1]", "", False, _SIZES, placement
    )
    return codec.encode(msgspec.structs.replace(call, **changes))


@pytest.mark.parametrize(
    ("placement", "error"),
    [
        (calls.DevicePlacement((0, 2), (5, 5)), OptionError),
        (calls.DevicePlacement((0, 2), (5,)), OptionError),
        (calls.DevicePlacement((0, 2), (5, -1)), OptionError),
        (calls.DevicePlacement((2, 0), (5, 6)), OptionError),
        (calls.DevicePlacement((0, 3), (5, 6)), OptionError),
        (calls.DevicePlacement((0,), (5,), 3), OptionError),
        (calls.DevicePlacement((0,), ()), OptionError),
        (calls.DevicePlacement((0,), (), 2**40), OptionError),
        (calls.DevicePlacement((0,), (5,), late_ns=float("nan")), OptionError),
        (calls.DevicePlacement((0,), (5,), latency_ns=2e9), OptionError),
        (calls.DevicePlacement(tuple(range(65_536)), ()), ProgramError),
    ],
    ids=lambda each: str(each)[:60],
)
def test_places_of_hostile_clients_are_refused(
    placement: calls.DevicePlacement, error: type[SimenvError]
) -> None:
    fails(error, "", examined_call, _placed(placement), _ON_DEVICE)


def test_noise_of_a_device_is_bounded_and_priced_before_it_is_made() -> None:
    place = calls.DevicePlacement((0, 2), (5, 6))
    _, profile = examined_call(_placed(place), _ON_DEVICE)
    assert profile.gates_2q == 9
    many = msgspec.structs.replace(_SIZES, written=calls.MAX_WRITTEN + 1)
    text = "200000 instructions and targets"
    fails(LimitExceededError, text, examined_call, _placed(place, sizes=many), _ON_DEVICE)
    fails(OptionError, "no place on it", examined_call, _placed(None), _ON_DEVICE)
    ideal = msgspec.structs.replace(_ON_DEVICE, device="", snapshot="")
    fails(OptionError, "without a device", examined_call, _placed(place), ideal)
    fails(OptionError, "no decoder 'tea'", examined_call, _placed(place, decoder="tea"), _ON_DEVICE)

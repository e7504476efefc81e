"""Pools as devices: what simulators stand for, and what machines said of themselves."""

from pathlib import Path

import msgspec
import pytest
from failing import fails
from service import LIMITS, ServiceHarness

from simenv import __version__
from simenv.errors import NotFoundError
from simenv.model import MAX_SHOTS, GateInfo, PoolSpec
from simenv.model.devices import DeviceInfo, DeviceKind, OperationInfo, QubitInfo
from simenv.model.paradigms import CIRCUIT_FORMATS, PULSER
from simenv.service.queries import engines
from simenv.service.queries.devices import DeviceRecords
from simenv.wire import codec
from simenv.wire.messages.queries import DeviceDescribed, Devices, Engines, GetDevices, GetEngines
from simenv.wire.transport.sockets import PeerKind
from simulators.catalog import cards

QPU = {"name": "qpu", "engine": "hardware", "provider": "lab:one"}
OPTIONS = {"pools": [{"name": "main", "min": 1, "max": 1}, QPU], "import_from": ("/here",)}


MACHINE = DeviceInfo(
    "x", DeviceKind.HARDWARE, "lab", "fridge", "3", "superconducting", 2, 1000,
    (GateInfo("cx", 2, 0),), False, directed=True, coupling=((0, 1),),
    operations=(OperationInfo("cx", (0, 1), 0.01, 300.0, 0.001, 0.1),),
    qubits=(
        QubitInfo(100.0, 80.0, 5.0, 0.02, 900.0, 60.0, 0.001, 0.01, 0.002, 0.9),
        QubitInfo(90.0, 70.0, 5.1, 0.03, 900.0, 50.0, 0.002, 0.02, 0.003, 1.0),
    ),
    calibration_id="c1", calibrated_s=1e9, dt_ns=0.2,
)  # fmt: skip


def devices(bench: ServiceHarness) -> dict[str, DeviceInfo]:
    return {device.name: device for device in bench.get(Devices, GetDevices(1)).devices}


def describe(bench: ServiceHarness, device: DeviceInfo = MACHINE) -> None:
    start = bench.paper.commands["qpu-0"].start
    worker = bench.listener.connect(PeerKind.WORKER, f"qpu-0.{start}".encode())
    worker.send(codec.encode(DeviceDescribed("qpu-0", bench.journal.epoch, start, device)))
    bench.step()


def test_simulator_device_is_described_by_its_engine_and_memory(bench: ServiceHarness) -> None:
    main = devices(bench)["main"]
    statevector = bench.get(Engines, GetEngines(1)).engines[0]
    assert (main.kind, main.model, main.version) == ("ideal", statevector.name, __version__)
    assert main.num_qubits == statevector.max_qubits > 20
    assert main.gates == statevector.gates
    assert {("h", 1), ("cx", 2), ("ccx", 3)} <= {(gate.name, gate.qubits) for gate in main.gates}
    assert (main.all_to_all, main.dynamic, main.max_shots) == (True, True, MAX_SHOTS)
    assert not any((main.coupling, main.qubits, main.operations, main.calibration_id))


def test_formats_of_a_pool_are_those_of_its_engine_and_of_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"main": "any", "atoms": "rydberg", "dense": "statevector", "compiler": "transpiler"}
    pools = [{"name": name, "engine": each, "min": 1, "max": 1} for name, each in names.items()]
    bench = ServiceHarness(tmp_path, pools=pools)
    engines.ideal.cache_clear()
    monkeypatch.setattr(cards, "_installed", lambda _modules: True)
    found = devices(bench)
    assert {name: each.formats for name, each in found.items()} == {
        "main": (*CIRCUIT_FORMATS, PULSER), "atoms": (PULSER,), "dense": CIRCUIT_FORMATS,
    }  # fmt: skip
    assert found["atoms"].gates == ()
    engines.ideal.cache_clear()
    monkeypatch.setattr(cards, "_installed", lambda modules: modules != ("pulser",))
    found = devices(bench)
    engines.ideal.cache_clear()
    assert found["main"].formats == found["dense"].formats == CIRCUIT_FORMATS
    assert found["atoms"].formats == found["dense"].missing_formats == ()
    missing = ((PULSER, "pip install 'simenv[analog]'"),)
    assert found["main"].missing_formats == found["atoms"].missing_formats == missing


def test_qubits_of_simulator_device_follow_memory_of_its_own_pool(tmp_path: Path) -> None:
    small = {"name": "small", "min": 1, "max": 1, "memory_bytes": LIMITS.memory_bytes // 8}
    outcome = devices(ServiceHarness(tmp_path, pools=[{"name": "main", "min": 1, "max": 1}, small]))
    assert 3 <= outcome["main"].num_qubits - outcome["small"].num_qubits <= 4  # and a base amount


def test_pool_of_single_engine_has_gates_and_limits_of_that_engine(tmp_path: Path) -> None:
    pools = [{"name": "cliff", "engine": "stabilizer"}, {"name": "chain", "engine": "mps"}]
    outcome = devices(ServiceHarness(tmp_path, pools=pools))
    cliff, chain = outcome["cliff"], outcome["chain"]
    assert (cliff.model, chain.model) == ("stabilizer", "mps")
    names = {gate.name for gate in cliff.gates}
    assert "cx" in names
    assert "t" not in names
    assert "t" in {gate.name for gate in chain.gates}
    assert (cliff.num_qubits, chain.num_qubits) == (65_535, 4_096)
    assert (cliff.dynamic, chain.dynamic) == (True, True)


def test_hardware_is_described_once_it_says_so_until_service_ends(bench: ServiceHarness) -> None:
    silent = devices(bench)["qpu"]
    assert (silent.kind, silent.num_qubits) == (DeviceKind.HARDWARE, 0)
    assert (silent.model, silent.technology, silent.all_to_all) == ("", "", False)
    describe(bench)
    assert devices(bench)["qpu"] == msgspec.structs.replace(MACHINE, name="qpu")
    describe(bench, msgspec.structs.replace(MACHINE, calibration_id="c2"))
    assert devices(bench)["qpu"].calibration_id == "c2"
    bench.paper.kill("qpu-0")
    bench.step()
    assert devices(bench)["qpu"].model == "fridge", "it outlives its worker"
    bench.restart()
    assert devices(bench)["qpu"].num_qubits == 0


class _NoCalibration:
    """EmulatedDevices that lack each calibration."""

    def info(self, name: str) -> DeviceInfo:
        raise NotFoundError(f"there is no device {name!r}")


def test_a_pool_whose_device_cannot_be_read_does_not_hide_the_others() -> None:
    records = DeviceRecords((PoolSpec("main"), PoolSpec("gone", device="no-such-device")))
    records.emulated = _NoCalibration()  # type: ignore[assignment]
    main, gone = records.all(LIMITS)
    assert (main.name, main.problem) == ("main", "")
    assert (gone.name, gone.kind, gone.num_qubits) == ("gone", "emulated", 0)
    assert gone.problem == "there is no device 'gone'"
    fails(NotFoundError, "gone", records.named, "gone")

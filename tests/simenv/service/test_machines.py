"""What the service makes of machines: what a worker says of one counts, as long as it is ours."""

from pathlib import Path

import msgspec
import pytest
from service import RESULT, ServiceHarness, program, spec

from simenv.model import TaskOptions
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import SteerTarget
from simenv.wire.messages.queries import DeviceDescribed
from simenv.wire.transport.sockets import PeerKind

QPU = {"name": "qpu", "engine": "hardware", "provider": "lab:one"}
FIELDS = ("x", DeviceKind.HARDWARE, "lab", "fridge", "1", "", 2, 1000, (), False)
NARROW = DeviceInfo(*FIELDS, dt_ns=1.0)
MACHINE = TaskOptions(pool="qpu")
OPTIONS = {"pools": [{"name": "main", "min": 1, "max": 1}, QPU], "import_from": ("/here", "/lib")}


def describe(
    bench: ServiceHarness, device: DeviceInfo = NARROW, *, start: int = 0, name: str = "qpu-0"
) -> None:
    start = start or bench.paper.commands[name].start
    worker = bench.listener.connect(PeerKind.WORKER, f"{name}.{start}".encode())
    worker.send(codec.encode(DeviceDescribed(name, bench.journal.epoch, start, device)))
    bench.step()


def test_hardware_worker_command_line_has_provider_and_import_path(bench: ServiceHarness) -> None:
    argv = bench.paper.commands["qpu-0"].argv
    assert argv[argv.index("--provider") + 1] == "lab:one"
    assert argv[argv.index("--import-from") + 1] == "/here:/lib"
    assert "--provider" not in bench.paper.commands["main-0"].argv


def test_program_wider_than_described_hardware_is_refused(bench: ServiceHarness) -> None:
    wide = spec(program=program(3).packed())
    assert isinstance(bench.submit(wide, key="a", terms=MACHINE), m.Accepted)
    describe(bench)
    task = bench.refused(wide, key="b", terms=MACHINE)
    assert task.message == "this program has 3 qubits; pool qpu (fridge) has 2"
    assert bench.loop.devices.infos == (msgspec.structs.replace(NARROW, name="qpu"),)
    describe(bench, msgspec.structs.replace(NARROW, num_qubits=5))
    assert isinstance(bench.submit(wide, key="c", terms=MACHINE), m.Accepted)


def test_descriptions_of_simulators_and_unknown_starts_are_ignored(bench: ServiceHarness) -> None:
    describe(bench, start=bench.paper.commands["qpu-0"].start + 7)
    describe(bench, name="main-0")
    assert bench.loop.devices.infos == ()


def test_preferred_hardware_is_skipped_while_paused(bench: ServiceHarness) -> None:
    for name in ("main-0", "qpu-0"):
        bench.join(name)
    describe(bench)
    preferring = TaskOptions(prefer=("hardware",))

    def reason(key: str) -> str:
        task = bench.submit(key=key, terms=preferring)
        return bench.state.tasks[task.first].route.reason

    assert reason("a") == "preferred hardware: pool qpu (fridge)"
    bench.say(SteerTarget(1, "qpu", "pause"))
    assert reason("b").startswith("hardware: pool qpu is paused; took pool main: auto: 2 qubits")
    bench.say(SteerTarget(2, "qpu", "resume"))
    assert reason("c") == "preferred hardware: pool qpu (fridge)"


@pytest.mark.parametrize("stubborn", [False, True])
def test_has_grace(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    bench.paper.stubborn = stubborn
    workers = bench.loop.workers
    for name in ("main-0", "qpu-0"):
        workers.kill(name)
    assert (bench.paper.told, "qpu-0" in bench.paper.commands) == (["qpu-0"], stubborn)
    assert "main-0" not in bench.paper.commands
    monkeypatch.setattr("simenv.service.workers.processes.MACHINE_GRACE_S", 0.0)
    workers.exited()
    assert ("qpu-0" in bench.paper.commands) == stubborn, "its time is not over"
    if stubborn:
        workers._ending["qpu-0"] = 0.0
        workers.exited()
        assert [end.name for end in workers.exited()] == ["qpu-0"]
        assert workers._ending == {}


@pytest.mark.parametrize(
    ("engine", "forced"), [("hardware", True), ("stabilizer", True), ("statevector", False)]
)
def test_unrepeatable_results_are_synced_at_once(tmp_path: Path, engine: str, forced: bool) -> None:
    bench = ServiceHarness(tmp_path, durability="accepted")
    bench.join()
    bench.submit()
    (task,) = bench.assigned()
    record = bench.state.tasks[task.task]
    record.route = msgspec.structs.replace(record.route, engine=engine)
    bench.journal.sync()
    result = m.AttemptResult(task.task, task.attempt, 2, RESULT, 0, "", 0, 1, 10)
    bench.send_results(result, passes=1)
    assert bench.journal.unsynced is not forced

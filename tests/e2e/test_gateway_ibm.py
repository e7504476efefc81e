"""Programs for IBM's machines run on an emulated device, with environment variables alone: those of
qiskit-ibm-runtime, and those of QRMI's compiled client."""

import base64
import json
import math
import os
import re
import ssl
import subprocess
import sys
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

import httpx
import msgspec
import psutil
import pytest
from live import Live
from logical_devices import store_logical
from snippets import fresh_environ
from waiting import until

from noise_models import library, snapshot
from simenv import files
from simenv.cli.admin.gateway import variables
from simenv.client.client import Client
from simenv.client.environments import await_gateway
from simenv.config import GatewayFile, devices_folder
from simenv.model import TaskState
from simenv.transpiler import qpy

PROGRAM_S = 240.0
SEED = 11
POOLS = [{"name": "main", "min": 1, "max": 1}, {"name": "emu", "min": 1, "max": 1, "device": "fez"}]
OPTIONS = {"pools": POOLS, "gateway": {"listen": "127.0.0.1:0"}}
HEAD = """
import base64, json, sys, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import Batch, EstimatorV2, QiskitRuntimeService, RuntimeEncoder, SamplerV2
from qiskit_ibm_runtime import Session
from qiskit_ibm_runtime.circuit import MidCircuitMeasure

def packed(circuit):
    return json.loads(json.dumps(circuit, cls=RuntimeEncoder))["__value__"]

def bell():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    return circuit

service = QiskitRuntimeService()
backend = service.backend("emu")
compiler = generate_preset_pass_manager(optimization_level=1, backend=backend)
measured = bell()
measured.measure_all()
isa = compiler.run(measured)
found = {}
"""
TAIL = "\nprint(json.dumps(found))\n"
PRIMITIVES = """
sampler = SamplerV2(mode=backend)
sampler.options.simulator.seed_simulator = SEED
sampler.options.environment.job_tags = ["nightly"]
job = sampler.run([isa], shots=500)
found["counts"] = job.result()[0].data.meas.get_counts()
found["strings"] = job.result()[0].data.meas.get_bitstrings()[:20]
found["circuit"] = packed(isa)
two = sampler.run([isa, isa], shots=500).result()
found["many"] = [pub.data.meas.get_counts() for pub in two]
found["metrics"], found["usage"] = job.metrics(), job.usage()
found["logs"], found["tags"] = job.logs(), service.job(job.job_id()).tags
found["properties"] = job.properties().t1(0)
found["inputs"] = len(service.job(job.job_id()).inputs["pubs"])
job.update_tags(["kept"])
found["tagged"] = [each.job_id() for each in service.jobs(job_tags=["kept"])] == [job.job_id()]
state = compiler.run(bell())
observable = SparsePauliOp(["ZZ", "XX"]).apply_layout(state.layout)
estimate = EstimatorV2(mode=backend).run([(state, observable)]).result()[0].data
found["evs"], found["stds"] = float(estimate.evs), float(estimate.stds)
with Session(backend=backend) as session:
    inner = SamplerV2(mode=session).run([isa], shots=10)
    found["session_shots"] = inner.result()[0].data.meas.num_shots
    found["open"] = session.status()
    found["of_session"] = [each.job_id() for each in service.jobs(session_id=session.session_id)]
    found["inner"] = inner.job_id()
found["closed"] = session.status()
with Batch(backend=backend):
    jobs = [SamplerV2().run([isa], shots=10) for _ in range(3)]
found["batch"] = [job.result()[0].data.meas.num_shots for job in jobs]
found["listed"] = sorted(job.job_id() for job in service.jobs(limit=3, backend_name="emu"))
found["ids"] = sorted(job.job_id() for job in jobs)
found["done"] = [job.status() for job in service.jobs(pending=False, limit=2)]
service.delete_job(jobs[0].job_id())
found["pending"] = len(service.jobs(pending=True))
found["names"] = [each.name for each in service.backends(simulator=False)]
found["least"] = service.least_busy(operational=True, simulator=False, min_num_qubits=100).name
third, early = service.backend("kingston"), QuantumCircuit(1, 1)
early.x(0)
early.append(MidCircuitMeasure(), [0], [0])
found["early"] = third.target["measure_2"][(0,)].error
placed = generate_preset_pass_manager(1, third, initial_layout=[0]).run(early)
data = SamplerV2(mode=third).run([placed], shots=500).result()[0].data
found["early_counts"] = data.c.get_counts()
found["fez"] = service.backend("fez").num_qubits
found["ideal"] = service.backend("main").configuration().simulator
found["remaining"] = service.usage()
try:
    sampler.options.dynamical_decoupling.enable = True
    sampler.run([isa])
except Exception as error:
    found["refused"] = str(error)
"""
FRACTIONAL = """
plain, asked = backend, service.backend("emu", use_fractional_gates=True)
found["plain"] = sorted({"rx", "rzz"} & set(plain.target.operation_names))
found["asked"] = sorted({"rx", "rzz"} & set(asked.target.operation_names))
found["flow"] = "if_else" in asked.target.operation_names
ising = QuantumCircuit(6)
for _ in range(2):
    ising.rx(0.6, range(6))
    for first in range(5):
        ising.rzz(-0.4, first, first + 1)
ising.measure_all()
placed = generate_preset_pass_manager(1, asked, seed_transpiler=1).run(ising)
found["circuit"] = packed(placed)
sampler = SamplerV2(mode=asked)
sampler.options.simulator.seed_simulator = SEED
job = sampler.run([placed], shots=200)
found["counts"] = job.result()[0].data.meas.get_counts()
"""
CANCELLED = """
from qiskit import QuantumCircuit
wide = QuantumCircuit(23)
for layer in range(40):
    for qubit in range(23):
        wide.rx(0.1 + layer, qubit)
    for qubit in range(22):
        wide.cx(qubit, qubit + 1)
wide.measure_all()
main = service.backend("main")
jobs = [SamplerV2(mode=main).run([wide] * 20, shots=10) for _ in range(2)]
found["forecast"] = jobs[1].metrics()
jobs[1].cancel()
found["state"] = jobs[1].status()
try:
    jobs[1].result()
except Exception as error:
    found["result"] = type(error).__name__
found["job"] = jobs[1].job_id()
jobs[0].cancel()
"""
QRMI = """
import json, sys, time
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qrmi import Payload, QuantumResource, ResourceType
from qrmi.primitives import QRMIService
from qrmi.primitives.ibm import EstimatorV2, SamplerV2, get_backend, get_target

TEXT = '''OPENQASM 3.0; include "stdgates.inc"; bit[2] c; x $3; cz $3, $2; c[0] = measure $3;
c[1] = measure $2;'''

def payload(text, program="sampler", shots=100, count=1):
    pubs = [[text, None, shots]] * count
    body = {"pubs": pubs, "version": 2, "support_qiskit": False, "options": {}}
    return Payload.QiskitPrimitive(input=json.dumps(body), program_id=program)

def end_of(resource, task):
    for _ in range(600):
        state = str(resource.task_status(task))
        if state.endswith(("Completed", "Failed", "Cancelled")):
            return state
        time.sleep(0.1)

resource = QuantumResource("emu", ResourceType.IBMQuantumComputeService)
found = {"accessible": resource.is_accessible()}
token = resource.acquire()
task = resource.task_start(payload(TEXT))
found["state"] = end_of(resource, task)
found["samples"] = json.loads(resource.task_result(task).value)["results"][0]["data"]["c"]
found["logs"] = resource.task_logs(task)
foreign = resource.task_start(payload(TEXT.replace("x $3", "h $3")))
found["foreign"] = end_of(resource, foreign)
stopped = resource.task_start(payload(TEXT, shots=100_000, count=50))
resource.task_stop(stopped)
found["stopped"] = end_of(resource, stopped)
target = get_target(resource)
found["target"] = [type(target).__name__, target.num_qubits, sorted(target.operation_names)]
resource.release(token)
(first,) = [each for each in QRMIService().resources() if each.resource_id() == "emu"]
compiler = generate_preset_pass_manager(optimization_level=1, backend=get_backend(first))
circuit = QuantumCircuit(2)
circuit.x(0)
circuit.cx(0, 1)
state = compiler.run(circuit)
observable = SparsePauliOp("ZI").apply_layout(state.layout)
found["evs"] = float(EstimatorV2(first).run([(state, observable)]).result()[0].data.evs)
circuit.measure_all()
counts = SamplerV2(first).run([(compiler.run(circuit),)], shots=200).result()[0].data.meas
found["counts"] = counts.get_counts()
"""
SURVIVING = """
wide = QuantumCircuit(18)
for layer in range(30):
    for qubit in range(18):
        wide.rx(0.1 + layer, qubit)
    for qubit in range(17):
        wide.cx(qubit, qubit + 1)
wide.measure_all()
job = SamplerV2(mode=service.backend("main")).run([wide] * 40, shots=10)
print(job.job_id(), flush=True)
found["results"] = len(job.result())
"""
EXECUTOR = """
import numpy as np
from qiskit.circuit import Parameter
from qiskit_ibm_runtime import Executor, QuantumProgram
from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.executor_sampler import Sampler
from samplomatic import build
from samplomatic.transpiler import generate_boxing_pass_manager

found["circuit"] = packed(isa)
sampler = Sampler(mode=backend)
sampler.options.simulator.seed_simulator = SEED
job = sampler.run([isa], shots=500)
found["counts"] = job.result()[0].data.meas.get_counts()
found["program"], found["usage"] = job.primitive_id, job.usage()
found["metadata"] = len(job.result().metadata["executor"].chunk_timing)
sampler.options.twirling.enable_gates = sampler.options.twirling.enable_measure = True
sampler.options.dynamical_decoupling.enable = True
twirled = sampler.run([isa], shots=640).result()[0]
found["twirled"] = twirled.data.meas.get_counts()
found["randomizations"] = twirled.metadata["num_randomizations"]
estimator = Estimator(mode=backend)
estimator.options.default_shots = 256
estimator.options.twirling.num_randomizations = 4
estimator.options.resilience.measure_noise_learning.num_randomizations = 4
state = compiler.run(bell())
observables = [SparsePauliOp(label).apply_layout(state.layout) for label in ("ZZ", "XX", "ZI")]
found["evs"] = estimator.run([(state, observables)]).result()[0].data.evs.tolist()
rotated = QuantumCircuit(2)
rotated.ry(Parameter("a"), 0)
rotated.cx(0, 1)
rotated.measure_all()
rotated = compiler.run(rotated)
program = QuantumProgram(shots=100, passthrough_data={"mine": np.arange(3)})
program.append_circuit_item(rotated, circuit_arguments=np.array([[0.0], [np.pi]]))
boxed = generate_boxing_pass_manager().run(rotated)
template, samplex = build(boxed)
arguments = {"parameter_values": np.array([[0.0], [np.pi]])}
program.append_samplex_item(template, samplex=samplex, samplex_arguments=arguments, shape=(3, 2))
with Session(backend=backend) as session:
    executor = Executor(session)
    result = executor.run(program).result()
    found["ones"] = result[0]["meas"].mean(axis=(1, 2)).tolist()
    bits = result[1]["meas"] ^ result[1].get("measurement_flips.meas", False)
    found["shape"], found["randomized"] = bits.shape, bits.mean(axis=(0, 2, 3)).tolist()
    found["passed"] = result.passthrough_data["mine"].tolist()
    executor.options.execution.init_qubits = False
    try:
        executor.run(program).result()
    except Exception as error:
        found["refused"] = str(error)
"""
RECORDED = """
from datetime import datetime
from qiskit_ibm_runtime.executor_sampler import Sampler

found["circuit"] = packed(isa)
found["t1"] = backend.properties(datetime=datetime(2020, 6, 1)).t1(0)
old = service.backend("emu", calibration_id=OLD)
found["of_id"] = old.properties().t1(0)
for name, kind in (("sampler", SamplerV2), ("executor", Sampler)):
    sampler = kind(mode=old)
    sampler.options.simulator.seed_simulator = SEED
    found[name] = sampler.run([isa], shots=300).result()[0].data.meas.get_counts()
try:
    service.backend("emu", calibration_id="0" * 64)
except Exception as error:
    found["refused"] = str(error)
"""

LOGICAL = """
machine = service.backend("logical50")
compiler = generate_preset_pass_manager(optimization_level=1, backend=machine)
found["names"] = sorted(machine.target.operation_names)
wide = QuantumCircuit(50)
wide.h(0)
for qubit in range(1, 50):
    wide.cx(qubit - 1, qubit)
wide.measure_all()
data = SamplerV2(mode=machine).run([compiler.run(wide)], shots=300).result()[0].data
found["counts"] = data.meas.get_counts()
turned = QuantumCircuit(1)
turned.ry(0.3, 0)
turned = compiler.run(turned)
found["gates"] = turned.count_ops()
observable = SparsePauliOp("Z").apply_layout(turned.layout)
found["evs"] = float(EstimatorV2(mode=machine).run([(turned, observable)]).result()[0].data.evs)
"""


def gateway_of(live: Live) -> GatewayFile:
    found = await_gateway(live.home)
    assert found is not None, (live.home / "logs" / "gateway.log").read_text()
    return found


@pytest.fixture(scope="module")
def settings(up: Live, env: Client) -> Mapping[str, str]:
    """Variables as `simenv gateway env` prints them."""
    made = env.tokens.add(purpose="test")
    url = gateway_of(up).url
    assert url.startswith("https:")
    return variables(url, env.name, made.secret, ["emu"], made.authority)


def started(program: str, settings: Mapping[str, str], **values: object) -> subprocess.Popen[str]:
    """Start a program in a process that knows nothing of simenv but these variables."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG")
    environ = {name: value for name, value in os.environ.items() if name in kept}
    constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return subprocess.Popen(
        [sys.executable, "-c", constants + program], env={**environ, **settings},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def found_by(program: str, settings: Mapping[str, str], **values: object) -> dict[str, Any]:
    process = started(program + TAIL, settings, **values)
    output, errors = process.communicate(timeout=PROGRAM_S)
    assert process.returncode == 0, errors
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def test_fractional_gates_are_those_of_a_backend_on_request(
    env: Client, settings: Mapping[str, str]
) -> None:
    found = found_by(HEAD + FRACTIONAL, settings, SEED=SEED)
    assert (found["plain"], found["asked"], found["flow"]) == ([], ["rx", "rzz"], True)
    circuit = qpy.parse(zlib.decompress(base64.b64decode(found["circuit"])))
    assert {"rx", "rzz"} <= set(circuit.count_ops())
    options: dict[str, Any] = {"pool": "emu", "outputs": ("counts", "memory"), "compile": "never"}
    own = env.run(circuit, shots=200, seed=SEED, **options)
    assert found["counts"] == dict(own.counts)  # as it was written


def test_a_program_of_ibms_client_runs_unchanged(env: Client, settings: Mapping[str, str]) -> None:
    found = found_by(HEAD + PRIMITIVES, settings, SEED=SEED)
    circuit = qpy.parse(zlib.decompress(base64.b64decode(found["circuit"])))
    options: dict[str, Any] = {"shots": 500, "pool": "emu", "outputs": ("counts", "memory")}
    own = env.submit(circuit, seed=SEED, **options).result()
    assert found["counts"] == dict(own.counts)
    assert found["strings"] == own.memory_strings()[:20]
    many = [each.result() for each in env.submit_many([circuit] * 2, seed=SEED, **options)]
    assert found["many"] == [dict(each.counts) for each in many]
    assert 1.5 < found["evs"] <= 2.0
    assert 0 < found["stds"] < 0.1
    assert found["metrics"]["timestamps"]["finished"] > found["metrics"]["timestamps"]["created"]
    assert found["usage"] == found["metrics"]["usage"]["quantum_seconds"] > 0
    assert "DONE" in found["logs"]
    assert found["tags"] == ["nightly"]
    assert found["properties"] == pytest.approx(env.device("fez").qubits[0].t1_us * 1e-6)
    assert found["inputs"] == 1
    assert found["tagged"]
    assert (found["session_shots"], found["open"]) == (10, "In progress, accepting new jobs")
    assert (found["of_session"], found["closed"]) == ([found["inner"]], "Closed")
    assert (found["batch"], found["listed"]) == ([10, 10, 10], found["ids"])
    assert (found["done"], found["pending"]) == (["DONE", "DONE"], 0)
    assert "emu" in found["names"]
    assert "main" not in found["names"]
    assert (found["least"], found["early"]) == ("emu", 0.018798828125)
    assert found["early_counts"]["1"] > 450
    assert found["fez"] == 156
    assert found["ideal"] is True
    assert found["remaining"]["usage_limit_reached"] is False
    assert "dynamical_decoupling.enable=True is not supported here" in found["refused"]
    assert not env.reservations()[-1].running


def test_a_cancelled_job_has_no_running_tasks(env: Client, settings: Mapping[str, str]) -> None:
    found = found_by(HEAD + CANCELLED, settings)
    assert (found["state"], found["result"]) == ("CANCELLED", "RuntimeInvalidStateError")
    assert found["forecast"]["usage"]["status"] == "pending"
    name = f"sampler-{found['job'][:8]}"
    until(lambda: not any(task.name == name for task in env.queue()[1]))


def test_quantum_programs_run_unchanged(env: Client, settings: Mapping[str, str]) -> None:
    found = found_by(HEAD + EXECUTOR, settings, SEED=SEED)
    circuit = qpy.parse(zlib.decompress(base64.b64decode(found["circuit"])))
    own = env.submit(circuit, shots=500, seed=SEED, pool="emu", compile="never")
    assert (found["counts"], found["program"]) == (own.result().counts, "executor")
    assert found["usage"] > 0
    assert (found["metadata"], found["randomizations"]) == (1, 10)
    assert sum(found["twirled"].values()) == 640
    assert found["twirled"]["00"] + found["twirled"]["11"] > 560
    assert found["evs"] == pytest.approx([1, 1, 0], abs=0.35)
    assert found["ones"] == pytest.approx([0, 1], abs=0.15)
    assert found["shape"] == [3, 2, 100, 2]
    assert found["randomized"] == pytest.approx([0, 1], abs=0.15)
    assert found["passed"] == [0, 1, 2]
    assert "init_qubits=False" in found["refused"]


def test_a_job_runs_with_a_recorded_calibration(env: Client, settings: Mapping[str, str]) -> None:
    base = library.load("fez")
    first = msgspec.structs.replace(base.qubits[0], t1_us=5.0)
    measured = [msgspec.structs.replace(q, p01=0.5, p10=0.5) for q in (first, *base.qubits[1:])]
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    old = msgspec.structs.replace(base, qubits=tuple(measured), calibrated=moment.isoformat())
    folder = files.private_folder(devices_folder() / "fez.d")
    (folder / "20200101T000000.000000Z.json").write_bytes(snapshot.dump(old))
    number, document = old.digest.hex(), snapshot.dump(old)
    found = found_by(HEAD + RECORDED, settings, SEED=SEED, OLD=number)
    assert found["t1"] == found["of_id"] == pytest.approx(5e-6)
    circuit = qpy.parse(zlib.decompress(base64.b64decode(found["circuit"])))
    options: dict[str, Any] = {"shots": 300, "pool": "emu", "noise": document, "compile": "never"}
    own = env.submit(circuit, seed=SEED, **options).result()
    assert own.snapshot == number
    assert found["sampler"] == found["executor"] == dict(own.counts)
    assert min(own.counts.values()) > 30  # each readout is a fair coin
    assert "No backend matches" in found["refused"]


def test_qrmi_acquires_runs_and_releases(env: Client, settings: Mapping[str, str]) -> None:
    found = found_by(QRMI, settings)
    assert found["accessible"]
    assert (found["state"], found["samples"]["num_bits"]) == ("TaskStatus.Completed", 2)
    assert len(found["samples"]["samples"]) == 100
    assert found["samples"]["samples"].count("0x1") > 80
    assert "DONE" in found["logs"]
    assert found["foreign"] == "TaskStatus.Failed"  # h is no gate of this device
    assert found["stopped"] == "TaskStatus.Cancelled"
    kind, qubits, operations = found["target"]
    assert (kind, qubits) == ("Target", 156)
    assert {"cz", "sx", "rz", "measure", "if_else"} <= set(operations)
    assert found["evs"] < -0.8
    assert found["counts"]["11"] > 150
    assert all(str(each.state) != "ACTIVE" for each in env.reservations())


@pytest.mark.parametrize("victim", ["job process", "gateway", "service"])
def test_a_killed_process_loses_and_repeats_nothing(
    up: Live, env: Client, settings: Mapping[str, str], victim: str
) -> None:
    first = gateway_of(up)
    process = started(HEAD + SURVIVING + TAIL, settings)
    assert process.stdout is not None
    number = process.stdout.readline().strip()
    name = f"sampler-{number[:8]}"

    def own() -> list[Any]:
        return [task for task in env.queue()[1] if task.name == name]

    until(lambda: len(own()) > 5, 60.0)
    killed = psutil.Process(first.pid)
    if victim == "job process":
        (killed,) = [
            each for each in killed.children() if "job_process" in " ".join(each.cmdline())
        ]
    if victim == "service":
        killed = up.service()
    killed.kill()
    if victim == "service":
        up.wait_dead(killed.pid)
        up.up()
    output, errors = process.communicate(timeout=PROGRAM_S)
    if victim != "job process" and process.returncode:  # its client gave up before the restart
        assert result_of(gateway_of(up), settings, number).count("SamplerPubResult") == 40
    else:
        assert process.returncode == 0, errors
        assert json.loads(output.splitlines()[-1]) == {"results": 40}
    rows = [row for row in env.history.newest(200) if row.name == name]
    assert len(rows) == 40
    assert all(row.state is TaskState.DONE for row in rows)


def result_of(gateway: GatewayFile, settings: Mapping[str, str], number: str) -> str:
    base = f"{gateway.url}/experimental/api/v1/jobs/{number}"
    header = {"Authorization": f"apikey {settings['QISKIT_IBM_TOKEN']}"}
    context = ssl.create_default_context(cafile=settings["SSL_CERT_FILE"])
    with httpx.Client(headers=header, verify=context) as client:
        until(lambda: client.get(base).json()["state"]["status"] == "Completed", PROGRAM_S)
        return client.get(f"{base}/results").text


EXAMPLES = Path(__file__).parents[2] / "examples" / "runtime"


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(program: Path, env: Client, settings: Mapping[str, str]) -> None:
    begun_s = time()
    process = started(program.read_text(), settings, __name__="__main__")
    output, errors = process.communicate(timeout=PROGRAM_S)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1].startswith("ok")
    rows = [row for row in env.history.newest(100) if row.submitted_s >= begun_s]
    assert rows
    # A trajectory of all qubits takes half a second, a density matrix of the few that are coupled
    # some milliseconds.
    assert {row.engine for row in rows} == {"densitymatrix"}


def test_commands_of_the_guide_run(tmp_path: Path) -> None:
    """In an empty folder."""
    text = (EXAMPLES.parents[1] / "docs" / "guides" / "runtime.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ended = subprocess.run(
        ["bash", "-ec", block], env=fresh_environ(tmp_path), cwd=tmp_path, capture_output=True,
        text=True, timeout=PROGRAM_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "ok: " in ended.stdout


def test_a_program_of_ibms_client_runs_on_logical_qubits(settings: Mapping[str, str]) -> None:
    store_logical("logical50", 50)
    found = found_by(HEAD + LOGICAL, settings)
    assert {"h", "t", "tdg", "cx"} < set(found["names"])
    assert sum(found["counts"].get(bit * 50, 0) for bit in "01") > 270
    assert found["gates"]["t"] > 50
    assert found["evs"] == pytest.approx(math.cos(0.3), abs=0.1)

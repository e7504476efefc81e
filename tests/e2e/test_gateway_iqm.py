"""Programs for IQM's machines run on an emulated device, with environment variables alone: those of
iqm-client, and those of QRMI's compiled client."""

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from math import pi
from pathlib import Path
from typing import Any

import httpx
import iqm_clients
import pytest
from live import Live, environment
from qiskit import QuantumCircuit
from snippets import fresh_environ
from waiting import until

from simenv.cli.admin.gateway import variables
from simenv.client.client import Client
from simenv.client.environments import await_gateway
from simenv.client.submission.options import checked_seed
from simenv.gateway.iqm import architecture

PROGRAM_S = 120.0
SHOTS = 2_000
PROGRAMS = Path(__file__).parents[1] / "support" / "pages.py"
EXAMPLE = iqm_clients.METRICS.with_name("bell.py")
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": iqm_clients.DEVICE, "min": 1, "max": 1, "device": iqm_clients.DEVICE},
    {"name": "lattice", "min": 0, "max": 1, "device": "superconducting-lattice"},
]
TAIL = "\nprint(json.dumps(found))\n"
IQM_CLIENT = """
import json, os, warnings
from iqm.iqm_client import CircuitCompilationOptions
from iqm.qiskit_iqm import IQMProvider
from iqm.station_control.interface.models import HeraldingMode
from qiskit import QuantumCircuit, transpile

found = {}
backend = IQMProvider(os.environ["IQM_SERVER_URL"]).get_backend(use_metrics=True)
found["qubits"], found["coupling"] = backend.physical_qubits, list(backend.coupling_map)
found["t1"] = backend.target.qubit_properties[1].t1
found["cz_error"] = backend.target["cz"][(0, 1)].error
ghz = QuantumCircuit(3, metadata={"purpose": "test"})
ghz.h(0)
ghz.cx(0, 1)
ghz.cx(1, 2)
ghz.measure_all()
compiled = transpile(ghz, backend, optimization_level=3, seed_transpiler=1)
job = backend.run([compiled, compiled], shots=SHOTS)
result = job.result()
found["counts"], found["success"] = result.get_counts(), result.success
found["timeline"] = [entry.status for entry in result.timeline]
found["memory"] = len(result.get_memory(0))
again = backend.retrieve_job(job.job_id())
found["again"] = again.result().get_counts() == found["counts"]
found["histogram"] = again._job_tracker.result_counts()[0].counts
client = backend.client
found["architecture"] = client.get_static_quantum_architecture().connectivity
found["healthy"], found["about"] = client.get_health()["healthy"], client.get_about()["name"]
found["metrics"] = len(client.get_quality_metric_set().observations)

def refusal(call):
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error)]

zeros = CircuitCompilationOptions(heralding_mode=HeraldingMode.ZEROS)
found["heralding"] = refusal(lambda: backend.run(compiled, circuit_compilation_options=zeros))
found["timeslot"] = refusal(lambda: backend.run(compiled, use_timeslot=True))
found["chip"] = refusal(client.get_chip_label)
client.delete_job(job.job_id())
found["deleted"] = refusal(lambda: backend.retrieve_job(job.job_id()))
"""
CONDITIONAL = """
import json, os
from iqm.qiskit_iqm import IQMProvider
from qiskit import QuantumCircuit, transpile

backend = IQMProvider(os.environ["IQM_SERVER_URL"], quantum_computer="main").get_backend()
circuit = QuantumCircuit(3, 3)
circuit.x(0)
circuit.measure(0, 0)
with circuit.if_test((0, 1)):
    circuit.x(1)
circuit.x(2)
circuit.reset(2)
circuit.measure(1, 1)
circuit.measure(2, 2)
job = backend.run(transpile(circuit, backend), shots=100)
found = {"counts": job.result().get_counts(), "error": job.error_message()}
wide = QuantumCircuit(20)
for layer in range(12):
    for qubit in range(20):
        wide.rx(0.1 + layer, qubit)
    for qubit in range(19):
        wide.cx(qubit, qubit + 1)
wide.measure_all()
wide = transpile(wide, backend, optimization_level=0)
job = backend.run([wide] * 20, shots=10)
found["cancelled"], found["status"], found["job"] = job.cancel(), job.status().name, job.job_id()
"""
QRMI = """
import json, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
from qrmi import Payload, QuantumResource, ResourceType, TaskStatus

def started(circuit, kind="circuit", tag=None):
    text = json.dumps({"circuits": [circuit], "shots": SHOTS})
    return resource.task_start(
        Payload.IQMServer(iqmjson=text, job_type=kind, use_timeslot=False, tag=tag)
    )

def end_of(task):
    while (state := resource.task_status(task)) in (TaskStatus.Queued, TaskStatus.Running):
        pass
    return str(state)

resource = QuantumResource("emu_garnet", ResourceType.IQMServer)
status = resource.status()
found = {"healthy": status.healthy, "accessible": resource.is_accessible()}
token = resource.acquire()
found["target"] = json.loads(resource.target().value)
found["job"] = started(CIRCUIT, tag="nightly")
found["state"] = end_of(found["job"])
found["result"] = json.loads(resource.task_result(found["job"]).value)
found["logs"] = resource.task_logs(found["job"])
far = dict(CIRCUIT, instructions=[dict(each) for each in CIRCUIT["instructions"]])
far["instructions"][2] = {"name": "cz", "locus": ["QB1", "QB5"], "args": {}}
found["far"] = started(far)
found["far_state"] = end_of(found["far"])
try:
    started(CIRCUIT, kind="run")
except Exception as error:
    found["pulses"] = str(error)
resource.release(token)
resource = QuantumResource("main", ResourceType.IQMServer)
stopped = resource.task_start(
    Payload.IQMServer(
        iqmjson=json.dumps({"circuits": [WIDE] * 4, "shots": 1000}),
        job_type="circuit",
        use_timeslot=False,
        tag=None,
    )
)
resource.task_stop(stopped)
found["stopped"] = end_of(stopped)
"""


def operation(name: str, *qubits: int, **args: object) -> dict[str, Any]:
    return {"name": name, "locus": [f"QB{qubit + 1}" for qubit in qubits], "args": args}


BELL: dict[str, Any] = {
    "name": "bell",
    "instructions": [
        operation("prx", 0, angle=pi / 2, phase=pi / 2),
        operation("prx", 1, angle=pi / 2, phase=pi / 2), operation("cz", 0, 1),
        operation("prx", 1, angle=-pi / 2, phase=pi / 2), operation("measure", 1, 0, key="both"),
        operation("measure", 2, key="idle"),
    ],
}  # fmt: skip


def wide() -> dict[str, Any]:
    """Takes minutes on an ideal pool: outcomes on the way give each shot a state of its own."""
    qubits = range(architecture.IDEAL_QUBITS)
    layer = [operation("prx", qubit, angle=0.3 + qubit, phase=0.1) for qubit in qubits]
    layer += [operation("cz", qubit, qubit + 1) for qubit in qubits[:-1]]
    instructions = []
    for number in range(10):
        instructions += layer * 4
        instructions.append(operation("measure", *qubits[::2], key=f"round-{number}"))
    return {"name": "wide", "instructions": instructions}


def own_bell() -> QuantumCircuit:
    circuit = QuantumCircuit(iqm_clients.QUBITS, 3)
    circuit.r(pi / 2, pi / 2, 0)
    circuit.r(pi / 2, pi / 2, 1)
    circuit.cz(0, 1)
    circuit.r(-pi / 2, pi / 2, 1)
    circuit.measure([1, 0, 2], [0, 1, 2])
    return circuit


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    paths = iqm_clients.import_device()
    with environment(pools=POOLS, gateway={"listen": "127.0.0.1:0"}) as live:
        yield live
    for path in paths:
        path.unlink()


@pytest.fixture(scope="module")
def settings(up: Live, env: Client) -> Mapping[str, str]:
    """Variables as `simenv gateway env` prints them."""
    gateway = await_gateway(up.home)
    assert gateway is not None, (up.home / "logs" / "gateway.log").read_text()
    made = env.tokens.add(purpose="test")
    names = [iqm_clients.DEVICE, "main"]
    assert gateway.url.startswith("https:")
    return variables(gateway.url, env.name, made.secret, names, made.authority)


@pytest.fixture(scope="module")
def tls(settings: Mapping[str, str]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings["SSL_CERT_FILE"])


@pytest.fixture(scope="module")
def http(settings: Mapping[str, str], tls: ssl.SSLContext) -> Iterator[httpx.Client]:
    base, header = settings["IQM_SERVER_URL"], {"Authorization": f"Bearer {settings['IQM_TOKEN']}"}
    with httpx.Client(
        base_url=f"{base}/api/v1", headers=header, timeout=60.0, verify=tls
    ) as client:
        yield client


def plain_environ() -> dict[str, str]:
    """Variables of a process that knows nothing of simenv."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG")
    return {name: value for name, value in os.environ.items() if name in kept}


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    """A process with iqm-client, which takes seconds to load, that forks for each program."""
    pipe, python = subprocess.PIPE, iqm_clients.interpreter()
    argv: list[str | Path] = [python, PROGRAMS, "iqm.qiskit_iqm"]
    with subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, text=True, cwd=iqm_clients.FOLDER, env=plain_environ()
    ) as process:
        yield process


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def iqm(forks: subprocess.Popen[str], tmp_path: Path) -> Run:
    """Run a program of iqm-client with these variables; return what it has found."""

    def run(program: str, variables: Mapping[str, str]) -> dict[str, Any]:
        output = tmp_path / "output"
        code = f"import json\nSHOTS = {SHOTS}\n{program}{TAIL}"
        assert forks.stdin is not None
        assert forks.stdout is not None
        request = [[["python", code]], str(output), str(tmp_path), dict(variables)]
        forks.stdin.write(json.dumps(request) + "\n")
        forks.stdin.flush()
        assert forks.stdout.readline() == "0\n", output.read_text()
        found: dict[str, Any] = json.loads(output.read_text().splitlines()[-1])
        return found

    return run


def found_by(program: str, settings: Mapping[str, str], **values: object) -> dict[str, Any]:
    """Run a program in a process that knows nothing of simenv but these variables."""
    constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    done = subprocess.run(
        [sys.executable, "-"], input=constants + program + TAIL,
        env={**plain_environ(), **settings},
        capture_output=True, text=True, timeout=PROGRAM_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.usefixtures("forks")  # it loads while the environment starts
def test_a_program_of_iqms_client_runs_unchanged(settings: Mapping[str, str], iqm: Run) -> None:
    found = iqm(IQM_CLIENT, {**settings, "IQM_QUANTUM_COMPUTER": iqm_clients.DEVICE})
    assert found["qubits"] == [f"QB{number}" for number in range(1, 6)]
    assert found["coupling"] == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert found["t1"] == pytest.approx(41e-6)
    assert found["cz_error"] == pytest.approx(0.009)
    assert found["success"]
    for counts in found["counts"]:
        assert sum(counts.values()) == SHOTS
        assert 0.85 * SHOTS < counts["000"] + counts["111"] < SHOTS
        assert abs(counts["000"] - counts["111"]) < 0.15 * SHOTS
    assert (found["memory"], found["timeline"]) == (SHOTS, ["created", "processing", "completed"])
    assert found["again"]
    assert found["histogram"]["000"] == found["counts"][0]["000"]
    assert found["architecture"] == [["QB1", "QB2"], ["QB2", "QB3"], ["QB3", "QB4"], ["QB4", "QB5"]]
    assert found["healthy"] is True
    assert found["about"] == "simenv"
    assert found["metrics"] == 4 * 5 + 4
    assert found["heralding"][0] == "InvalidOperationError"
    assert "heralding_mode='zeros'" in found["heralding"][1]
    assert found["timeslot"][0] == "ForbiddenError"
    assert "use_timeslot" in found["timeslot"][1]
    assert (found["chip"][0], found["deleted"][0]) == ("NotFoundError", "NotFoundError")


def test_the_example_runs(settings: Mapping[str, str], iqm: Run) -> None:
    program = EXAMPLE.read_text().replace("sys.argv[1]", repr(iqm_clients.DEVICE))
    iqm(f"{program}\nfound = {{}}", settings)


def test_commands_of_the_guide_run(tmp_path: Path) -> None:
    """In an empty folder, but for the virtual environment of iqm-client."""
    text = (EXAMPLE.parents[2] / "docs" / "guides" / "iqm.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = [line for line in block.splitlines() if "pip install" not in line]
    (tmp_path / "iqm").symlink_to(iqm_clients.interpreter().parents[1])
    ended = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        env=fresh_environ(tmp_path), cwd=tmp_path,
        capture_output=True, text=True, timeout=PROGRAM_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "ok {'" in ended.stdout


def test_conditions_resets_and_cancel(env: Client, settings: Mapping[str, str], iqm: Run) -> None:
    found = iqm(CONDITIONAL, settings)
    assert found["counts"] == {"011": 100}
    assert found["error"] is None
    assert found["cancelled"] is True
    assert found["status"] == "CANCELLED"
    name = f"sampler-{found['job'][:8]}"
    until(lambda: not any(task.name == name for task in env.queue()[1]))


def test_qrmi_acquires_runs_and_releases(env: Client, settings: Mapping[str, str]) -> None:
    found = found_by(QRMI, settings, SHOTS=SHOTS, CIRCUIT=BELL, WIDE=wide())
    assert found["healthy"] is found["accessible"] is True
    target = found["target"]
    assert target["dynamic_quantum_architecture"]["gates"]["cz"]["default_implementation"] == "crf"
    assert target["static_quantum_architecture"][0]["qubits"] == ["QB1", "QB2", "QB3", "QB4", "QB5"]
    number = target["dynamic_quantum_architecture"]["calibration_set_id"]
    assert target["calibration_set"]["observation_set_id"] == number
    assert target["quality_metrics"]["describes_id"] == number
    assert found["state"] == "TaskStatus.Completed"
    assert "[iqm-server              ] completed" in found["logs"]
    (counts,) = found["result"]["measurement_counts"]
    assert counts["measurement_keys"] == ["both", "idle"]
    seed = checked_seed(None, found["job"])
    own = env.submit(own_bell(), shots=SHOTS, seed=seed, pool=iqm_clients.DEVICE)
    assert counts["counts"] == {bits[::-1]: n for bits, n in own.result().counts.items()}
    assert counts["counts"]["000"] + counts["counts"]["110"] > 0.9 * SHOTS
    (measured,) = found["result"]["measurements"]
    rows = [a + b for a, b in zip(measured["both"], measured["idle"], strict=True)]
    assert rows.count([1, 1, 0]) == counts["counts"]["110"]
    assert (found["far_state"], found["stopped"]) == ("TaskStatus.Failed", "TaskStatus.Cancelled")
    assert "unsupported_job_type" in found["pulses"]


def test_a_failed_job_names_the_instruction(http: httpx.Client) -> None:
    for change, text in (
        (operation("cz", 0, 4), "'cz' on QB1, QB5: the device lacks it"),
        (operation("prx", 9, angle=0.0, phase=0.0), "'QB10', which is no qubit of the device"),
        (operation("move", 0, 1), "'move' is not run here"),
        (operation("prx", 0, angle=0.1), "prx without the argument phase"),
        (operation("reset", 0), "'reset' on QB1: the device lacks it"),
        (operation("measure", 0, key="both"), "key 'both'"),
    ):
        circuit = {"name": "x", "instructions": [*BELL["instructions"], change]}
        ended = ended_job(http, submitted(http, {"circuits": [circuit]})["id"])
        (error,) = ended["errors"]
        assert ended["status"] == "failed"
        assert text in error["message"], error
        assert "instruction 6" in error["message"]


def submitted(
    http: httpx.Client, body: dict[str, Any], computer: str = iqm_clients.DEVICE
) -> dict[str, Any]:
    answer = http.post(f"/jobs/{computer}/circuit", json=body)
    assert answer.status_code == 201, answer.text
    result: dict[str, Any] = answer.json()
    return result


def ended_job(http: httpx.Client, number: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(http.get(f"/jobs/{number}?wait_until_terminal=true").json())
        return found["status"] not in ("waiting", "processing")

    until(has_ended, PROGRAM_S)
    return found


def test_circuits_run_inside_the_modules_of_linked_qpus(http: httpx.Client) -> None:
    computer = iqm_clients.LINKED
    described = http.get(f"/quantum-computers/{computer}/artifacts/static-quantum-architectures")
    (architecture,) = described.json()
    chain = [[f"QB{k}", f"QB{k + 1}"] for k in range(1, 10)]
    assert architecture["connectivity"] == [pair for pair in chain if pair != ["QB5", "QB6"]]

    def ended(first: int) -> dict[str, Any]:
        """The job of a Bell pair on two neighbours."""
        qubits = {f"QB{k}": f"QB{k + first - 1}" for k in (1, 2)}
        mapping = [{"logical_name": a, "physical_name": b} for a, b in qubits.items()]
        mapping.append({"logical_name": "QB3", "physical_name": "QB10"})
        circuits = [{"name": "b", "instructions": BELL["instructions"]}]
        body = {"circuits": circuits, "shots": 500, "qubit_mapping": mapping}
        return ended_job(http, submitted(http, body, computer)["id"])

    job = ended(7)  # in the second module
    assert job["status"] == "completed"
    (measured,) = http.get(f"/jobs/{job['id']}/artifacts/measurements").json()
    equal = sum(first == second for first, second in measured["both"])
    assert 0.8 * 500 < equal < 500
    (error,) = ended(5)["errors"]  # across the link
    assert "'cz' on QB5, QB6: the device lacks it" in error["message"]


def test_older_forms_and_a_qubit_mapping_are_read(http: httpx.Client) -> None:
    old = [
        {"name": each["name"], "qubits": each["locus"], "args": each["args"]}
        for each in BELL["instructions"]
    ]
    mapping = [
        {"logical_name": f"QB{number}", "physical_name": f"QB{6 - number}"}
        for number in range(1, 4)
    ]
    body = {"circuits": [{"name": "b", "instructions": old}], "shots": 50, "qubit_mapping": mapping}
    job = submitted(http, body)
    assert ended_job(http, job["id"])["status"] == "completed"
    assert http.get(f"/jobs/{job['id']}/payload").json() == body
    measured = http.get(f"/jobs/{job['id']}/artifacts/measurements").json()
    assert [len(measured[0][key]) for key in ("both", "idle")] == [50, 50]


def test_tasks_of_a_job_continue_the_span_of_its_request(http: httpx.Client, env: Client) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-00"}
    body = {"circuits": [BELL], "shots": 50}
    answer = http.post(f"/jobs/{iqm_clients.DEVICE}/circuit", json=body, headers=headers)
    assert ended_job(http, answer.json()["id"])["status"] == "completed"
    assert env.history.submitted(env.history.page(1)[0][0].id).terms.trace[3:35] == trace


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("shots", 0),
        ("calibration_set_id", "00000000-0000-0000-0000-000000000000"),
        ("max_circuit_duration_over_t2", 0.5),
        ("heralding_mode", "zeros"),
        ("active_reset_cycles", 2),
        ("dd_mode", "enabled"),
        ("qubit_mapping", [{"logical_name": "a"}]),
    ],
)
def test_an_option_that_is_not_supported_is_refused_by_name(
    http: httpx.Client, option: str, value: object
) -> None:
    body = {"circuits": [BELL], "shots": 10, option: value}
    answer = http.post(f"/jobs/{iqm_clients.DEVICE}/circuit", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_job_payload")
    assert answer.json()["message"].startswith(f"{option}=")


def test_errors_have_the_codes_of_that_api(
    http: httpx.Client, settings: Mapping[str, str], tls: ssl.SSLContext
) -> None:
    name = iqm_clients.DEVICE
    absent = "00000000-0000-0000-0000-000000000000"
    for path, code in (
        ("/quantum-computers/nothing", "qc_not_found"),
        ("/quantum-computers/lattice", "qc_not_found"),
        (f"/quantum-computers/{name}/artifacts/settings", "qc_artifact_not_found"),
        (f"/calibration-sets/{name}/{absent}", "calibration_set_not_found"),
        (f"/jobs/{absent}", "job_not_found"),
        (f"/jobs/{absent}/artifacts/measurements", "job_not_found"),
    ):
        answer = http.get(path)
        assert (answer.status_code, answer.json()["error_code"]) == (404, code), path
    assert "need r (PRX) and cz" in http.get("/quantum-computers/lattice").json()["message"]
    stranger = httpx.get(f"{settings['IQM_SERVER_URL']}/api/v1/quantum-computers", verify=tls)
    assert (stranger.status_code, stranger.json()["error_code"]) == (401, "unauthorized")
    refused = http.post(f"/jobs/{name}/circuit", content=b"{")
    assert refused.json()["error_code"] == "invalid_job_payload"


def test_jobs_are_of_one_user_and_one_api(
    env: Client, http: httpx.Client, settings: Mapping[str, str], tls: ssl.SSLContext
) -> None:
    job = submitted(http, {"circuits": [BELL]})["id"]
    secret = env.tokens.add(user="ana", purpose="test").secret
    header = {"Authorization": f"Bearer {secret}"}
    base = settings["IQM_SERVER_URL"]
    foreign = httpx.get(f"{base}/api/v1/jobs/{job}", headers=header, verify=tls)
    assert foreign.json()["error_code"] == "job_not_found"
    own = {"Authorization": f"Bearer {settings['IQM_TOKEN']}"}
    listed = httpx.get(f"{base}/experimental/api/v1/jobs", headers=own, verify=tls).json()
    assert job not in {each["id"] for each in listed["jobs"]}


def test_a_tokens_file_holds_an_access_token(
    settings: Mapping[str, str], iqm: Run, tmp_path: Path, tls: ssl.SSLContext
) -> None:
    grant = "urn:ibm:params:oauth:grant-type:apikey"
    form = {"grant_type": grant, "apikey": settings["IQM_TOKEN"]}
    answer = httpx.post(
        f"{settings['IQM_SERVER_URL']}/identity/token", data=form, verify=tls
    ).json()
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"access_token": answer["access_token"]}))
    names = ("IQM_SERVER_URL", "REQUESTS_CA_BUNDLE")
    chosen = {"IQM_TOKENS_FILE": str(path)} | {name: settings[name] for name in names}
    program = """
from iqm.iqm_client import IQMClient
client = IQMClient.from_url(quantum_computer="emu_garnet")
found = {"qubits": client.get_dynamic_quantum_architecture().qubits}
"""
    assert len(iqm(program, chosen)["qubits"]) == 5

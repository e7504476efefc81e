"""Programs for Pasqal's cloud run on an environment: those of pulser-pasqal, and of QRMI's compiled
client."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from live import Live, environment
from packages import bring
from snippets import fresh_environ

from simenv.cli.admin.gateway import variables
from simenv.client.client import Client
from simenv.client.environments import await_gateway

pulser = pytest.importorskip("pulser")
PROGRAM_S = 180.0
FOLDER = Path(sys.prefix) / "var" / "pasqal"
TAIL = "\nprint(json.dumps(found))\n"
PULSER_PASQAL = """
import json, os, warnings
warnings.simplefilter("ignore")
import pulser
from pasqal_cloud import Endpoints
from pasqal_cloud.endpoints import TokenProviderConf
from pulser.backend import BitStrings, EmulationConfig, Energy, Occupation, QPUBackend
from pulser_pasqal import PasqalCloud
from pulser_pasqal.backends import EmuFreeBackendV2, EmuMPSBackend

url, secret, found = os.environ["SIMENV_URL"] + "/pasqal", os.environ["SIMENV_TOKEN"], {}
login = TokenProviderConf(url + "/oauth/token", "client", "audience", "realm", "password")
where = Endpoints(core=url + "/core-fast", account=url + "/account")
cloud = PasqalCloud("ana", secret, "project", endpoints=where, auth_config=login)
device = cloud.fetch_available_devices()["AnalogDevice"]
layout = pulser.register.special_layouts.SquareLatticeLayout(5, 5, 6.0)
sequence = pulser.Sequence(layout.define_register(11, 12, 13), device)
sequence.declare_channel("global", "rydberg_global")
rabi = sequence.declare_variable("rabi")
sequence.add(pulser.Pulse.ConstantPulse(200, rabi, 0.0, 0.0), "global")
sequence.measure("ground-rydberg")

params = [{"runs": 100, "variables": {"rabi": 6.0}}, {"runs": 50, "variables": {"rabi": 0.0}}]
qpu = QPUBackend(sequence, connection=cloud)
done = qpu.run(job_params=params, wait=True)
found["status"] = done.get_batch_status().name
found["counts"] = [dict(each.final_bitstrings) for each in done.results]
again = cloud.get_results(done.batch_id)
found["again"] = [dict(each.final_bitstrings) for each in again.results] == found["counts"]
with qpu.open_batch():
    added = [qpu.run(job_params=[{"runs": runs, "variables": {"rabi": 6.0}}]) for runs in (5, 7)]
    found["open"] = added[0].batch_id == added[1].batch_id
sdk = cloud._sdk_connection
batch = sdk.get_batch(added[0].batch_id)
found["closed"], found["jobs"] = not batch.open, [job.runs for job in batch.ordered_jobs]
found["listed"] = sdk.get_batches().total
found["projects"] = [each.name for each in sdk.get_all_projects()]
batch.set_tags(["one"])
found["tags"] = sdk.get_batch(batch.id).tags

built = sequence.build(rabi=6.0)
asked = [BitStrings(num_shots=77), Occupation(), Energy(evaluation_times=[0.5, 1.0])]
emulated = EmuFreeBackendV2(built, connection=cloud, config=EmulationConfig(observables=asked))
result = emulated.run(wait=True).results[0]
found["shots"], found["occupation"] = sum(result.final_bitstrings.values()), result.occupation[0]
found["times"] = result.get_result_times("energy")
wide = EmuMPSBackend(built, connection=cloud).run(wait=True).results[0]
found["mps"] = sum(wide.final_bitstrings.values())

slow = pulser.Sequence(pulser.Register.rectangle(2, 7, 6.0), pulser.MockDevice)
slow.declare_channel("global", "rydberg_global")
for _ in range(20):
    slow.add(pulser.Pulse.ConstantPulse(200, 6.0, 0.0, 0.0), "global")
made = sdk.create_batch(slow.to_abstract_repr(), [{"runs": 10}] * 3)
made.cancel()
found["cancelled"] = sdk.get_batch(made.id).status
try:
    sdk.create_batch(json.dumps({"x": 1}), [{"runs": 10}])
except BaseException as error:  # theirs is no Exception
    found["refused"] = [type(error).__name__, str(error)]
try:
    PasqalCloud("ana", "wrong", "project", endpoints=where, auth_config=login)
except Exception as error:
    found["login"] = str(error)
"""
QRMI = """
import json, time, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
from qrmi import Payload, QuantumResource, ResourceType, TaskStatus

def started(sequence):
    return resource.task_start(Payload.PasqalCloud(sequence=sequence, job_runs=200))

def end_of(task):
    while (state := resource.task_status(task)) in (TaskStatus.Queued, TaskStatus.Running):
        time.sleep(0.05)
    return str(state)

resource = QuantumResource("EMU_FREE", ResourceType.PasqalCloud)
found = {"accessible": resource.is_accessible()}
token = resource.acquire()
task = started(SEQUENCE)
found["state"] = end_of(task)
found["result"] = json.loads(resource.task_result(task).value)
stopped = started(SLOW)
resource.task_stop(stopped)
found["stopped"] = end_of(stopped)
resource.release(token)
found["target"] = [each["device_type"] for each in json.loads(resource.target().value)]
try:
    started(json.dumps({"setup": {}, "hamiltonian": {}}))
except Exception as error:
    found["cudaq"] = str(error)
"""


def sequence(atoms: int, pulses: int) -> str:
    register = pulser.Register.from_coordinates([(6.0 * k, 0) for k in range(atoms)], prefix="q")
    made = pulser.Sequence(register, pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    for _ in range(pulses):
        made.add(pulser.Pulse.ConstantPulse(200, 6.0, 0.0, 0.0), "global")
    return str(made.to_abstract_repr())


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment(gateway={"listen": "127.0.0.1:0"}) as live:
        yield live


@pytest.fixture(scope="module")
def settings(up: Live, env: Client) -> Mapping[str, str]:
    """Variables as `simenv gateway env` prints them."""
    gateway = await_gateway(up.home)
    assert gateway is not None, (up.home / "logs" / "gateway.log").read_text()
    made = env.tokens.add(purpose="test")
    return variables(gateway.url, env.name, made.secret, [], made.authority)


def found_by(
    python: str | Path, program: str, settings: Mapping[str, str], **values: object
) -> dict[str, Any]:
    """Run a program in a process that knows nothing of simenv but these variables."""
    constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    kept = ("PATH", "HOME", "TMPDIR", "LANG")
    plain = {name: value for name, value in os.environ.items() if name in kept}
    done = subprocess.run(
        [python, "-"], input=constants + program + TAIL, env={**plain, **settings},
        capture_output=True, text=True, timeout=PROGRAM_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def interpreter() -> Path:
    """Python with pulser-pasqal; skips the test where it cannot be had, but not in CI."""
    why = bring("vendor_client.sh", "pasqal", FOLDER)
    if why:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    return FOLDER / "bin" / "python"


def test_commands_of_the_guide_run(tmp_path: Path) -> None:
    """In an empty folder, but for the virtual environment of pulser-pasqal."""
    text = (Path(__file__).parents[2] / "docs" / "guides" / "pasqal.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = [line for line in block.splitlines() if "pip install" not in line]
    (tmp_path / "pasqal").symlink_to(interpreter().parents[1])
    ended = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        env=fresh_environ(tmp_path), cwd=tmp_path,
        capture_output=True, text=True, timeout=PROGRAM_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "ok {'" in ended.stdout


def test_a_program_of_pasqals_client_runs_unchanged(settings: Mapping[str, str]) -> None:
    found = found_by(interpreter(), PULSER_PASQAL, settings)
    assert found["status"] == "DONE"
    assert sum(found["counts"][0].values()) == 100
    assert found["counts"][1] == {"000": 50}
    assert found["again"]
    assert (found["open"], found["closed"], found["jobs"]) == (True, True, [5, 7])
    assert found["listed"] == 2
    assert len(found["projects"]) == 1
    assert found["tags"] == ["one"]
    assert found["shots"] == 77
    assert found["occupation"][0] == pytest.approx(found["occupation"][2])
    assert found["times"] == [0.5, 1.0]
    assert found["mps"] == 1_000
    assert found["cancelled"] == "CANCELED"
    assert found["refused"][0] == "BatchCreationError"
    assert "refused by pulser" in found["refused"][1]
    assert "401" in found["login"]


def test_qrmi_runs_a_sequence_from_acquire_to_target(settings: Mapping[str, str]) -> None:
    pytest.importorskip("qrmi")
    found = found_by(sys.executable, QRMI, settings, SEQUENCE=sequence(4, 1), SLOW=sequence(14, 20))
    assert found["accessible"]
    assert found["state"] == "TaskStatus.Completed"
    assert sum(found["result"]["counter"].values()) == 200
    assert found["stopped"] == "TaskStatus.Cancelled"
    assert found["target"] == ["AnalogDevice", "DigitalAnalogDevice"]
    assert "CUDA-Q" in found["cudaq"]

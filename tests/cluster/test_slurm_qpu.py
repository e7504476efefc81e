"""Jobs of a real Slurm with `--qpu`: their share of a pool, with the identity of their user."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import slurm_jobs
from cluster_slurm import LOGIN
from slurm_site import (
    ADDRESS,
    CLUSTER,
    LATE_S,
    OTHER,
    OTHERS,
    POOL,
    SLURM_USER,
    WORKERS,
    Site,
    install,
    report,
)

from testbed.cluster_environment import wait_for

BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
BELL += "measure q -> c;"
# What a user of the site writes; none of them names a reservation, a token or an address.
PROGRAMS = {
    "simenv": f"""
import simenv
with simenv.connect() as env:
    print(sum(env.submit('''{BELL}''', shots=100).result(60).counts.values()), "shots")
""",
    "ibm": f"""
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2
backend = QiskitRuntimeService().backend("{POOL}")
circuit = generate_preset_pass_manager(1, backend).run(QuantumCircuit.from_qasm_str('''{BELL}'''))
result = SamplerV2(mode=backend).run([circuit], shots=100).result()
print(sum(result[0].data.c.get_counts().values()), "shots")
""",
    "qrmi": f"""
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qrmi.primitives import QRMIService
from qrmi.primitives.ibm import SamplerV2, get_target
(qpu,) = QRMIService().resources()
token = qpu.acquire()
circuit = QuantumCircuit.from_qasm_str('''{BELL}''')
circuit = generate_preset_pass_manager(1, target=get_target(qpu)).run(circuit)
result = SamplerV2(qpu).run([circuit], shots=100).result()
qpu.release(token)
print(sum(result[0].data.c.get_counts().values()), "shots")
""",
}


QPM_HOST = f"""
import json, os, simenv
((service, number),) = json.loads(os.environ["QFW_RESERVATIONS"])
info = {{"qasm": '''{BELL}''', "num_qubits": 2, "num_shots": 100}}
with simenv.connect() as env:
    qpm = env.qpm_with(pool="{POOL}", reservations="required")
    assert qpm.query().properties["service_id"] == service
    answer = qpm.sync_run(info, reservation_id=int(number))
    print(answer["outcome"], qpm.list_scheduler_allocations()["allocations"][0]["job_id"])
"""
# One connection, which a job holds for its whole life, and what it runs over it again and again.
LOOPS = {
    "simenv": (
        "import simenv\nenv = simenv.connect()",
        f"env.submit('''{BELL}''', shots=100).result(60)",
    ),
    "ibm": (
        PROGRAMS["ibm"].partition("result = ")[0] + "sampler = SamplerV2(mode=backend)",
        "sampler.run([circuit], shots=100).result()",
    ),
}
OWN_RESERVATION = f"""
import os, simenv
from simenv.client import reservations
from simenv.errors import SimenvError
from simenv.frontends.slurm import jobs

def own(env):
    env.reserve("{POOL}", workers=1, for_s=60, timeout_s=5)

def as_job(env):
    share = jobs.DeviceShare("{POOL}")
    job = jobs.job(int(os.environ["SLURM_JOB_ID"]))
    request = jobs._request(job, "{CLUSTER}", share)
    reservations.request_decision(env.session, request, 5)

with simenv.connect(service="{ADDRESS}") as env:
    for make in (own, as_job):
        try:
            make(env)
        except SimenvError as error:
            print(error)
"""
HOLD_WORKERS = f"""
import simenv
with simenv.connect() as env:
    print(env.reserve("{POOL}", workers={WORKERS}, for_s=600, timeout_s=60).id)
"""
FREE_WORKERS = """
import sys, simenv
with simenv.connect() as env:
    env.reservation(int(sys.argv[1])).release()
"""
WAITING = "echo started && sleep 600"
RUN = "echo $SIMENV_RESERVATION"
OF_A_SHARE = (  # variables that users have of their own, too
    *("SIMENV_RESERVATION", "QFW_RESERVATIONS", "QISKIT_IBM_TOKEN", "IQM_TOKEN"),
    *("QRMI_JOB_QPU_RESOURCES", "QRMI_JOB_QPU_TYPES"),
)


def batch(site: Site, name: str) -> Path:
    """A batch script with one of the programs, which then waits."""
    program = site.folder / f"program_{name}.py"
    program.write_text(PROGRAMS[name])
    return site.script(f"{name}.sh", f"python {program} && echo program ended && sleep 600")


@contextmanager
def restored(path: Path) -> Iterator[str]:
    """Yield the text of a file of the site, which has it again afterwards."""
    text = path.read_text()
    try:
        yield text
    finally:
        path.write_text(text)


def is_drained(site: Site) -> bool:
    """True if Slurm has taken a node out of use."""
    states = site.cluster.run(LOGIN, ["sinfo", "--noheader", "--Node", "--format=%T"]).stdout
    return bool({"drained", "draining", "down"} & set(states.split()))


def cancel(site: Site, *jobs: int) -> None:
    """Cancel jobs; wait until they have no reservation."""
    site.cluster.run(LOGIN, ["scancel", *map(str, jobs)])
    for job in jobs:
        site.is_released(job)


def test_programs_of_clients_wait_for_licences_and_run_in_reservations(site: Site) -> None:
    whole = site.submit("user1", site.script("wait.sh", WAITING), f"--qpu={POOL}:{WORKERS}")
    site.has_printed(whole, "started")
    jobs = [site.submit("user0", batch(site, name), f"--qpu={POOL}") for name in PROGRAMS]
    for job in jobs:
        site.waits_for(job, "PENDING Licenses")
    assert set(site.reservations()) == {whole}
    with site.released(whole, "scancel"):
        site.cluster.run(LOGIN, ["scancel", str(whole)])
    for job in jobs:
        site.has_printed(job, "program ended")
        assert "100 shots" in site.output(job)
    live = site.reservations()
    assert set(live) == set(jobs)
    for (reservation,) in live.values():
        assert reservation["user"] == "user0"
        assert reservation["used_s"] > 0, "the program ran outside its reservation"
    assert len(site.simenv("gateway", "tokens", "list")) == len(jobs)
    cancel(site, *jobs)
    assert site.simenv("gateway", "tokens", "list") == []


def test_user_reserves_nothing_without_a_job(site: Site) -> None:
    """Neither by himself nor as if he were a job; `simenv slurm reserve` is for admins."""
    program = site.folder / "own.py"
    program.write_text(OWN_RESERVATION)
    job = site.submit("user0", site.script("own.sh", f"python {program}"), "--wait")
    printed = site.output(job)
    assert "max_reserved_percent" in printed
    assert "are those of batch jobs" in printed
    assert site.reservations() == {}


def test_job_is_charged_to_its_account_in_slurm_for_its_own_time(site: Site) -> None:
    names = ("chem", "phys42")  # the first is the default one
    try:
        for name in names:
            budget = ("--add-user", "user0", "--budget-slot-h", "0.2")  # less than an hour
            site.simenv("accounts", "add", name, *budget)
        script, options = site.script("short.sh", WAITING), ("--time=5", f"--qpu={POOL}")
        jobs = [
            site.submit("user0", script, *options, f"--account={name}") for name in ("phys42", "x")
        ]
        for job in jobs:
            site.has_printed(job, "started")
        live = site.reservations()
        assert [live[job][0]["account"] for job in jobs] == ["phys42", "chem"]
        nobody = site.submit("user1", script, *options)
        site.fails(nobody)
        assert "'user1' is in no account of this environment" in site.output(nobody)
        cancel(site, *jobs)
    finally:
        for name in names:
            site.simenv("accounts", "remove", name)


def test_step_of_srun_reserves_and_steps_of_batch_script_share(site: Site) -> None:
    shown = ["sh", "-c", "echo $SIMENV_SLURM_JOB $SLURM_JOB_ID $SIMENV_RESERVATION"]
    words = site.as_user("user0", "srun", f"--qpu={POOL}", "--ntasks=2", *shown).splitlines()
    assert words[0] == words[1]
    job, same, reservation = words[0].split()
    assert job == same
    site.is_released(int(job))
    script = site.script("steps.sh", f"echo $SIMENV_RESERVATION; srun {shlex.join(shown)}")
    number = site.submit("user0", script, f"--qpu={POOL}", "--wait")
    own, step = site.output(number).splitlines()[-2:]
    assert step == f"{number} {number} {own}"
    assert own != reservation


def test_reservation_of_qfw_is_accepted_by_the_qpm_that_it_names(site: Site) -> None:
    program = site.folder / "qpm_host.py"
    program.write_text(QPM_HOST)
    job = site.submit(
        "user0", site.script("qpm.sh", f"python {program}"), f"--qpu={POOL}", "--wait"
    )
    assert site.output(job).splitlines()[-1] == f"COMPLETED {job}"


def test_job_without_qpu_has_the_variables_of_its_user(site: Site) -> None:
    own = {name: f"own-{k}" for k, name in enumerate(OF_A_SHARE)}
    shown = site.script("shown.sh", f"env | grep -E '^({'|'.join(OF_A_SHARE)})=' | sort")
    job = site.submit("user0", shown, "--wait", **own)
    expected = sorted(f"{name}={value}" for name, value in own.items())
    assert site.output(job).splitlines()[-len(own) :] == expected


@pytest.mark.parametrize("submitter", ["sbatch", "salloc", "srun"])
def test_job_without_qpu_has_nothing_of_job_that_submitted(site: Site, submitter: str) -> None:
    """But a token of its user, who has set it in the script of that job."""
    number = "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%W)"
    names = "|".join((*OF_A_SHARE, "IAM_URL", "SIMENV_SLURM_", f"{POOL}_QRMI_", "SLURM_SPANK_"))
    inner = site.script("inner.sh", f"echo inner {number}; env | grep -E '^({names})' | sort")
    output = site.folder / f"inner_{submitter}.out"
    line = f"IQM_TOKEN=own sbatch --wait --output={output} {inner}"
    if submitter == "sbatch":
        site.submit("user0", site.script("outer.sh", line), f"--qpu={POOL}", "--wait")
    else:
        variables = f'eval "$(simenv slurm env --qpu {POOL})"; ' if submitter == "salloc" else ""
        outer = site.script("outer.sh", f"export SIMENV_SERVICE={ADDRESS}; {variables}{line}")
        site.as_user("user0", submitter, f"--qpu={POOL}", outer)
    lines = [line for line in output.read_text().splitlines() if "TMPDIR" not in line]
    assert lines == ["inner (null)", "IQM_TOKEN=own"]


@pytest.mark.parametrize("export", ["NONE", "HOME,QFW_RESERVATIONS"])
def test_variables_reach_batch_script_and_steps_in_any_export(site: Site, export: str) -> None:
    shown = "echo $SLURM_JOB_ID $SIMENV_SLURM_JOB $SIMENV_RESERVATION ${#QISKIT_IBM_TOKEN}"
    shown += " $(env | grep -c SLURM_SIMENV)"
    step = site.script("step.sh", shown)
    script = site.script("export.sh", f"{shown}; {shutil.which('srun')} --ntasks=2 {step}")
    options = [f"--qpu={POOL}", f"--export={export}", "--ntasks=2"]
    job = site.submit("user0", script, *options, "--wait")
    lines = site.output(job).splitlines()[-3:]
    assert len(set(lines)) == 1
    number, same, reservation, length, left = lines[0].split()
    assert number == same == str(job)
    assert reservation.startswith(f"{POOL}:")
    assert int(length) > 20
    assert left == "0"
    lines = site.as_user("user0", "srun", *options, step).splitlines()
    number, same, reservation, length, left = lines[0].split()
    assert number == same
    assert left == "0"
    assert lines.count(lines[0]) == 2
    assert int(length) > 20
    site.is_released(int(number))


def test_request_in_the_environment_is_checked_as_the_option(site: Site) -> None:
    """Of a host without the plugin, or of a user who sets the variable."""
    plugstack = site.cluster.folder / "slurm" / "plugstack.conf"
    script = site.script("wait.sh", WAITING)
    with restored(plugstack):
        plugstack.write_text("")
        jobs = [
            site.submit("user0", script, "--begin=now+2", SLURM_SPANK_SIMENV_QPU=request)
            for request in (f"{POOL};x", POOL)
        ]
    for job, reason in zip(jobs, ("is not NAME[:COUNT]", f"no licence {POOL}:1"), strict=True):
        site.fails(job)
        assert reason in site.output(job)


def test_install_writes_nothing_that_slurm_cannot_load_or_users_cannot_run(site: Site) -> None:
    folder = site.cluster.folder / "slurm"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.conf")}
    damaged, closed = folder / "damaged.so", folder / "closed.so"
    damaged.write_bytes((folder / "simenv_spank.so").read_bytes()[:512])
    shutil.copy(folder / "simenv_spank.so", closed)
    closed.chmod(0o700)
    program = site.script("closed_simenv", "exit 0")
    program.chmod(0o700)
    for options, reason in (
        (["--plugin", str(damaged)], f"{damaged}: Dlopen of plugin file failed"),
        (["--plugin", str(closed)], f"{closed}: Dlopen of plugin file failed"),
        (["--simenv", str(program)], "does not run: [Errno 13] Permission denied"),
        (["--option", "no_name"], "'no_name' is no name of an option"),
        (["--ca", str(damaged)], "--ca"),
    ):
        refused = install(site.cluster, *options, check=False)
        assert refused.returncode == 2
        assert reason in refused.stderr
        assert {path: path.stat().st_mtime_ns for path in folder.glob("*.conf")} == before


def test_job_trusts_the_authority_that_install_names_and_those_of_its_user(site: Site) -> None:
    folder = site.cluster.folder / "slurm"
    bundle = folder / "all.pem"
    site.simenv("gateway", "env", "--bundle", bundle)
    begin = "-----BEGIN"
    authority = begin + bundle.read_text().split(begin)[-1]
    named, own = folder / "named.pem", site.folder / "own.pem"
    named.write_text(authority)
    own.write_text(2 * f"{authority.rstrip()}\n")
    shown = f"grep -c -e {begin} $REQUESTS_CA_BUNDLE $SSL_CERT_FILE"
    with restored(folder / "plugstack.conf"):
        install(site.cluster, "--ca", str(named))
        script, variables = site.script("ca.sh", shown), {"REQUESTS_CA_BUNDLE": str(own)}
        job = site.submit("user0", script, f"--qpu={POOL}", "--wait", **variables)
    counts = site.output(job).splitlines()[-2:]
    assert [line.rsplit(":", 1)[1] for line in counts] == ["3", "3"]


QRMI_PLUGIN = os.environ.get("SIMENV_QRMI_PLUGIN", "")
RESOURCES = """
echo $QRMI_JOB_QPU_RESOURCES
echo $QRMI_JOB_QPU_TYPES
echo "${QISKIT_IBM_TOKEN:0:4} ${fez_QRMI_JOB_ACQUISITION_TOKEN:+acquired}"
"""


@pytest.mark.skipif(
    not QRMI_PLUGIN,
    reason="SIMENV_QRMI_PLUGIN names no spank_qrmi.so of github.com/qiskit-community/spank-plugins",
)
def test_plugin_of_qrmi_and_ours_serve_their_jobs_side_by_side(site: Site) -> None:
    """QRMI's acquires `fez` at the gateway, ours reserves the pool."""
    folder = site.cluster.folder / "slurm"
    plugstack, bundle = folder / "plugstack.conf", folder / "bundle.pem"
    values = site.simenv("gateway", "env", "--device", "fez", "--bundle", bundle)
    own = {k.removeprefix("fez_"): v for k, v in values.items() if k.startswith("fez_QRMI_")}
    resource = {"name": "fez", "type": "ibm-quantum-compute-service", "environment": own}
    config = folder / "qrmi_config.json"
    config.write_text(json.dumps({"resources": [resource]}))
    line = f"required {QRMI_PLUGIN} {config} --env:SSL_CERT_FILE={bundle}"
    script = site.script("resources.sh", RESOURCES)
    theirs = "ibm-quantum-compute-service"
    with restored(plugstack) as text:
        plugstack.write_text(f"{line}\n{text}")
        refused = install(site.cluster, check=False)
        assert refused.returncode == 2
        assert '"qpu" provided by both' in refused.stderr
        install(site.cluster, "--option", "simenv-qpu")
        assert plugstack.read_text().splitlines()[0] == line
        ours = f"--simenv-qpu={POOL}"
        for options, names, types, rest in (
            (["--qpu=fez"], "fez", theirs, "own acquired"),
            ([ours], POOL, theirs, "sime "),
            (["--qpu=fez", ours], f"fez,{POOL}", f"{theirs},{theirs}", "sime acquired"),
            ([ours, "--export=PATH"], POOL, theirs, "sime "),
        ):
            job = site.submit("user0", script, *options, "--wait", QISKIT_IBM_TOKEN="own")
            assert site.output(job).splitlines()[-3:] == [names, types, rest]
        output = site.folder / "inner_qrmi.out"
        inner = f"sbatch --qpu=fez --wait --output={output} {script}"
        site.submit("user0", site.script("outer.sh", inner), ours, "--wait")
        assert output.read_text().splitlines()[-3:] == ["fez", theirs, " acquired"]


def test_component_of_heterogeneous_job_without_qpu_takes_no_share(site: Site) -> None:
    script = site.script("het.sh", WAITING)
    argv = ["sbatch", "--parsable", f"--output={site.folder}/%j.out", f"--qpu={POOL}"]
    argv += ["--ntasks=1", ":", "--ntasks=1", str(script)]
    job = int(site.as_user("user0", *argv))
    site.until(lambda: job in site.reservations(), job)
    assert site.licences()[2] == 1
    site.has_printed(job, "started")
    assert list(site.reservations()) == [job]
    cancel(site, job)
    argv = ["sbatch", "--ntasks=1", ":", f"--qpu={POOL}", "--ntasks=1", script]
    assert "only the first component" in site.as_user("user0", *argv, check=False)


@pytest.mark.parametrize(
    ("user", "request_", "reason"),
    [
        ("user0", "nothing", "Invalid license"),
        ("user0", f"{POOL}:{WORKERS + 1}", "Invalid license"),
        ("user0", f"{POOL}:0", "NAME[:COUNT]"),
        ("user0", f"{POOL};x", "NAME[:COUNT]"),
    ],
)
def test_impossible_request_is_refused(site: Site, user: str, request_: str, reason: str) -> None:
    argv = ["sbatch", f"--qpu={request_}", site.script("wait.sh", WAITING)]
    assert reason in site.as_user(user, *argv, check=False)


def test_user_who_may_not_enter_gets_the_reason_and_the_node_stays_up(site: Site) -> None:
    job = site.submit("user2", site.script("wait.sh", WAITING), f"--qpu={POOL}")
    site.fails(job)
    assert "user2 may not use the environment" in site.output(job)
    assert not is_drained(site)


def test_reservation_ends_with_node_of_job_and_returns_with_requeued_job(site: Site) -> None:
    script, request = site.script("wait.sh", WAITING), f"--qpu={POOL}"
    lost = site.submit("user0", script, "--no-requeue", "--nodelist=node2", request)
    requeued = site.submit("user1", script, "--requeue", "--exclude=node1,node3", request)
    for job in (lost, requeued):
        site.has_printed(job, "started")
    (before,) = site.reservations()[requeued]
    try:
        with site.released(lost, "the death of its node"):
            site.cluster.crash("node2")
        site.until(lambda: site.shown(lost, "%T") == "NODE_FAIL", lost)  # first COMPLETING
        site.waits_for(requeued, "PENDING BeginTime")
        assert requeued not in site.reservations()
        argv = ["scontrol", "update", f"jobid={requeued}", "excnodelist=", "starttime=now"]
        site.cluster.run(LOGIN, argv)  # else Slurm waits two minutes
        site.until(lambda: requeued in site.reservations(), requeued)
        assert site.reservations()[requeued] != [before]
    finally:  # later tests need its share
        site.boot("node2")
        cancel(site, requeued)


def test_reservation_survives_controller_and_ends_with_job(site: Site) -> None:
    script = site.script("wait.sh", WAITING)
    job = site.submit("user0", script, f"--qpu={POOL}:2")
    site.has_printed(job, "started")
    site.stop_controller()
    assert set(site.reservations()) == {job}
    site.start_controller()
    follower = site.submit("user1", script, f"--qpu={POOL}:2")
    site.waits_for(follower, "PENDING Licenses")
    with site.released(job, "scancel, after a restart of slurmctld"):
        site.cluster.run(LOGIN, ["scancel", str(job)])
    site.has_printed(follower, "started")
    cancel(site, follower)


def test_sync_ends_what_an_epilog_left(site: Site) -> None:
    epilog = site.cluster.folder / "slurm" / "simenv_epilog.sh"
    jobs = [
        site.submit("user0", site.script("wait.sh", WAITING), f"--qpu={POOL}") for _ in range(2)
    ]
    for job in jobs:
        site.has_printed(job, "started")
    job, other = jobs
    with restored(epilog):
        epilog.write_text("#!/bin/sh\nexit 1\n")
        site.cluster.run(LOGIN, ["scancel", str(job)])
        site.until(lambda: site.shown(job, "%T") == "CANCELLED", job)
        (orphan,) = site.reservations()[job]
        assert site.sync("--pool", POOL)["ended"] == [orphan["reservation"]]
        assert set(site.reservations()) == {other}
    cancel(site, other)


def test_sync_holds_back_what_a_pool_has_lost_and_jobs_wait_for_it(site: Site) -> None:
    job = 0
    try:
        site.simenv("scale", POOL, str(WORKERS - 1))
        done = site.sync("--pool", POOL)
        assert (done["licenses"], done["held"]) == ({POOL: WORKERS}, {POOL: 1})
        assert not done["reconfigured"]
        assert site.licences() == (WORKERS, 1, 0)
        job = site.submit("user0", site.script("wait.sh", WAITING), f"--qpu={POOL}:{WORKERS}")
        site.waits_for(job, "PENDING Licenses")
        site.simenv("scale", POOL, str(WORKERS))
        site.simenv("drain", LOGIN, "--reason", "test")  # as if it were lost
        assert site.sync("--pool", POOL)["held"] == {POOL: WORKERS}
        site.waits_for(job, "PENDING Licenses")
        site.simenv("undrain", LOGIN)
        assert site.sync("--pool", POOL)["held"] == {POOL: 0}
        site.has_printed(job, "started")
        assert site.licences() == (WORKERS, 0, WORKERS)
    finally:
        site.simenv("scale", POOL, str(WORKERS))
        site.simenv("undrain", LOGIN)
        site.hold_nothing()
    cancel(site, job)


def test_slots_of_a_node_are_counted_once_for_pools_that_share_them(site: Site) -> None:
    script = site.script("wait.sh", WAITING)
    submitted = []
    try:
        done = site.sync()
        assert done["licenses"] == {POOL: WORKERS, OTHER: OTHERS}
        assert sum(done["held"].values()) == OTHERS
        assert site.licences(OTHER) == (OTHERS, 1, 0)
        submitted.append(site.submit("user0", script, f"--qpu={OTHER}:{OTHERS}"))
        site.waits_for(submitted[0], "PENDING Licenses")
        assert site.sync()["held"] == {POOL: OTHERS, OTHER: 0}
        site.has_printed(submitted[0], "started")
        submitted.append(site.submit("user1", script, f"--qpu={POOL}:{WORKERS}"))
        site.waits_for(submitted[1], "PENDING Licenses")
        assert site.sync()["held"] == {POOL: OTHERS, OTHER: 0}  # the slots are in use
        cancel(site, submitted[0])
        assert site.sync()["held"] == {POOL: 0, OTHER: OTHERS}
        site.has_printed(submitted[1], "started")
    finally:
        site.hold_nothing()
    cancel(site, *submitted)


def test_jobs_wait_while_the_service_is_away_and_run_after_up(site: Site) -> None:
    wait, run = site.script("wait.sh", WAITING), site.script("run.sh", RUN)
    holding = site.submit("user0", wait, f"--qpu={POOL}:{WORKERS - 1}")
    ending = site.submit("user1", wait, f"--qpu={POOL}")
    for job in (holding, ending):
        site.has_printed(job, "started")
    (before,) = site.reservations()[holding]
    jobs = [site.submit(f"user{number % 2}", run, f"--qpu={POOL}") for number in range(8)]
    for job in jobs:
        site.waits_for(job, "PENDING Licenses")
    with site.syncing() as syncing:
        try:
            site.down()
            wait_for("all licences held", lambda: site.held() == WORKERS)
            site.cluster.run(LOGIN, ["scancel", str(ending)])
            site.until(lambda: site.shown(ending, "%T") == "CANCELLED", ending, may_fail=True)
            late = site.submit("user0", site.script("true.sh", "true"), "--wait", "--nice=1000")
            assert site.shown(late, "%T") == "COMPLETED", "the scheduler has passed the eight jobs"
            for job in jobs:
                assert site.shown(job) == "PENDING Licenses"
            options = ("--cluster", CLUSTER, "--job", str(holding))
            words = ("slurm", "env", "--qpu", f"{POOL}:{WORKERS - 1}", *options, "--plain")
            asking = site.started_as("user0", "simenv", "--service", ADDRESS, *words)
            assert asking.poll() is None
        finally:
            site.up()
        printed, error = asking.communicate(timeout=60)
        assert f"SIMENV_RESERVATION={POOL}:{before['reservation']}\n" in printed, error
        site.cluster.run(LOGIN, ["scancel", str(holding)])
        for job in jobs:
            site.until(lambda job=job: site.shown(job, "%T") == "COMPLETED", job)  # type: ignore[misc]
        syncing.terminate()
    for job in jobs:
        assert f"\n{POOL}:" in f"\n{site.output(job)}"
        site.is_released(job)
    assert site.held() == 0


@contextmanager
def away(site: Site) -> Iterator[None]:
    """Where `sync` does not run, or has not held the licences back yet."""
    site.down()
    try:
        yield
    finally:
        site.up()


@contextmanager
def held(site: Site) -> Iterator[None]:
    """As where the service is slow to end the reservation of the job before."""
    holder = site.cluster.run(LOGIN, ["python", "-c", HOLD_WORKERS])  # they have no licences
    try:
        yield
    finally:
        site.cluster.run(LOGIN, ["python", "-c", FREE_WORKERS, holder.stdout.strip()])


@pytest.mark.parametrize("hindered", [away, held])
def test_job_without_its_share_in_time_is_requeued(site: Site, hindered: Any) -> None:
    prolog = site.cluster.folder / "slurm" / "simenv_prolog.sh"
    with restored(prolog) as text, hindered(site):
        prolog.write_text(text.replace(" slurm reserve ", " slurm reserve --timeout 1 "))
        job = site.submit("user0", site.script("run.sh", RUN), f"--qpu={POOL}")
        site.waits_for(job, "PENDING BeginTime")
    site.cluster.run(LOGIN, ["scontrol", "update", f"jobid={job}", "starttime=now"])
    site.until(lambda: site.shown(job, "%T") == "COMPLETED", job)
    assert f"\n{POOL}:" in f"\n{site.output(job)}"
    site.is_released(job)


def test_jobs_whose_service_dies_between_prolog_and_start_are_requeued(site: Site) -> None:
    """But those that may not be; the plugin waits a second for the service instead of 30."""
    folder, killed = site.cluster.folder / "slurm", site.folder / "killed"
    prolog, plugstack = folder / "simenv_prolog.sh", folder / "plugstack.conf"
    script, kinds = site.script("run.sh", RUN), ("--requeue", "--array=7", "--no-requeue")
    with restored(prolog) as text, restored(plugstack) as line:
        wait = f"until [ -e {killed} ]; do sleep 0.1; done\nexit 0\n"
        prolog.write_text(text.removesuffix("exit 0\n") + wait)
        (program,) = re.findall("simenv=([^ ]*)", line)
        quick = site.script("quick.sh", f'exec {program} "$@" --timeout 1')
        plugstack.write_text(line.replace(f"simenv={program}", f"simenv={quick}"))
        try:
            jobs: list[int] = [
                site.submit("user0", script, f"--qpu={POOL}", kind) for kind in kinds
            ]
            site.until(lambda: set(site.reservations()) == set(jobs), jobs[0])
            site.kill_service()
            killed.touch()
            *requeued, failed = jobs
            for job in requeued:
                site.waits_for(job, "PENDING BeginTime")
            site.fails(failed)
        finally:
            site.up()
    assert not is_drained(site)
    assert f"Slurm does not requeue job {failed}: " in site.output(failed)
    for job in requeued:
        site.cluster.run(LOGIN, ["scontrol", "update", f"jobid={job}", "starttime=now"])
    for job in requeued:
        site.until(lambda job=job: site.shown(job, "%T") == "COMPLETED", job)  # type: ignore[misc]
        assert f"\n{POOL}:" in f"\n{site.output(job)}"
        site.is_released(job)
    site.sync()  # ends what an epilog could not, since its service was down
    site.is_released(failed)


@pytest.mark.timeout(5_400)
@pytest.mark.parametrize("seconds", [15.0, pytest.param(3_600.0, marks=pytest.mark.slow)])
def test_jobs_outlive_their_certificates(site: Site, seconds: float) -> None:
    """Jobs of one user, each over one connection, where certificates last five seconds."""
    file = site.cluster.folder / "simenv.toml"
    with ExitStack() as stack:
        stack.callback(site.up)
        text = stack.enter_context(restored(file))
        stack.callback(site.down)
        site.down()
        file.write_text(text.replace("[identity]\n", "[identity]\nlifetime_s = 5.0\n"))
        site.up()
        syncing = stack.enter_context(site.syncing())  # it renews the reservations of long jobs
        stack.callback(syncing.terminate)
        jobs = {}
        for name, (begin, step) in LOOPS.items():
            program = site.folder / f"loop_{name}.py"
            program.write_text(
                f"import time\n{begin}\nend_s, runs = time.monotonic() + {seconds}, 0\n"
                f"while time.monotonic() < end_s:\n    {step}\n    runs += 1\n"
                "    time.sleep(0.5)\nprint(runs, 'ended')\n"
            )
            script = site.script(f"loop_{name}.sh", f"python {program}")
            jobs[name] = site.submit("user0", script, f"--qpu={POOL}")
        for job in jobs.values():
            site.until(
                lambda job=job: site.shown(job, "%T") == "COMPLETED",  # type: ignore[misc]
                job,
                timeout_s=600.0 + seconds,
            )
        for name, job in jobs.items():
            (runs,) = re.findall(r"(\d+) ended", site.output(job))
            sys.stderr.write(f"\n{name}: {runs} ended in {seconds:g} s, 0 lost: met\n")
            assert int(runs) >= seconds / 5.0
            site.is_released(job)


def test_licences_of_a_pool_come_with_qpu_alone(site: Site) -> None:
    script = site.script("wait.sh", WAITING)
    try:
        assert site.sync()["unreserved"] == []
        for options in (
            (f"--licenses={POOL}:{WORKERS}",),
            (f"--licenses={POOL}",),
            (f"--licenses=matlab:1,{OTHER}:2",),
            (f"--licenses={POOL}:2", f"--qpu={POOL}"),
        ):
            said = site.as_user("user0", "sbatch", *options, script, check=False)
            assert "come with --qpu=" in said, said
            assert "Submitted" not in said
        waiting = site.submit("user0", script, "--hold", f"--qpu={POOL}")
        update = ("scontrol", "update", f"jobid={waiting}", f"licenses={POOL}:{WORKERS}")
        assert "Invalid license" in site.as_user("user0", *update, check=False)
        assert site.shown(waiting, "%W") == f"{POOL}:1"
        same = ("scontrol", "update", f"jobid={waiting}", f"licenses={POOL}:1", "comment=mine")
        site.as_user("user0", *same)
        site.cluster.run(LOGIN, ["scancel", str(waiting)])
    finally:
        site.hold_nothing()


def test_sync_names_jobs_that_have_licences_without_a_reservation(site: Site) -> None:
    """As where job_submit.lua of the site does not call the filter."""
    submit = site.cluster.folder / "slurm" / "job_submit.lua"
    script = site.script("wait.sh", WAITING)
    jobs = []
    with restored(submit) as text, ExitStack() as stack:
        stack.callback(site.hold_nothing)
        stack.callback(lambda: cancel(site, *jobs))
        jobs.append(site.submit("user1", script, f"--qpu={POOL}"))
        site.has_printed(jobs[0], "started")
        site.sync("--pool", POOL)
        submit.write_text(text.replace("simenv_job_submit(job_desc)", "slurm.SUCCESS"))
        jobs.append(site.submit("user0", script, f"--licenses={POOL}:2"))
        site.has_printed(jobs[1], "started")
        (named,) = site.sync("--pool", POOL)["unreserved"]
        assert named == {"job": jobs[1], "user": "user0", "licenses": {POOL: 2}}


def test_sync_of_a_user_who_cannot_write_names_user_and_folder(site: Site) -> None:
    folder = site.cluster.folder / "slurm" / "simenv"
    owner = folder.stat().st_uid
    licences = folder / "simenv_licenses.conf"
    text = licences.read_text()
    try:
        licences.write_text(f"Licenses={OTHER}:1\n")  # a pool is missing
        os.chown(folder, 0, 0)
        words = ("slurm", "sync", "--conf", folder.parent, "--cluster", CLUSTER)
        said = site.as_user(SLURM_USER, "simenv", "--service", ADDRESS, *words, check=False)
        assert f"{SLURM_USER} cannot write {licences}" in said
        assert f"the folder {folder} is of root, mode 0755" in said
    finally:
        os.chown(folder, owner, -1)
        licences.write_text(text)
        site.hold_nothing()


@pytest.mark.parametrize(
    ("count", "has_sync"),
    [
        (12, True),
        pytest.param(100, True, marks=pytest.mark.slow),
        pytest.param(200, False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(1_200)
def test_cancels_leave_and_double_no_reservation(site: Site, count: int, has_sync: bool) -> None:
    """Without the daemon, the epilog and the second look of each job must suffice."""
    script = site.script("short.sh", "sleep $((RANDOM % 3))")
    users = [str(uid) for uid in list(site.accounts.uids.values())[:2]]
    output = [f"--output={site.folder}/%j.out", f"--qpu={POOL}", script]
    argv = ["python", slurm_jobs.__file__, "many", str(count), "1", *users, "--", *output]
    syncing = site.syncing() if has_sync else None
    done = site.cluster.run(LOGIN, argv, {"SERVICE": ADDRESS}, timeout_s=1_200.0)
    if syncing is not None:
        syncing.terminate()
        assert syncing.wait(30) == 143
    figures = json.loads(done.stdout.splitlines()[-1])
    jobs = (
        f"{figures['jobs']} jobs, {figures['cancelled']} cancelled, in {figures['seconds']:.0f} s"
    )
    wrong = f"{figures['left']} reservations left (goal 0), {figures['doubled']} doubled (goal 0)"
    report(f"{jobs}: {wrong}; the last one ended", figures["late_s"], LATE_S)
    assert figures["jobs"] == count
    assert figures["cancelled"] > 0
    assert figures["reserved"] > 0
    assert figures["left"] == figures["doubled"] == 0


def test_program_that_hangs_or_prints_much_fails_the_job_alone(site: Site) -> None:
    """In the place of `simenv slurm env`."""
    plugstack = site.cluster.folder / "slurm" / "plugstack.conf"
    script = site.script("wait.sh", WAITING)

    def hangs(name: str) -> bool:
        return "sleep 86399" in site.cluster.run(name, ["ps", "-A", "-o", "args"]).stdout

    with restored(plugstack) as text:
        for program, reason in (
            ("sleep 600", "no answer within 1 s"),
            ("yes 0123456789 >&2", "no answer within 1 s"),
            ("yes NAME=value | head -c 10000000; echo broken >&2; exit 3", "broken"),
            ("exit 3", "ends with status 3"),
            ("exec >&- 2>&-; sleep 86399", "no answer within 1 s"),
            ("sleep 86399 & sleep 86399", "no answer within 1 s"),
            ("sleep 86399 >/dev/null 2>&1 & echo broken >&2; exit 3", "broken"),
            ("yes NAME=value | head -c 100000", "prints more than 65535 bytes"),
            ("env | grep ^PYTHON >&2; exit 3", "PYTHONSAFEPATH=1"),
        ):
            stand_in = site.script("program.sh", program)
            plugstack.write_text(re.sub("simenv=[^ ]*", f"simenv={stand_in} timeout=1", text))
            job = site.submit("user0", script, f"--qpu={POOL}")
            site.fails(job)
            assert reason in site.output(job)
            wait_for("no process of the program", lambda: not any(map(hangs, site.cluster.hosts)))
    assert not is_drained(site)


def test_shell_of_salloc_gets_variables(site: Site) -> None:
    line = (
        f'eval "$(simenv slurm env --qpu {POOL} --cluster {CLUSTER})" && echo $SIMENV_RESERVATION'
    )
    line = f"export SIMENV_SERVICE={ADDRESS}; {line}; echo $SLURM_JOB_ID"
    words = site.as_user("user0", "salloc", "--quiet", f"--qpu={POOL}", "sh", "-c", line).split()
    assert words[0].startswith(f"{POOL}:")
    site.is_released(int(words[1]))

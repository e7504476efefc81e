"""Stand-in for OpenPBS on this machine: qsub, qstat and qdel, as their manual pages describe them.

    pbs_stand_in.py qsub|qstat|qdel ARGUMENT...

A job is a session of processes here. Its state is a file in the folder that PBS_SERVER names.
Options that the manual pages do not have, and requests of more than one node, are refused. A job
gets the submitter's variables with `-V` alone. It ends at its walltime by SIGTERM, then SIGKILL.
Ended jobs are listed with `-x`, as on a server with job_history_enable.
"""

import getopt
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

QSUB = "A:a:C:c:e:fGhIJ:j:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
COOKIE = "of the job"
KILL_S = 10.0  # kill_delay of a queue
TERMINATED, FINISHED = 91, 92  # substates
SIGNAL = 256


def spool() -> Path:
    return Path(os.environ["PBS_SERVER"])


def fail(command: str, text: str, code: int = 1) -> int:
    sys.stderr.write(f"{command}: {text}\n")
    return code


def job_path(job: str) -> Path:
    return spool() / f"{job.split('.')[0]}.json"


def write(job: str, document: dict[str, object]) -> None:
    path = job_path(job)
    fresh = path.with_suffix(".new")  # who reads meanwhile finds a whole document
    fresh.write_text(json.dumps(document))
    fresh.rename(path)


def change(job: str, **changes: object) -> None:
    write(job, {**json.loads(job_path(job).read_text()), **changes})


def qsub(arguments: list[str]) -> int:
    try:
        options, operands = getopt.getopt(arguments, QSUB)
    except getopt.GetoptError as error:
        return fail("qsub", str(error), 2)
    if operands:
        return fail("qsub", "script files are not supported here")
    resources: dict[str, str] = {}
    named = dict(options)
    for option, value in options:
        if option == "-l":
            resources |= dict(part.split("=", 1) for part in value.split(","))
    chunk = resources.get("select", "1").split(":")
    requested = dict(part.split("=") for part in chunk[1:])
    if chunk[0] != "1" or "walltime" not in resources:
        return fail("qsub", "Illegal attribute or resource value")
    hours, minutes, seconds = map(int, resources["walltime"].split(":"))
    number = 1 + sum(1 for _ in spool().glob("*.json"))
    job = f"{number}.standin"
    script = spool() / f"{number}.SC"
    script.write_text(sys.stdin.read())
    nodefile = spool() / f"{number}.nodes"
    nodefile.write_text(socket.gethostname() + "\n")
    kept = os.environ if "-V" in named else {k: os.environ[k] for k in ("HOME", "PATH")}
    environ = {
        **kept, "PBS_JOBID": job, "PBS_NODEFILE": str(nodefile), "PBS_JOBCOOKIE": COOKIE,
        "PBS_ENVIRONMENT": "PBS_BATCH", "NCPUS": requested.get("ncpus", "1"),
    }  # fmt: skip
    attributes = {
        "Job_Name": named.get("-N", "STDIN"), "job_state": "Q", "substate": 10,
        "queue": named.get("-q", "workq"), "comment": "Not Running: Not enough free nodes",
        "Variable_List": environ,
    }  # fmt: skip
    write(job, attributes)
    limit_s = (hours * 60 + minutes) * 60 + seconds
    words = [
        sys.executable, "-S", "-E", __file__, "run", job, named["-S"], named["-o"], str(limit_s),
    ]  # fmt: skip
    subprocess.Popen(words, env=environ | {"PBS_SERVER": str(spool())}, start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)  # fmt: skip
    sys.stdout.write(f"{job}\n")
    return 0


def run(job: str, shell: str, log: str, limit_s: str) -> int:
    """Run a job until its end."""
    environ = {key: value for key, value in os.environ.items() if key != "PBS_SERVER"}
    with open(log, "ab") as output:
        script = str(job_path(job).with_suffix(".SC"))
        process = subprocess.Popen([shell, script], env=environ, stdout=output, stderr=output,
                                   stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    if json.loads(job_path(job).read_text())["job_state"] == "Q":
        change(job, job_state="R", substate=42, session_id=process.pid, comment="Job run")
    try:
        code = process.wait(float(limit_s))
    except subprocess.TimeoutExpired:
        end(process.pid)
        code = process.wait()
    substate = TERMINATED if json.loads(job_path(job).read_text()).get("deleted") else FINISHED
    status = SIGNAL - code if code < 0 else code
    change(job, job_state="F", substate=substate, Exit_status=status)
    return 0


def end(session: int) -> None:
    """Send SIGTERM to the processes of a job, and SIGKILL to those that are left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline_s = time.monotonic() + KILL_S
        sent = number
        while time.monotonic() < deadline_s:
            try:
                os.killpg(session, sent)
            except ProcessLookupError:
                return
            sent = 0
            time.sleep(0.05)


def qstat(arguments: list[str]) -> int:
    options, jobs = getopt.getopt(arguments, "xfF:")
    if options != [("-x", ""), ("-f", ""), ("-F", "json")]:
        return fail("qstat", "only -x -f -F json is supported here")
    known, code = {}, 0
    for job in jobs:
        if job_path(job).exists():
            known[job] = json.loads(job_path(job).read_text())
        else:
            code = fail("qstat", f"Unknown Job Id {job}", 153)
    head = {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": "standin"}
    json.dump({**head, "Jobs": known} if known else head, sys.stdout, indent=4)
    return code


def qdel(jobs: list[str]) -> int:
    code = 0
    for job in jobs:
        path = job_path(job)
        document = json.loads(path.read_text()) if path.exists() else {}
        if document.get("job_state", "F") == "F":
            text = f"Job has finished {job}" if document else f"Unknown Job Id {job}"
            code = fail("qdel", text, 35 if document else 153)
            continue
        change(job, deleted=True)
        if "session_id" in document:
            end(document["session_id"])
    return code


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "run":
        sys.exit(run(*words))
    sys.exit({"qsub": qsub, "qstat": qstat, "qdel": qdel}[command](words))

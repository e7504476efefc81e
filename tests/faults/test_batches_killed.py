"""kill -9 of who submits a batch of pulse sequences, before each of its messages.

Each batch that the service knows then has all its jobs, and no task runs for none.
"""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("pulser")

from atom_sequences import hexagon
from live import PATIENCE_S, environment

from simenv.client.client import Client
from simenv.client.job_tasks import SUBMISSION
from simenv.frontends.pulser import connection
from simenv.gateway.pasqal import batches, requests
from simenv.model import TaskState
from simenv.model.jobs import JobRecord, JobSelector

pytestmark = pytest.mark.usefixtures("no_leaks")

JOBS = 3  # of each call, in as many messages
# Each attempt is a child of a process that has loaded everything: it connects, and dies before its
# message of a number. Without a number left to die at, the call ends.
SUBMITTER = """
import os, signal, sys
import msgspec, pulser, simenv
from pathlib import Path
from simenv.client import job_tasks
from simenv.client.connection.channel import ServiceChannel
from simenv.frontends.pulser import SimenvConnection
from simenv.gateway.context import Caller
from simenv.gateway.pasqal import batches, requests
from simenv.gateway.pasqal.requests import PackedBatch

way, name, folder = sys.argv[1:4]
caller, none = Caller("", "", "admin", ""), batches.Repeat(None, b"")
packed = msgspec.msgpack.decode((Path(folder) / "batch").read_bytes(), type=PackedBatch)
sequence = pulser.Sequence.from_abstract_repr(packed.sequence)
job_tasks.chunks = lambda specs: ([spec] for spec in specs)
left = -1

def counted(send):
    def sent(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return send(*args, **kwargs)
    return sent

def call(client, connection, batch):
    if way == "pulser":
        connection.submit(sequence, job_params=[{"runs": 5}] * len(packed.jobs))
    elif way == "added":
        batches.add_jobs(client, batch, packed.jobs, caller, "", none)
    else:
        batches.add(client, packed, caller, "", none)

for place in range(1, 60):
    child = os.fork()
    if not child:
        client = simenv.connect(name)
        opened = msgspec.structs.replace(packed, is_open=True, jobs=[])
        batch = batches.add(client, opened, caller, "", none) if way == "added" else None
        connection = SimenvConnection(client)
        left = place
        ServiceChannel.send = counted(ServiceChannel.send)
        call(client, connection, batch)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status != signal.SIGKILL:
        print(place, flush=True)
        sys.exit(os.waitstatus_to_exitcode(status))
"""


def packed_batch() -> bytes:
    body = {"jobs": [{"runs": 5}] * JOBS, "sequence_builder": hexagon().to_abstract_repr()}
    return requests.batch(msgspec.json.encode(body), ["", msgspec.msgpack.encode({})])


def jobs_of(env: Client, kind: str) -> list[JobRecord]:
    return list(env.jobs.all(JobSelector((kind,))))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["pasqal", "added", "pulser"])
def test_batch_of_a_killed_submitter_has_all_jobs_or_none(way: str, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(packed_batch())
    with environment() as live, live.client() as env:
        argv = [sys.executable, "-c", SUBMITTER, way, live.name, str(tmp_path)]
        ran = subprocess.run(
            argv, capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ
        )
        assert ran.returncode == 0, ran.stderr
        deaths = int(ran.stdout) - 1
        assert deaths > JOBS
        if way == "pulser":
            connection.SimenvConnection(env)
        else:
            batches.complete_all(env)
        records = jobs_of(env, connection.KIND if way == "pulser" else batches.KIND)
        sizes = [len(record.tasks) for record in records]
        assert set(sizes) <= ({0, JOBS} if way == "added" else {JOBS})
        assert sizes.count(JOBS) > 1
        assert all(record.ended_s for record in records) or way == "added"
        known = {task for record in records for task, _ in record.tasks}
        infos = [*env.queue(limit=1_000)[1], *env.queue(done=True, limit=1_000)[1]]
        assert {info.id for info in infos if info.state is not TaskState.CANCELLED} == known
        # What died before its batch was stored ran nothing, and is removed later.
        assert all(not left.tasks for left in jobs_of(env, SUBMISSION))
        number = max(records, key=lambda record: record.created_s).id
        if way != "pulser":
            assert len(batches.job_lines(env, batches.find(env, number))) == JOBS

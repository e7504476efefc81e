"""Licences of a real Slurm: counts that stay, and what is held back of them."""

import json

from cluster_slurm import LOGIN

from testbed.cluster import Cluster

# Runs on the login node, with a stand-in for the environment: two pools that share two nodes.
PROGRAM = """
import json, sys, time
from pathlib import Path
from types import SimpleNamespace as Plain
from simenv.frontends.slurm import jobs, licenses

class Environment:
    most, state = 4, "up"
    session = Plain(request=lambda *_, **__: Plain(info=Plain(state="active")))

    def pools(self):
        same = {"on_demand": False, "engine": "any", "ranks": 1, "state": "up", "closed": ""}
        return {"a": Plain(most=self.most, **same), "b": Plain(most=2, **same)}

    def nodes(self):
        return {"n": Plain(slots=4, state="up"), "m": Plain(slots=2, state=self.state)}

    def reservations(self):
        return []

def look(**options):
    done = synchroniser.synchronise(environment, **options)
    totals = {name: each.total for name, each in licenses.controller_licenses().items()}
    held = licenses.held_licenses()
    seen.append([totals["a"], held.get("a", 0), totals["b"], held.get("b", 0), done.reconfigured])

seen, environment = [], Environment()
synchroniser = licenses.LicenseSynchroniser(Path(sys.argv[1]), "x")
look()
environment.state = "lost"
look()
number = jobs.run(["sbatch", "--parsable", "-L", "a:4", "-o", "/dev/null", "--wrap", "sleep 60"])
while not jobs.waiting_for_licenses():
    time.sleep(0.1)
look()
while not jobs.job(int(number)).holds:
    time.sleep(0.1)
environment.most = 1
look()
jobs.run(["scancel", number.strip()])
environment.most, environment.state = 5, "up"
while licenses.controller_licenses()["a"].used:
    time.sleep(0.1)
look()
licenses.RECONFIGURE_S = 0.0
look()
environment.most = 1
look()
look(lower=True)
print(json.dumps(seen))
"""


def test_counts_stay_and_what_is_missing_is_held_back(with_licences: Cluster) -> None:
    path = with_licences.folder / "slurm" / "licenses.conf"
    done = with_licences.run(LOGIN, ["python", "-c", PROGRAM, path], timeout_s=120.0)
    assert json.loads(done.stdout) == [
        [4, 0, 2, 0, True],
        [4, 2, 2, 0, False],  # the slots of a lost node, in even parts
        [4, 0, 2, 2, False],  # all for the job that waits
        [4, 0, 2, 2, False],  # nothing is taken from a job
        [4, 0, 2, 0, False],  # a count has to grow, soon after the first time
        [5, 1, 2, 0, True],
        [5, 4, 2, 0, False],
        [1, 0, 2, 0, True],
    ]
    assert "matlab:5" in path.read_text()

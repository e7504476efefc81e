"""Three nodes without a DVM: an mpirun for each gang, plain processes for the rest by the agent."""

from circuits import layered

from simenv.client.client import Client
from testbed.cluster import Cluster
from testbed.cluster_environment import Environment, environment, wait_for

HOSTS = "node1:2,node2:2,node3:2"
SMALL = ("--pool", "sv:engine=statevector,workers=3")
GANG = ("--pool", "big:engine=statevector,workers=1,ranks=4")


def idle(client: Client) -> dict[str, str]:
    """Workers that wait, and where."""
    return {worker.name: worker.node for worker in client.workers() if worker.state == "IDLE"}


def kill_one(up: Environment, client: Client, worker: str, rank: int) -> None:
    """A rank dies; its worker comes again, and nobody is left of the old one."""
    old = set(up.ranks(worker))
    sorted(old, key=lambda process: process.pid)[rank].kill()
    wait_for(f"{worker} is lost", lambda: not old & set(up.ranks(worker)))
    wait_for(f"{worker} is there again", lambda: worker in idle(client))


def test_gangs_of_mpirun_give_the_same_counts_and_restart(three: Cluster) -> None:
    with environment(three, "--launcher", "mpirun", "--hosts", HOSTS, *SMALL, *GANG) as up:
        assert "local+mpirun: " in up.simenv("status").stdout
        with up.client() as client:
            wait_for("all workers are there", lambda: len(idle(client)) == 4)
            result = client.run(layered(8, 3, 1), shots=200, seed=5, pool="sv")
            four = client.run(layered(8, 3, 1), shots=200, seed=5, pool="big")
            assert (result.ranks, four.ranks) == (1, 4)
            assert result.counts == four.counts
            kill_one(up, client, "big-0", 3)
            again = client.run(layered(8, 3, 1), shots=200, seed=5, pool="big")
            assert again.counts == result.counts


def test_plain_processes_run_on_all_nodes_and_restart(three: Cluster) -> None:
    entries = ("--launcher", "local", "--hosts", HOSTS, *SMALL)
    with environment(three, *entries) as up, up.client() as client:
        wait_for("all workers are there", lambda: len(idle(client)) == 3)
        assert sorted(idle(client).values()) == ["node1", "node2", "node3"]
        far = next(name for name, node in idle(client).items() if node == "node3")
        kill_one(up, client, far, 0)
        assert sum(client.run(layered(8, 3, 1), shots=200, seed=5).counts.values()) == 200

"""A standby takes over an environment whose journal is in PostgreSQL: nothing lost or doubled."""

import time
from collections.abc import Iterator

import pytest
from busy_circuits import busy
from postgres_journal import need_server
from qiskit import QuantumCircuit

from simenv.model import TaskState
from testbed.cluster import Cluster
from testbed.cluster_environment import wait_for
from testbed.failover import FailoverSite, failover_site

LEASE_S = 3.0
LAYERS = 100  # a second and more
RESULT_S = 120.0


@pytest.fixture
def site(three: Cluster) -> Iterator[FailoverSite]:
    need_server()
    with failover_site(three, LEASE_S) as site:
        yield site


def test_standby_takes_over_after_crash_and_partition(site: FailoverSite) -> None:
    circuit = QuantumCircuit(1)
    circuit.x(0)
    circuit.measure_all()
    with site.load() as load, site.client() as near:
        long = near.submit(busy(LAYERS), shots=100, seed=1)
        wait_for("it runs", lambda: long.state is TaskState.RUNNING)
        fault_s = time.monotonic()
        site.crash()
        assert long.result(RESULT_S).attempts > 1, "nothing was under way"
        load.await_service(fault_s)
        fault_s = time.monotonic()
        _, task = site.cut_off(lambda: near.submit(circuit, shots=9))
        assert task.result(RESULT_S).counts == {"1": 9}
        load.await_service(fault_s)
        report = load.end()
        assert near.status().done == report.accepted + 2
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)

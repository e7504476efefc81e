"""A standby takes over an environment whose journal is in PostgreSQL: nothing lost or doubled."""

from collections.abc import Iterator

import pytest
from postgres_journal import need_server
from qiskit import QuantumCircuit

from bench.testbed.cluster import Cluster
from bench.testbed.failover import FailoverSite, failover_site

LEASE_S = 3.0


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
        site.crash()
        assert near.submit(circuit, shots=7).result(60.0).counts == {"1": 7}
        _, task = site.cut_off(lambda: near.submit(circuit, shots=9))
        assert task.result(60.0).counts == {"1": 9}
        report = load.end()
        assert len(load.gaps) >= 2, "nothing was ever away"
        assert near.status().done == report.accepted + 2
    assert (report.lost, report.doubled, report.wrong) == (0, 2, 0)  # two are of the other client
    assert report.accepted > 0
    assert report.attempts > report.accepted, "nothing was under way"

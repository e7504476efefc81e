"""Isolated accounts on several nodes: workers that reach the service over TCP alone."""

from collections.abc import Iterator

import pytest
from confined import skip_without_confinement

from testbed.cluster import Cluster
from testbed.cluster_environment import Environment, environment

CONFIG = """
isolation = "account"
hosts = "node1:1,node2:1"
[[pools]]
name = "main"
workers = 2
[[pools]]
name = "tools"
engine = "functions"
workers = 1
nodes = ["node2"]
"""
ENDS_S = 180.0


@pytest.fixture(scope="module", autouse=True)
def confined() -> None:
    skip_without_confinement()


@pytest.fixture(scope="module")
def up(three: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    file = tmp_path_factory.mktemp("isolated") / "simenv.toml"
    file.write_text(CONFIG)
    with environment(three, "--config", str(file)) as result:
        yield result


def test_workers_of_both_nodes_run_confined_with_large_results(up: Environment) -> None:
    """A result goes through the worker's folder, which both nodes see."""
    with up.client() as env:
        circuit = "OPENQASM 2.0; qreg q[17]; " + " ".join(
            f"U(0.3,0.1,0) q[{k}];" for k in range(17)
        )
        tasks = [
            env.submit(circuit, shots=None, outputs="statevector", pool="main") for _ in range(20)
        ]
        for task in tasks:
            assert abs(sum(abs(task.result(ENDS_S).statevector) ** 2) - 1) < 1e-9
        workers = env.workers()
        assert {worker.node for worker in workers if worker.pool == "main"} == {"node1", "node2"}
    logs = [path.read_text() for path in (up.home / "logs").glob("*.log")]
    assert not [text for text in logs if "not confined" in text]


def test_function_on_another_node_connects_to_nothing(up: Environment) -> None:
    """Its worker may connect to the port of the service again; the process of the function not."""

    def reached(address: str, port: int, home: str) -> list[str]:
        import os
        import socket

        outcomes = [os.uname().nodename]
        for number in (port, 22, 9):
            try:
                socket.create_connection((address, number), 2).close()
                outcomes.append("connected")
            except OSError as error:
                outcomes.append(type(error).__name__)
        try:
            os.listdir(home)
        except OSError as error:
            outcomes.append(type(error).__name__)
        return outcomes

    reached.__module__ = "__main__"
    with up.client() as env:
        events = [event.message for event in env.events(kinds=["service.meets"])]
        host, _, port = events[-1].removeprefix("tcp://").rpartition(":")
        outcomes = env.call(reached, host, int(port), str(up.home)).result(ENDS_S)
    assert outcomes == ["node2", *["PermissionError"] * 4]

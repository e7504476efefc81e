"""The agent of a node that came by a job."""

from pathlib import Path

import pytest

from launcher.base import Allocation, Node
from simenv.node_agent import NodeAgent
from simenv.wire import keyfiles
from simenv.wire.messages import nodes
from simenv.wire.messages.client import LeaseRenewed


@pytest.mark.parametrize(
    ("interval_s", "longest_s", "expected_s"),
    [(0.0, 9.0, 2.0), (4.0, 9.0, 4.0), (60.0, 60.0, 5.0), (0.0, 1.2, 1.2), (0.0, 0.1, 1.0)],
)
def test_heartbeats_come_as_often_as_the_service_says(
    tmp_path: Path, interval_s: float, longest_s: float, expected_s: float
) -> None:
    server, own = keyfiles.new_pair(), keyfiles.new_pair()
    token = nodes.JoinToken(
        "big:1", "tcp://127.0.0.1:9", server.public, own.public, own.secret, 1, 600.0
    )
    agent = NodeAgent(token, Allocation((Node("here", 2, 2**30),), "a job", 0.0), tmp_path)
    agent._lease_s = 15.0
    agent._obey(LeaseRenewed(1, interval_s, longest_s))
    assert agent._interval_s == expected_s
    agent._connection.close()
    agent._launcher.close()

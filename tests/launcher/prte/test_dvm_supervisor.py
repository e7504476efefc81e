"""A lost node is looked for when somebody says so, not only when its turn comes."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.base import Node
from launcher.prte.dvm import DvmSettings
from launcher.prte.dvm_supervisor import DvmSupervisor
from launcher.prte.installation import Prte

NOW = 1_000.0  # it stands still: what is planned for later never comes


def test_recheck_finds_a_returned_node_at_once(tmp_path: Path) -> None:
    agent, value = tmp_path / "agent", tmp_path / "there"
    agent.write_text(f"#!/bin/sh\ntest -e {value}\n")
    agent.chmod(0o700)
    site = DvmSettings(
        Prte(Path("/prte"), Path("/pmix"), (), None, "3"), dict(os.environ), str(agent)
    )
    block = DvmSupervisor(site, [Node("n1", 1, 2**30)], tmp_path, 1)
    assert not block.recheck_node("n1"), "it is not lost"
    block.lost_nodes["n1"] = "no answer"
    for _ in range(2):
        block.step(NOW)
        while block._probe is not None:
            os.sched_yield()
            block.step(NOW)
    assert "n1" in block.lost_nodes
    value.touch()
    assert block.recheck_node("n1")
    block.step(NOW)
    while block._probe is not None:
        os.sched_yield()
        block.step(NOW)
    assert [news.kind for news in block.events] == ["node.back"]
    block.close()

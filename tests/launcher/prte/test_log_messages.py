"""What PRTE said at its end: pages, of which one word matters. Texts of PRRTE 3.0.14."""

from __future__ import annotations

from launcher.prte.log_messages import failure_summary, is_ready

LOST = """DVM ready
--------------------------------------------------------------------------
prte has lost communication with a remote daemon.

  HNP daemon   : [prte-node1-14040@0,0] on node node1
  Remote daemon: [prte-node1-14040@0,1] on node node2

This is usually due to either a failure of the TCP network
connection to the node, or possibly an internal failure of
the daemon itself. We cannot recover from this failure, and
therefore will terminate the job.
--------------------------------------------------------------------------
"""
ENDED = """--------------------------------------------------------------------------
An PRTE daemon has unexpectedly failed after launch and before
communicating back to prte.

  Local host:         node1
  Remote host:        node3
  Daemon exit status: 137

This may also be caused by a firewall on the remote host.
--------------------------------------------------------------------------
"""


def test_failure_summary_names_the_lost_node() -> None:
    assert failure_summary(LOST) == "its daemon on node2 is lost"
    assert failure_summary(ENDED) == "its daemon on node3 ended (exit 137)"


def test_unrecognised_message_is_shortened() -> None:
    assert failure_summary("a warning\nDVM ready\nTerminated\n") == ""
    assert failure_summary("----\n  no memory\n") == "no memory"
    long = failure_summary("word " * 1000)
    assert long.startswith("... word")
    assert len(long) < 200


def test_dvm_is_ready_after_its_ready_line() -> None:
    assert is_ready(LOST)
    assert not is_ready(ENDED)

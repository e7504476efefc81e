"""Supervisor of a block's DVM: it keeps a DVM up on the reachable nodes of the block.

A lost DVM is started again on the reachable nodes, after growing delays and at most five times in a
row. Unreachable nodes are probed at intervals, and added again. No method blocks.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.allocation.this_node import is_this_node
from launcher.base import LauncherEvent, LaunchError, Node
from launcher.pmix.helper_process import HelperResponse
from launcher.process.agent import remote_command
from launcher.prte.dvm import Dvm, DvmSettings, DvmState
from simenv.sandbox.process_tree import register

# Probe of the reachability of nodes: `true` is run through the agent on all at once, without
# blocking.

TIMEOUT_S = 3.0
_MAX_CHARS = 160  # of an agent's output


class NodeProbe:
    """One probe of some nodes. It is complete when `poll` returns True."""

    def __init__(
        self, nodes: Sequence[str], environ: Mapping[str, str], agent: str, now: float
    ) -> None:
        self._deadline = now + TIMEOUT_S
        self._pending: dict[str, subprocess.Popen[bytes]] = {}
        self.unreachable: dict[str, str] = {}  # node: reason
        self.reachable: list[str] = []
        for node in nodes:
            self._start(node, environ, agent)

    def poll(self, now: float) -> bool:
        """Return whether the state of every node is known."""
        for node, process in list(self._pending.items()):
            code = process.poll()
            if code is None and now < self._deadline:
                continue
            del self._pending[node]
            if code == 0:
                self.reachable.append(node)
            else:
                self.unreachable[node] = _failure(process, code)
            _kill(process)
        return not self._pending

    def close(self) -> None:
        for process in self._pending.values():
            _kill(process)
        self._pending.clear()

    def _start(self, node: str, environ: Mapping[str, str], agent: str) -> None:
        argv = remote_command(node, ["true"], environ, agent)
        try:
            self._pending[node] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=dict(environ),
                start_new_session=True,
            )
        except OSError as error:
            self.unreachable[node] = f"cannot start {argv[0]}: {error.strerror}"
        else:
            register(self._pending[node])


def _failure(process: subprocess.Popen[bytes], code: int | None) -> str:
    if code is None:
        return f"no answer in {TIMEOUT_S:g} s"
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)  # a child of the agent may hold it open
    output = process.stderr.read() or b""
    message = " ".join(output.decode("utf-8", "replace").split())[:_MAX_CHARS]
    return message or f"exit {code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    if process.stderr is not None:
        process.stderr.close()


DELAYS_S = (0.0, 0.5, 2.0, 4.0, 8.0)  # before each attempt
STEADY_S = 30.0  # a DVM that was up for longer does not count as a failed attempt
RETRY_AFTER_S = 60.0  # a request this long after giving up tries again
NODE_PROBE_INTERVAL_S = 15.0


@dataclass(frozen=True, slots=True)
class StepResult:
    """Results of one step."""

    responses: tuple[HelperResponse, ...] = ()
    lost: str = ""  # reason why the DVM and its jobs are lost
    failure: str = ""  # reason why nothing can be started now


class DvmSupervisor:
    """Supervisor of one block. Used from the main thread alone."""

    def __init__(
        self, settings: DvmSettings, nodes: Sequence[Node], folder: Path, number: int
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.lost_nodes: dict[str, str] = {}  # name: reason
        self.events: list[LauncherEvent] = []
        self.dvm: Dvm | None = None
        self._settings = settings
        self._folder = folder
        self._name = f"DVM {number}"
        self._requested = False
        self._dvm_count = 0
        self._attempts = 0
        self._next_attempt = 0.0
        self._up_since = 0.0
        self._given_up = 0.0  # time of giving up; 0: not given up
        self._last_failure = ""
        self._probe: NodeProbe | None = None
        self._next_probe = 0.0
        self._own_requests = 0
        self._joining: dict[int, Node] = {}  # by key of the request that adds the node
        self._tested: set[str] = set()  # nodes that this DVM did not add at the first request

    @property
    def up(self) -> bool:
        return self.dvm is not None and self.dvm.state is DvmState.UP

    def serves(self, node: str) -> bool:
        """Return whether the node is part of the DVM that is up."""
        joining = any(node == other.name for other in self._joining.values())
        return self.up and node not in self.lost_nodes and not joining

    def request(self, now: float) -> None:
        """Request the DVM: it is started by the next steps."""
        if self._given_up and now > self._given_up + RETRY_AFTER_S:
            self._given_up, self._attempts = 0.0, 0
        self._requested = True

    def step(self, now: float) -> StepResult:
        """Poll the DVM and the probe; start processes that are due."""
        responses: list[HelperResponse] = []
        if self.dvm is not None:
            previous = self.dvm.state
            responses = self._handle_own(self.dvm.step(now))
            self.events += [
                LauncherEvent("launcher.helper", self._name, f"{reason}: restarted")
                for reason in self.dvm.helper_restarts
            ]
            self.dvm.helper_restarts.clear()
            if self.dvm.state is DvmState.LOST:
                return StepResult(tuple(responses), lost=self._handle_lost_dvm(now))
            if self.dvm.state is not previous:
                self._up_since = now
                self._report_started(now)
        self._check_nodes(now)
        failure = self._start_dvm(now) if self.dvm is None and self._requested else ""
        return StepResult(tuple(responses), failure=failure)

    def recheck_node(self, node: str) -> bool:
        """Probe a lost node with the next step; return False if it is not lost."""
        if node in self.lost_nodes:
            self._next_probe = 0.0
        return node in self.lost_nodes

    def close(self) -> None:
        """Request the end of the DVM; `has_ended` returns True after it, `remove` kills the DVM."""
        self._requested = False
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        if self.dvm is not None:
            self.dvm.close()

    def has_ended(self) -> bool:
        return self.dvm is None or self.dvm.has_ended()

    def remove(self) -> None:
        if self.dvm is not None:
            self.dvm.remove()
            self.dvm = None

    def _start_dvm(self, now: float) -> str:
        """Start a DVM on the reachable nodes, when it is due; return why there can be none, or
        ""."""
        if self._given_up:
            return self._giving_up()
        if self._probe is not None or now < self._next_attempt:
            return ""
        nodes = [node for name, node in self.nodes.items() if name not in self.lost_nodes]
        if not nodes:
            return f"no node answers: {'; '.join(f'{n}: {w}' for n, w in self.lost_nodes.items())}"
        if self._attempts >= len(DELAYS_S):
            self._given_up = now
            return self._giving_up()
        self._attempts += 1
        self._dvm_count += 1
        folder = self._folder / f"{self._name.replace(' ', '').lower()}.{self._dvm_count}"
        try:
            self.dvm = Dvm(self._settings, nodes, folder, now)
        except (LaunchError, OSError) as error:
            self._last_failure = str(error)
            self._schedule_attempt(now)
        return ""

    def _giving_up(self) -> str:
        retry = f"the launcher tries again {RETRY_AFTER_S:g} s later"
        return f"given up after {len(DELAYS_S)} tries: {self._last_failure}; {retry}"

    def _schedule_attempt(self, now: float) -> None:
        self._next_attempt = now + DELAYS_S[min(self._attempts, len(DELAYS_S) - 1)]

    def _report_started(self, now: float) -> None:
        assert self.dvm is not None
        nodes = self.dvm.nodes
        names = ",".join(node.name for node in nodes)
        count = f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
        figures = f"{count}, {self.dvm.slots} slots, {self.dvm.age_s(now):.2f} s"
        self.events.append(LauncherEvent("dvm.started", self._name, f"on {names} ({figures})"))

    def _handle_lost_dvm(self, now: float) -> str:
        assert self.dvm is not None
        if self.dvm.was_up and now > self._up_since + STEADY_S:
            self._attempts = 0
        self._last_failure = self.dvm.lost_reason
        self.events.append(LauncherEvent("dvm.lost", self._name, self._last_failure))
        self._joining.clear()
        self._tested.clear()
        self.dvm.remove()
        self.dvm = None
        self._schedule_attempt(now)
        self._start_probe([name for name in self.nodes if name not in self.lost_nodes], now)
        return self._last_failure

    def _start_probe(self, names: Sequence[str], now: float) -> None:
        if self._probe is not None:
            self._probe.close()
        remote = [name for name in names if not is_this_node(name)]
        settings = self._settings
        self._probe = NodeProbe(remote, settings.environ, settings.agent, now) if remote else None

    def _check_nodes(self, now: float) -> None:
        if self._probe is not None:
            if self._probe.poll(now):
                probe, self._probe = self._probe, None
                self._evaluate(probe, now)
        elif now >= self._next_probe:
            untested = [name for name in self.lost_nodes if name not in self._tested]
            if untested:
                self._start_probe(untested, now)

    def _evaluate(self, probe: NodeProbe, now: float) -> None:
        self._next_probe = now + NODE_PROBE_INTERVAL_S
        for name, reason in probe.unreachable.items():
            if name not in self.lost_nodes:
                self.lost_nodes[name] = reason
                self.events.append(LauncherEvent("node.lost", name, reason))
        back = [name for name in probe.reachable if name in self.lost_nodes]
        for name in back:
            if self.up:
                self._add_node(self.nodes[name])
            elif self.dvm is None:
                self._restore_node(name)

    def _restore_node(self, name: str) -> None:
        del self.lost_nodes[name]
        self.events.append(LauncherEvent("node.back", name, "it answers again"))

    def _add_node(self, node: Node) -> None:
        assert self.dvm is not None
        if any(node.name == other.name for other in self.dvm.nodes):
            self._restore_node(node.name)
            return
        self.dvm.add_node(self._own_key(node), node)

    def _own_key(self, node: Node) -> int:
        """Return the key of a request that adds a node; a job's key is positive."""
        self._own_requests += 1
        self._joining[-self._own_requests] = node
        return -self._own_requests

    def _handle_own(self, responses: Sequence[HelperResponse]) -> list[HelperResponse]:
        """Handle the responses to requests of this supervisor; return the others."""
        others = []
        for response in responses:
            node = self._joining.pop(response.key, None) if response.key < 0 else None
            if node is None:
                others.append(response)
            elif response.kind == "spawned":
                self._restore_node(node.name)
            elif self.dvm is not None and node.name not in self._tested:
                self._test_node(node)
            elif self.dvm is not None:
                self.dvm.remove_node(node)
        return others

    def _test_node(self, node: Node) -> None:
        """Run a job on the node, to find out whether it was added. If all slots of the other nodes
        are taken, PRTE places the job that adds a node on that node itself, and reports a failure
        although the node was added. A DVM ends if it is requested twice to add a node."""
        assert self.dvm is not None
        self._tested.add(node.name)
        key = self._own_key(node)
        self.dvm.spawn(key, ["/bin/sh", "-c", "sleep 0.5"], [], (node.name,))

"""The nodes that share a DVM, and the one thing to do about them: keep a DVM up.

A DVM that is lost is built anew on the nodes that answer, at most every few seconds and five times
in a row; nodes that do not answer are looked for now and then, and taken in again. Nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.allocation.this_node import is_here
from launcher.base import LaunchError, News, Node
from launcher.pmix.protocol import Answer
from launcher.prte.dvm import Dvm, Site, State
from launcher.prte.node_probe import Probes

DELAYS_S = (0.0, 0.5, 2.0, 4.0, 8.0)  # before each try
STEADY_S = 30.0  # a DVM that was up for so long was no failure
FORGIVE_S = 60.0  # after so long one that was given up may be tried again
LOOK_FOR_NODES_S = 15.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What one step brought."""

    answers: tuple[Answer, ...] = ()
    lost: str = ""  # why the DVM is gone, and all that ran in it
    hopeless: str = ""  # why nothing can be started for now


class Block:
    """Used from the main thread."""

    def __init__(self, site: Site, nodes: Sequence[Node], folder: Path, number: int) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.lost_nodes: dict[str, str] = {}  # and why
        self.news: list[News] = []
        self.dvm: Dvm | None = None
        self._site = site
        self._folder = folder
        self._name = f"DVM {number}"
        self._wanted = False
        self._count = 0  # of DVMs
        self._tries = 0
        self._next_try = 0.0
        self._up_since = 0.0
        self._given_up = 0.0  # when; 0: not
        self._why = ""
        self._probes: Probes | None = None
        self._next_look = 0.0
        self._orders = 0
        self._joining: dict[int, Node] = {}  # by the key of the order that takes it in
        self._tried: set[str] = set()  # nodes that this DVM did not take in at the first word

    @property
    def up(self) -> bool:
        return self.dvm is not None and self.dvm.state is State.UP

    def serves(self, node: str) -> bool:
        """Is the node part of the DVM that is up?"""
        joining = any(node == one.name for one in self._joining.values())
        return self.up and node not in self.lost_nodes and not joining

    def want(self, now: float) -> None:
        """Somebody needs the DVM."""
        if self._given_up and now > self._given_up + FORGIVE_S:
            self._given_up, self._tries = 0.0, 0
        self._wanted = True

    def step(self, now: float) -> Turn:
        answers: list[Answer] = []
        if self.dvm is not None:
            was = self.dvm.state
            answers = self._without_ours(self.dvm.step(now), now)
            self.news += [
                News("launcher.helper", self._name, f"{why}: started anew")
                for why in self.dvm.helper_news
            ]
            self.dvm.helper_news.clear()
            if self.dvm.state is State.LOST:
                return Turn(tuple(answers), lost=self._lost(now))
            if self.dvm.state is not was:
                self._up_since = now
                self._told_up(now)
        self._look_for_nodes(now)
        hopeless = self._build(now) if self.dvm is None and self._wanted else ""
        return Turn(tuple(answers), hopeless=hopeless)

    def look(self, node: str) -> bool:
        """Look for a lost node with the next step; False if it is not lost."""
        if node in self.lost_nodes:
            self._next_look = 0.0
        return node in self.lost_nodes

    def close(self) -> None:
        """Ask everything to end; `gone` tells when, `remove` sees to it."""
        self._wanted = False
        if self._probes is not None:
            self._probes.close()
            self._probes = None
        if self.dvm is not None:
            self.dvm.close()

    def gone(self) -> bool:
        return self.dvm is None or self.dvm.gone()

    def remove(self) -> None:
        if self.dvm is not None:
            self.dvm.remove()
            self.dvm = None

    # --- the DVM ---------------------------------------------------------------------------------

    def _build(self, now: float) -> str:
        """A DVM on the nodes that answer, when it is time; why there can be none, or ""."""
        if self._given_up:
            return f"given up after {len(DELAYS_S)} tries: {self._why}"
        if self._probes is not None or now < self._next_try:
            return ""
        nodes = [node for name, node in self.nodes.items() if name not in self.lost_nodes]
        if not nodes:
            return f"no node answers: {'; '.join(f'{n}: {w}' for n, w in self.lost_nodes.items())}"
        if self._tries >= len(DELAYS_S):
            self._given_up = now
            return f"given up after {len(DELAYS_S)} tries: {self._why}"
        self._tries += 1
        self._count += 1
        folder = self._folder / f"{self._name.replace(' ', '').lower()}.{self._count}"
        try:
            self.dvm = Dvm(self._site, nodes, folder, now)
        except (LaunchError, OSError) as error:
            self._why = str(error)
            self._plan(now)
        return ""

    def _plan(self, now: float) -> None:
        self._next_try = now + DELAYS_S[min(self._tries, len(DELAYS_S) - 1)]

    def _told_up(self, now: float) -> None:
        assert self.dvm is not None
        nodes = self.dvm.nodes
        names = ",".join(node.name for node in nodes)
        count = f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
        figures = f"{count}, {self.dvm.slots} slots, {self.dvm.age_s(now):.2f} s"
        self.news.append(News("dvm.started", self._name, f"on {names} ({figures})"))

    def _lost(self, now: float) -> str:
        assert self.dvm is not None
        if self.dvm.was_up and now > self._up_since + STEADY_S:
            self._tries = 0
        self._why = self.dvm.why
        self.news.append(News("dvm.lost", self._name, self._why))
        self._joining.clear()
        self._tried.clear()
        self.dvm.remove()
        self.dvm = None
        self._plan(now)
        self._probe([name for name in self.nodes if name not in self.lost_nodes], now)
        return self._why

    # --- the nodes -------------------------------------------------------------------------------

    def _probe(self, names: Sequence[str], now: float) -> None:
        if self._probes is not None:
            self._probes.close()
        others = [name for name in names if not is_here(name)]
        self._probes = Probes(others, self._site.environ, self._site.agent, now) if others else None

    def _look_for_nodes(self, now: float) -> None:
        if self._probes is not None:
            if self._probes.looked(now):
                probes, self._probes = self._probes, None
                self._judge(probes, now)
        elif now >= self._next_look:
            sought = [name for name in self.lost_nodes if name not in self._tried]
            if sought:
                self._probe(sought, now)

    def _judge(self, probes: Probes, now: float) -> None:
        self._next_look = now + LOOK_FOR_NODES_S
        for name, why in probes.silent.items():
            if name not in self.lost_nodes:
                self._lose_node(name, why)
        back = [name for name in probes.answered if name in self.lost_nodes]
        for name in back:
            if self.up:
                self._take_in(self.nodes[name], now)
            elif self.dvm is None:
                self._back(name)

    def _lose_node(self, name: str, why: str) -> None:
        self.lost_nodes[name] = why
        self.news.append(News("node.lost", name, why))

    def _back(self, name: str) -> None:
        del self.lost_nodes[name]
        self.news.append(News("node.back", name, "it answers again"))

    def _take_in(self, node: Node, now: float) -> None:
        assert self.dvm is not None
        if any(node.name == one.name for one in self.dvm.nodes):
            self._back(node.name)
            return
        self._orders += 1
        key = -self._orders  # a job's key is positive
        self._joining[key] = node
        self.dvm.grow(key, node, now)

    def _without_ours(self, answers: Sequence[Answer], now: float) -> list[Answer]:
        """Answers to what this block itself asked for are dealt with here."""
        others = []
        for answer in answers:
            node = self._joining.pop(answer.key, None) if answer.key < 0 else None
            if node is None:
                others.append(answer)
            elif answer.tells == "spawned":
                self._back(node.name)
            elif self.dvm is not None and node.name not in self._tried:
                self._try(node, now)
            elif self.dvm is not None:
                self.dvm.without(node)
        return others

    def _try(self, node: Node, now: float) -> None:
        """Run something there. Where all slots of the other nodes are taken, PRTE puts the job that
        takes a node in on that node itself and says that it failed, though the node is in; a DVM
        that is told twice to take in a node ends."""
        assert self.dvm is not None
        self._tried.add(node.name)
        self._orders += 1
        self._joining[-self._orders] = node
        self.dvm.spawn(-self._orders, ["/bin/sh", "-c", "sleep 0.5"], [], (node.name,), now)

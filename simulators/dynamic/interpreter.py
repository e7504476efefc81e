"""Interpreter of dynamic circuits, for all engines: control flow over parts of a run.

A part is what has come to the same position of a program: states with their classical records, in a
form of the engine, which applies gates and noise, measures and divides parts (`Branching`). Parts
are taken all together (`run`), or one by one (`advance`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from simulators.dynamic.instructions import (
    Branch,
    ControlFlow,
    JoinPoint,
    Jump,
    LoopBack,
    LoopExit,
    LoopPass,
)

P = TypeVar("P")


class Branching(Protocol[P]):
    """Operations of an engine on parts, none of which is empty. Every method may raise an
    EngineError."""

    def execute(self, at: int, item: Any, part: P) -> Sequence[P]:
        """Execute the instruction at a position that is no control flow, or begin a pass of a loop;
        returns the parts that go on at the next position."""

    def choose(self, at: int, item: Branch, part: P) -> Sequence[tuple[int, P]]:
        """Divide a part by the value of an expression; returns parts with their positions."""


class Interpreter:
    """Execution of a program. All parts in a loop are in the same pass. It does not hold the
    `Branching`, which may hold it: a cycle would keep states until garbage is collected."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self._passes: dict[int, int] = {}  # by position of each open loop, outermost first

    @property
    def passes(self) -> list[int]:
        """Number of finished passes of each open loop, outermost first."""
        return list(self._passes.values())

    def run(self, branching: Branching[P], part: P, joined: Callable[[Sequence[P]], P]) -> P | None:
        """Run all parts together: that which is furthest behind goes on, until it meets others.
        Returns what comes to the end; None if nothing does. `joined`: joins parts that meet."""
        items, end = self._items, len(self._items)
        self._passes.clear()
        waiting = {0: [part]}
        while waiting:
            at = min(waiting)
            parts = waiting.pop(at)
            if at == end:
                return parts[0]
            meet = len(parts) > 1 or isinstance(items[at], JoinPoint)
            for target, each in self.advance(branching, at, joined(parts) if meet else parts[0]):
                there = waiting.setdefault(target, [])
                there.append(each)
                if target < end and isinstance(items[target], LoopExit):
                    # Each pass may send parts there: joined at once, they hold few states.
                    there[:] = [joined(there)]
        return None

    def advance(self, branching: Branching[P], at: int, part: P) -> Sequence[tuple[int, P]]:
        """Execute the control flow at a position, or all instructions up to the next one or to a
        division; returns the parts that go on, with their positions."""
        items, end, execute = self._items, len(self._items), branching.execute
        item = items[at]
        if isinstance(item, ControlFlow):
            return self._control(branching, at, item, part)
        while True:
            parts = execute(at, item, part)
            at += 1
            if len(parts) != 1 or at == end or isinstance(item := items[at], ControlFlow):
                return [(at, each) for each in parts]
            part = parts[0]

    def _control(
        self, branching: Branching[P], at: int, item: ControlFlow, part: P
    ) -> Sequence[tuple[int, P]]:
        if isinstance(item, Branch):
            return branching.choose(at, item, part)
        if isinstance(item, Jump):
            return [(item.target, part)]
        if isinstance(item, LoopPass):
            return self._pass(branching, at, 0, part)
        if isinstance(item, LoopBack):
            return self._pass(branching, item.begin, 1 + self._passes[item.begin], part)
        if isinstance(item, LoopExit):
            del self._passes[item.begin]
        return [(at + 1, part)]

    def _pass(
        self, branching: Branching[P], at: int, number: int, part: P
    ) -> Sequence[tuple[int, P]]:
        """Begin a pass of the loop at a position, or leave it. `number`: of the finished passes."""
        item = self._items[at]
        self._passes[at] = number
        if number == item.count:
            return [(item.end, part)]
        return [(at + 1, each) for each in branching.execute(at, item, part)]

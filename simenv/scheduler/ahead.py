"""How much work is ahead of a task in its queue, about: by the ends of lanes and their sums.

Whoever needs it exactly goes through the queue; this takes as long for a million tasks as for one.
"""

from __future__ import annotations

from collections.abc import Mapping

from simenv.scheduler.lanes import SMALL_US, Lanes, Work
from simenv.scheduler.orders import LaneKey, Order, aged
from simenv.scheduler.values import Record

_ALL = 1.0


def of_new(order: Order, all_lanes: Mapping[LaneKey, Lanes], now_ns: int) -> Work:
    """Of a task of priority 0, and of nobody who has others here, that comes now."""
    if order.policy == "round_robin":
        return _sum([_turns(lanes, 1) for lanes in all_lanes.values()])
    if order.policy != "priority" or len(all_lanes) == 1:
        return _sum([lanes.part(_ALL) for lanes in all_lanes.values()])
    owners = {key[0] for key in all_lanes}
    if len(owners) > 1:  # each of them has one turn before
        return _sum([_at_most(lanes, SMALL_US) for lanes in all_lanes.values()])
    return _sum([_older(lanes, now_ns) for lanes in all_lanes.values()])


def of_one(order: Order, all_lanes: Mapping[LaneKey, Lanes], record: Record) -> Work:
    """Of one that waits."""
    mine = all_lanes[order.lane(record)]
    if order.policy == "round_robin":
        turn = 1 + round(_share(mine, record) * mine.size())
        others = [_turns(lanes, turn) for lanes in all_lanes.values() if lanes is not mine]
        return _sum([within(mine, record), *others])
    if order.policy != "priority":
        before = record.batch.accepted_ns
        others = [_older(lanes, before) for lanes in all_lanes.values() if lanes is not mine]
        return _sum([within(mine, record), *others])
    owner = record.batch.owner
    older = [
        _older(lanes, aged(record)[0])
        for key, lanes in all_lanes.items()
        if key[0] == owner and lanes is not mine
    ]
    own = _sum([within(mine, record), *older])
    # While that is done, each other owner has as much.
    equal_us = own.small_us + own.large_us + SMALL_US
    others = [_at_most(lanes, equal_us) for key, lanes in all_lanes.items() if key[0] != owner]
    return _sum([own, *others])


def within(lanes: Lanes, record: Record) -> Work:
    """What is ahead of it in its own lanes."""
    return lanes.part(_share(lanes, record))


def _share(lanes: Lanes, record: Record) -> float:
    """The part of a lane that came before it: ids grow evenly enough."""
    ends = lanes.ends()
    if ends is None:
        return _ALL  # sorted: it may be the last
    first, last = ends[0].number, ends[1].number
    return min(1.0, max(0.0, (record.number - first) / max(1, last - first + 1)))


def _older(lanes: Lanes, key_ns: int) -> Work:
    """What of it goes before a task of that age."""
    ends = lanes.ends()
    if ends is None:
        return lanes.part(_ALL)
    first, last = aged(ends[0])[0], aged(ends[1])[0]
    if key_ns >= last:
        return lanes.part(_ALL)
    return lanes.part(max(0.0, (key_ns - first) / max(1, last - first)))


def _at_most(lanes: Lanes, work_us: float) -> Work:
    """So much of its work, or all."""
    total_us = lanes.small_us + lanes.large_us
    return lanes.part(min(_ALL, work_us / total_us) if total_us > 0 else _ALL)


def _turns(lanes: Lanes, count: int) -> Work:
    """So many tasks of it."""
    return lanes.part(min(_ALL, count / max(1, lanes.size())))


def _sum(parts: list[Work]) -> Work:
    return Work(sum(part.small_us for part in parts), sum(part.large_us for part in parts))

"""Passage of the calendar: maintenance begins and ends, planned reservations come nearer."""

from __future__ import annotations

from simenv.scheduler.admission import reservation_limits
from simenv.scheduler.core import END_MARGIN_NS, START_NS, Action
from simenv.scheduler.dispatch import planned_reservations
from simenv.scheduler.events import workers
from simenv.scheduler.state import scheduler_state


def advance_calendar(
    state: scheduler_state.SchedulerState, wall_ns: int, now_ns: int
) -> list[Action]:
    """Drain nodes whose maintenance begins, and use those again whose maintenance has ended."""
    calendar = state.calendar
    if not (calendar.entries or calendar.under_way or calendar.windows or calendar.planned):
        return []
    now_s, actions = wall_ns / 1e9, list[Action]()
    for number, (end_s, nodes) in list(calendar.under_way.items()):
        if now_s >= end_s or number not in calendar.entries:
            del calendar.under_way[number]
            busy = {name for _, names in calendar.under_way.values() for name in names}
            for name in nodes:
                host = state.cluster.nodes.hosts.get(name)
                if host is not None and host.drained_until_ns and name not in busy:
                    actions += workers.use_node(state, host)
    for number, entry in list(calendar.entries.items()):
        if entry.ask is not None:
            continue
        found = entry.occurrence(now_s)
        if found is None:
            calendar.remove(number)
        elif found[0] <= now_s and number not in calendar.under_way:
            actions += _begin_maintenance(state, number, found[1], wall_ns, now_ns)
    _set_closing(state, wall_ns, now_ns)
    calendar.set_planned(reservation_limits.planned_rooms(state), wall_ns, now_ns)
    planned_reservations.readmit(state, now_ns)
    return actions


def _begin_maintenance(
    state: scheduler_state.SchedulerState, number: int, end_s: float, wall_ns: int, now_ns: int
) -> list[Action]:
    entry, actions, drained = state.calendar.entries[number], list[Action](), list[str]()
    for name, host in state.cluster.nodes.hosts.items():
        if entry.node not in ("", name) or (host.drained and not host.drained_until_ns):
            continue  # an administrator has drained it: it stays so
        if name in entry.released and entry.decided_s == end_s:
            continue  # an administrator uses it again
        if not host.drained:
            reason = f"maintenance: {entry.reason}" if entry.reason else "maintenance"
            actions += workers.drain_node(state, name, reason, now_ns)
        end_ns = now_ns + round(end_s * 1e9) - wall_ns
        host.drained_until_ns = max(host.drained_until_ns, end_ns)
        drained.append(name)
    state.calendar.under_way[number] = end_s, tuple(drained)
    return actions


def _set_closing(state: scheduler_state.SchedulerState, wall_ns: int, now_ns: int) -> None:
    """Set `closing_ns`; tasks that were set aside for an earlier one are tried again."""
    nodes = [
        name
        for name, host in state.cluster.nodes.hosts.items()
        if not host.lost and (host.drained_until_ns or not host.drained)
    ]
    state.calendar.set_windows(nodes, wall_ns, now_ns)
    ends = [state.limits.end_ns - END_MARGIN_NS] if state.limits.end_ns else []
    closing_ns = min([*ends, *(begin for begin, _ in state.calendar.windows)], default=0)
    if abs(closing_ns - state.closing_ns) > START_NS:  # no mere step of the wall clock
        later = not closing_ns or (state.closing_ns and closing_ns > state.closing_ns)
        state.closing_ns = closing_ns
        for pool in state.cluster.pools.values() if later else ():
            pool.queue.readmit_late()

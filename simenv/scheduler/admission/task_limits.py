"""The one check of the limits of tasks: which subject's limit do they pass first?

Every refusal names the value, the limit and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simenv import model
from simenv.errors import InfeasibleError, LimitExceededError, QueueFullError, SimenvError
from simenv.model.limits import Subject, SubjectKind
from simenv.scheduler.core import Route
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.scheduler.state.task_use import AssociationUse
from simenv.text import size

RETRY_AFTER_S = 1.0


def check_tasks(
    state: SchedulerState,
    owner: str,
    account: str,
    qos: str,
    terms: model.TaskOptions,
    routes: Sequence[Route],
    size_bytes: int,
) -> None:
    """Raise the refusal of tasks by the first limit that they would pass: of their owner, class of
    service, accounts, or of the room that their account leaves to others. `routes`: one a task;
    `size_bytes`: of their programs and parameter values. LimitExceededError, InfeasibleError,
    QueueFullError."""
    path = state.shares.accounts.path(account)
    for subject, limits in state.shares.limits.subjects(owner, qos, path):
        error = (
            _beyond_terms(subject, limits, terms)
            or _beyond_slots(subject, limits, routes)
            or _beyond_queue(state, subject, limits, owner, len(routes), size_bytes)
        )
        if error is not None:
            raise error
    if owner and path:  # the environment's own user has no limits
        _check_room(state, path, len(routes), size_bytes)


def _beyond_terms(
    subject: Subject, limits: model.Limits, terms: model.TaskOptions
) -> SimenvError | None:
    if abs(terms.priority) > limits.max_priority:
        return LimitExceededError(
            f"priority {terms.priority} is above the limit of {limits.max_priority}, or below "
            f"-{limits.max_priority}, for {subject} (max_priority)",
            hint=f"a priority nearer to 0; {subject.way_out('max_priority')}",
        )
    if limits.max_run_s and terms.run_timeout_s > limits.max_run_s:
        return LimitExceededError(
            f"run_timeout_s = {terms.run_timeout_s:g} is above the limit of {limits.max_run_s} s "
            f"for {subject} (max_run_s)",
            hint=f"a shorter run_timeout_s; {subject.way_out('max_run_s')}",
        )
    return None


def _beyond_slots(
    subject: Subject, limits: model.Limits, routes: Sequence[Route]
) -> SimenvError | None:
    """Return the refusal of tasks over more ranks than the subject may have slots."""
    max_count = limits.max_running_slots
    ranks = max((route.ranks for route in routes), default=1) if max_count else 0
    if ranks <= max_count:
        return None
    return InfeasibleError(
        f"a task needs {ranks} ranks, one slot each; the limit for {subject} is {max_count} slots "
        "(max_running_slots)",
        hint="a smaller circuit or precision='single'; " + subject.way_out("max_running_slots"),
    )


def _beyond_queue(
    state: SchedulerState,
    subject: Subject,
    limits: model.Limits,
    owner: str,
    count: int,
    size_bytes: int,
) -> SimenvError | None:
    if not (limits.max_queued_tasks or limits.max_queued_bytes):
        return None
    use = _queued(state, subject, owner)
    if limits.max_queued_tasks and use.queued_tasks + count > limits.max_queued_tasks:
        key = "max_queued_tasks"
        message = (
            f"{subject} has {use.queued_tasks} unfinished tasks; {count} more would pass the limit "
            f"of {limits.max_queued_tasks} ({key})"
        )
    elif limits.max_queued_bytes and use.queued_bytes + size_bytes > limits.max_queued_bytes:
        key = "max_queued_bytes"
        message = (
            f"the unfinished tasks of {subject} hold {size(use.queued_bytes)}; {size(size_bytes)} "
            f"more would pass the limit of {size(limits.max_queued_bytes)} ({key})"
        )
    else:
        return None
    hint = f"wait for results, then submit again; {subject.way_out(key)}"
    return QueueFullError(message, hint=hint, retry_after_s=RETRY_AFTER_S)


def _queued(state: SchedulerState, subject: Subject, owner: str) -> model.ResourceUse:
    """Return the unfinished tasks that a limit of the queue counts, and their bytes."""
    if subject.kind is SubjectKind.OWNER:
        return state.tasks.use_of(owner)
    if subject.kind is SubjectKind.ACCOUNT:
        return _sum(below(state, subject.name))
    uses = state.tasks.by_association
    return _sum(each for each in uses if each.qos == subject.name and each.owner == owner)


def below(state: SchedulerState, account: str) -> list[AssociationUse]:
    """Return the unfinished tasks of an account and of the accounts below it."""
    path = state.shares.accounts.path
    return [each for each in state.tasks.by_association if account in path(each.account)]


def _sum(uses: Iterable[AssociationUse]) -> model.ResourceUse:
    tasks = size_bytes = 0
    for each in uses:
        tasks, size_bytes = tasks + each.tasks, size_bytes + each.size_bytes
    return model.ResourceUse(tasks, size_bytes)


def _check_room(state: SchedulerState, path: tuple[str, ...], count: int, size_bytes: int) -> None:
    """Raise QueueFullError for tasks that would leave too little room in the queue for other
    accounts, where their account has no limit of its own. An account may hold half of what the
    others leave of the queue, whatever number of users it has, so that room for another account is
    left at any time (Choudhury, Hahne, IEEE/ACM Trans. Netw. 1998)."""
    queued_tasks, queued_bytes = len(state.tasks), state.tasks.queued_bytes
    all_tasks, all_bytes = state.limits.max_queued_tasks, state.limits.max_queued_bytes
    fits_tasks = not all_tasks or 2 * (queued_tasks + count) <= all_tasks
    fits_bytes = not all_bytes or 2 * (queued_bytes + size_bytes) <= all_bytes
    if fits_tasks and fits_bytes:  # mostly: all together have at most half of the queue
        return
    for own in map(state.shares.limits.of_account, path):
        all_tasks = 0 if own.max_queued_tasks else all_tasks
        all_bytes = 0 if own.max_queued_bytes else all_bytes
    account = path[-1]
    use = _sum(each for each in state.tasks.by_association if each.account == account)
    others = model.ResourceUse(queued_tasks - use.queued_tasks, queued_bytes - use.queued_bytes)
    max_tasks = (all_tasks - others.queued_tasks) // 2
    max_bytes = (all_bytes - others.queued_bytes) // 2
    if all_tasks and use.queued_tasks + count > max_tasks:
        key, more, limit = "max_queued_tasks", str(count), str(max_tasks)
        has, have = f"has {use.queued_tasks} unfinished tasks", str(others.queued_tasks)
        full = str(all_tasks)
    elif all_bytes and use.queued_bytes + size_bytes > max_bytes:
        key, more, limit = "max_queued_bytes", size(size_bytes), size(max_bytes)
        has, have = f"holds {size(use.queued_bytes)}", size(others.queued_bytes)
        full = size(all_bytes)
    else:
        return
    subject = Subject(SubjectKind.ACCOUNT, account)
    raise QueueFullError(
        f"{subject} {has}, the others {have}, and the queue takes {full}; {more} more "
        f"would pass {limit}, half of what the others leave ({key})",
        hint=f"wait for results, then submit again; {subject.way_out(key)}",
        retry_after_s=RETRY_AFTER_S,
    )

"""Circuits with options and parameter values of their own, submitted in few messages.

A message has one set of options for all of its tasks. Items with equal options are sent together,
whatever their circuits, parameter values, shots and seeds are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.devices.choice import SubmitDevices
from simenv.client.submission.options import BatchOptions
from simenv.client.submission.prepare import PreparedSubmit, prepare_many
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.errors import BatchRefusedError, SimenvError
from simenv.model import TaskOptions, TaskSpec


class BatchItem(msgspec.Struct, frozen=True):
    """One circuit with its options. `values`: float64 [K, parameters]; None: no parameters."""

    circuit: Any
    options: BatchOptions
    values: Any = None


def submit_batch(
    session: ServiceSession, devices: SubmitDevices, items: Sequence[BatchItem]
) -> list[list[Task]]:
    """Submit all items or none; return the tasks of each item, one for each binding.

    Raises the SimenvError of the first refused item, with `index` naming the item.
    """
    groups: dict[TaskOptions, list[tuple[int, list[TaskSpec]]]] = {}
    for index, item in enumerate(items):
        work = [item.circuit] if item.values is None else (item.circuit, item.values)
        try:
            prepared = prepare_many(work, item.options, devices)
        except SimenvError as error:
            raise _of_item(error, index) from error
        groups.setdefault(prepared.terms, []).append((index, prepared.specs))
    results: list[list[Task]] = [[] for _ in items]
    sent: list[Task] = []
    try:
        for terms, members in groups.items():
            specs = [spec for _, each in members for spec in each]
            try:
                tasks = send(session, PreparedSubmit(terms, specs), None)
            except SimenvError as error:
                raise _of_group(error, members) from error
            sent += tasks
            rest = iter(tasks)
            for index, each in members:
                count = sum(spec.count for spec in each)
                results[index] = [next(rest) for _ in range(count)]
    except BaseException:
        if sent:
            session.cancel(sorted({task.handle.number for task in sent}))
        raise
    return results


def _of_item(error: SimenvError, index: int) -> SimenvError:
    """Return the error with the index of an item."""
    if isinstance(error, BatchRefusedError):
        error = error.errors[0]
    error.index = index
    return error


def _of_group(error: SimenvError, members: Sequence[tuple[int, list[TaskSpec]]]) -> SimenvError:
    """Convert the error's index, which counts bindings, to the index of its item."""
    first = error.errors[0] if isinstance(error, BatchRefusedError) else error
    left = first.index
    if left < 0:
        return first
    for index, specs in members:
        left -= sum(spec.count for spec in specs)
        if left < 0:
            return _of_item(first, index)
    return first

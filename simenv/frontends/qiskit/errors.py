"""Errors of simenv as the errors that Qiskit documents; the original one is the `__cause__`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qiskit.exceptions import QiskitError
from qiskit.providers.exceptions import JobError, JobTimeoutError

from simenv.errors import OptionError, SimenvError, TimedOutError


@contextmanager
def refusals() -> Iterator[None]:
    """Around a submission: ValueError for an option, QiskitError for what the environment
    does not run. Nothing was accepted."""
    try:
        yield
    except OptionError as error:
        raise ValueError(_text(error)) from error
    except SimenvError as error:
        raise QiskitError(_text(error)) from error


@contextmanager
def failures() -> Iterator[None]:
    """Around the wait for a result: JobTimeoutError, and JobError for a task without a result."""
    try:
        yield
    except TimedOutError as error:
        raise JobTimeoutError(_text(error)) from error
    except SimenvError as error:
        raise JobError(_text(error)) from error


def _text(error: SimenvError) -> str:
    where = f"circuit {error.index}: " if error.index >= 0 else ""
    return f"{where}{error}"

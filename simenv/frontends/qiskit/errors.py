"""Conversion of simenv's errors to those that Qiskit documents; the original one is the
`__cause__`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from qiskit.exceptions import QiskitError
from qiskit.providers.exceptions import JobError, JobTimeoutError

from simenv.errors import OptionError, SimenvError, TimedOutError

_OPTIONS = re.compile(r"\boptions(?=[=:])")  # of `Client.submit`: `engine_options` of a backend


@contextmanager
def refusals(pub_indices: Sequence[int] = ()) -> Iterator[None]:
    """Convert errors of a submission: ValueError for an option, QiskitError for a circuit that the
    environment does not run. No circuit was accepted. `pub_indices`: the PUB of each submitted
    item; empty: items are circuits."""
    try:
        yield
    except OptionError as error:
        raise ValueError(_text(error, pub_indices)) from error
    except SimenvError as error:
        raise QiskitError(_text(error, pub_indices)) from error


@contextmanager
def failures() -> Iterator[None]:
    """Convert errors of a wait for results: JobTimeoutError, and JobError for a task without a
    result."""
    try:
        yield
    except TimedOutError as error:
        raise JobTimeoutError(_text(error)) from error
    except SimenvError as error:
        raise JobError(_text(error)) from error


def _text(error: SimenvError, pub_indices: Sequence[int] = ()) -> str:
    text = _OPTIONS.sub("engine_options", str(error))
    if error.index < 0:
        return text
    return f"circuit {pub_indices[error.index] if pub_indices else error.index}: {text}"

"""Conversion of errors for DEFw: by class if the contract has one, else DEFwError; never a
traceback's text."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from simenv.errors import NoServiceError, SimenvError
from simenv.frontends.qfw import defw
from simenv.qpm.errors import ExecutionError, NotReadyError, QPMError

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("simenv.qfw")


def carried(call: Callable[P, R]) -> Callable[P, R]:
    """Wrap a method so that it raises DEFw's errors, if there is a DEFw."""

    @functools.wraps(call)
    def answered(*args: P.args, **named: P.kwargs) -> R:
        try:
            return call(*args, **named)
        except Exception as error:  # noqa: BLE001 - any error is sent to the caller
            settings = error_of(error)
        try:
            raise settings
        finally:
            del settings  # else the error, its traceback and these frames keep each other

    return answered


def error_of(error: Exception) -> BaseException:
    """Convert an error to the one that is raised to a host."""
    if isinstance(error, QPMError):
        name = error.defw_name
    elif isinstance(error, NoServiceError):
        name = NotReadyError.defw_name
    else:
        name = QPMError.defw_name
    if not isinstance(error, SimenvError):
        log.error("an error that is none of ours", exc_info=error)
    return defw.error(name, text(error)) or error


def text(error: Exception) -> str:
    """Message, hint and reason of an error in one line."""
    if not isinstance(error, SimenvError):
        return f"{type(error).__name__}: {error}"
    message = error.message if not error.hint else f"{error.message} ({error.hint})"
    return f"{message} [{error.reason}]" if isinstance(error, ExecutionError) else message

"""Exceptions with DEFw's names, for the module `defw_exception`."""

from __future__ import annotations

import sys
import traceback


class DEFwError(Exception):
    """Base class; it and its subclasses are sent as objects of their own class.

    `stacktrace`: the traceback of the exception that was being handled when this one was
    constructed, "" if there was none. DEFw records it there and sends it to the client.
    """

    def __init__(self, msg: object = "", arg: object = None, halt: bool = False, nname: object = "",
                 ) -> None:  # fmt: skip
        super().__init__(msg)
        self.msg, self.arg, self.halt, self.node_name = msg, arg, halt, nname
        handled = sys.exc_info()[1]
        self.stacktrace = "" if handled is None else "".join(traceback.format_exception(handled))


class DEFwNotReady(DEFwError):
    """Not initialised yet."""


class DEFwInProgress(DEFwError):
    """Not finished."""


class DEFwOutOfResources(DEFwError):
    """No capacity now."""


class DEFwExecutionError(DEFwError):
    """A circuit failed, or a call was refused."""


class DEFwNotFound(DEFwError):
    """An unknown object."""


class DEFwReserveError(DEFwError):
    """A service refused the reservation."""


class DEFwAgentNotFound(DEFwError):
    """The peer is not connected."""


class DEFwCommError(DEFwError):
    """The other side does not answer."""


class DEFwRemoteError(DEFwError):
    """Any other exception of the other side: the text of its traceback."""


NAMES: dict[str, type[DEFwError]] = {
    kind.__name__: kind
    for kind in (
        DEFwError, DEFwNotReady, DEFwInProgress, DEFwOutOfResources, DEFwExecutionError,
        DEFwNotFound, DEFwReserveError, DEFwAgentNotFound, DEFwCommError, DEFwRemoteError,
    )
}  # fmt: skip


def own_class(error: BaseException) -> str:
    """Name under which the error is sent: its nearest known class; "" if there is none."""
    for kind in type(error).__mro__:
        if NAMES.get(kind.__name__) is kind:
            return kind.__name__
    return ""


def received(report: dict[str, str]) -> DEFwError:
    """The error that a peer sent: its class, its message and the stack trace it carries."""
    error = NAMES[report["class"]](report["message"])
    error.stacktrace = report.get("stacktrace", "")
    return error

"""Errors under DEFw's names. A plugin finds them in the module `defw_exception`."""

from __future__ import annotations


class DEFwError(Exception):
    """Travels as an object of its own class; so do those below."""


class DEFwNotReady(DEFwError):
    """Not initialised yet."""


class DEFwInProgress(DEFwError):
    """Not finished."""


class DEFwOutOfResources(DEFwError):
    """No capacity now."""


class DEFwExecutionError(DEFwError):
    """A circuit failed, or a call was refused."""


class DEFwNotFound(DEFwError):
    """An object nobody knows."""


class DEFwReserveError(DEFwError):
    """A service would not be reserved."""


class DEFwCommError(DEFwError):
    """The other side does not answer."""


class DEFwRemoteError(DEFwError):
    """Any other exception of the other side: the text of its traceback."""


NAMES: dict[str, type[DEFwError]] = {
    kind.__name__: kind
    for kind in (
        DEFwError, DEFwNotReady, DEFwInProgress, DEFwOutOfResources, DEFwExecutionError,
        DEFwNotFound, DEFwReserveError, DEFwCommError, DEFwRemoteError,
    )
}  # fmt: skip


def own_class(error: BaseException) -> str:
    """The name under which it travels: of its nearest known class; "" where it is none of these."""
    for kind in type(error).__mro__:
        if NAMES.get(kind.__name__) is kind:
            return kind.__name__
    return ""

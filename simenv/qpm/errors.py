"""Errors of a QPM. A DEFw host raises each again under the name in `defw_name`."""

from __future__ import annotations

from typing import ClassVar

from simenv.errors import SimenvError


class QPMError(SimenvError):
    """Refusal or report of a QPM that has no class of its own."""

    code = "qpm"
    defw_name: ClassVar[str] = "DEFwError"


class NotReadyError(QPMError):
    """The service behind the QPM does not answer, or none of its pools can run a circuit yet."""

    code = "qpm_not_ready"
    retryable = True
    defw_name = "DEFwNotReady"


class InProgressError(QPMError):
    """Revision 1: the requested completion is not ready; hosts poll on it."""

    code = "qpm_in_progress"
    retryable = True
    defw_name = "DEFwInProgress"


class OutOfResourcesError(QPMError):
    """No capacity now; the same call may succeed later."""

    code = "qpm_out_of_resources"
    retryable = True
    defw_name = "DEFwOutOfResources"


class ExecutionError(QPMError):
    """The circuit failed or cannot be run, or the request is invalid; `reason` is for programs."""

    code = "qpm_execution"
    defw_name = "DEFwExecutionError"

    def __init__(
        self, message: str, *, hint: str = "", index: int = -1, reason: str = "invalid-request"
    ) -> None:
        super().__init__(message, hint=hint, index=index)
        self.reason = reason


class UnknownObjectError(QPMError):
    """The named library, pool or calibration set does not exist here."""

    code = "qpm_not_found"
    exit_code = 4
    defw_name = "DEFwNotFound"

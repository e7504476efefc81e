"""One line of the doctor's report."""

from __future__ import annotations

from typing import Literal

import msgspec


class DoctorFinding(msgspec.Struct, frozen=True):
    """Finding of a check. `level`: ok, warn (works, but not at its best) or fail. `remedy`: command
    to type."""

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    remedy: str = ""

"""One line of the doctor's report."""

from __future__ import annotations

from typing import Literal

import msgspec


class DoctorFinding(msgspec.Struct, frozen=True):
    """`level`: ok, warn (works, but worse than it could) or fail. `remedy`: what to type."""

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    remedy: str = ""

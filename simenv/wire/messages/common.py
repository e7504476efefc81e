"""Number types with bounds, for fields of messages."""

from __future__ import annotations

from typing import Annotated

import msgspec

# Numbers that a query of the journal may contain: SQLite's integers have 64 bits, signed.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

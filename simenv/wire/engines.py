"""The question about engines, and its answer: a part of `messages`."""

from __future__ import annotations

import msgspec

from simenv.model import EngineInfo
from simenv.wire.numbers import Number


class GetEngines(msgspec.Struct, frozen=True, array_like=True, tag=23):
    request: Number


class Engines(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """In the order of preference; one that is not installed says what is missing."""

    request: int
    engines: list[EngineInfo]

"""Pulse sequences of other users, which are read in a process with bounds of memory and time.

Invariant: this process sees the text of a sequence and its encoded call, but never the sequence: a
waveform of some bytes may stand for any number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from simenv.client.submission.pulses import pack_pulses
from simenv.errors import OptionError
from simenv.model.devices import DeviceInfo
from simenv.model.pulses import check_text
from simenv.sandbox.function_process import SandboxProcess

SEQUENCES = SandboxProcess(__name__, "packed", "pulse sequence")


class _Unread(msgspec.Struct, frozen=True, array_like=True):
    sequence: str
    options: dict[str, Any]
    device: DeviceInfo | None


def pack_untrusted(
    sequence: str, options: Mapping[str, Any], info: DeviceInfo | None = None
) -> bytes:
    """Return the encoded PulseCall of a text; `options`: of `Client.submit`, plain data; `info`: as
    for `pack_pulses`. Raises ProgramError, OptionError, InfeasibleError, LimitExceededError,
    ConfigError."""
    check_text("the pulse sequence", sequence)
    try:
        asked = msgspec.msgpack.encode(_Unread(sequence, dict(options), info))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        text = f"options of the pulse sequence are no plain data: {error}"
        raise OptionError(text, hint="numbers, texts, lists and tables") from error
    return SEQUENCES.convert(asked)


def packed(data: bytes) -> bytes:
    """Read and pack a sequence; called in the sandbox process."""
    asked = msgspec.msgpack.decode(data, type=_Unread)
    return pack_pulses(asked.sequence, asked.options, asked.device)

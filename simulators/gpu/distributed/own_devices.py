"""Check that each rank has a GPU of its own: two states in one would share its memory and time."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from simulators.errors import UnknownEngine

_CARD_BYTES = 512


def check_devices(comm: Any, location: str) -> None:
    """Raise UnknownEngine in all ranks, which all call this, if two have the same GPU.

    `location`: as `Device.location`.
    """
    text = f"{os.uname().nodename} {location}" if location else ""
    mine = np.frombuffer(text.encode()[:_CARD_BYTES].ljust(_CARD_BYTES, b"\0"), np.uint8)
    everyone = np.empty((comm.Get_size(), _CARD_BYTES), np.uint8)
    comm.Allgather(mine.copy(), everyone)
    ranks: dict[bytes, int] = {}
    for rank, row in enumerate(everyone):
        card = row.tobytes().rstrip(b"\0")
        first = ranks.setdefault(card, rank)
        if card and first != rank:
            raise UnknownEngine(
                f"engine 'gpu': ranks {first} and {rank} have the same GPU, {card.decode()}",
                hint="show each rank its own by CUDA_VISIBLE_DEVICES, or start a pool with"
                " engine=gpu,ranks=2: the service does",
            )

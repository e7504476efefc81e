"""What passes and cost models ask of the channels of a noise program, as one array each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel

BLOCK = 256  # floats of a transfer matrix on two qubits
CLOSED, FIRST_ALONE, SECOND_ALONE = 1, 2, 4  # traits of a channel
_TOLERANCE = 1e-14  # of entries of a transfer matrix that are zero
_OFF_DIAGONAL = 1e-12  # of a Pauli channel's transfer matrix
_CERTAIN = 1.0 - 1e-12  # the largest probability of an error


class TransferMatrices(msgspec.Struct, frozen=True, eq=False):
    """Pauli transfer matrices of channels in one array, which kernels read.

    Channels that were selected or renumbered share the array: no matrix is copied.
    """

    blocks: NDArray[np.float64]  # [rows, BLOCK]: a matrix row by row, zeros behind it
    rows: NDArray[np.int64]  # [channels]: where the matrix of each is

    @classmethod
    def of_channels(cls, channels: Sequence[Channel]) -> TransferMatrices:
        """Matrices in the order of their channels."""
        blocks = np.zeros((len(channels), BLOCK))
        for block, channel in zip(blocks, channels, strict=True):
            block[: channel.ptm.size] = channel.ptm.ravel()
        return cls(blocks, np.arange(len(channels)))

    def of(self, numbers: NDArray[np.int64]) -> TransferMatrices:
        """Those of some channels."""
        return TransferMatrices(self.blocks, self.rows[numbers])

    def joined(self, other: TransferMatrices) -> TransferMatrices:
        """These matrices, as `of_channels` made them, and others behind them, in the same array
        while it has room."""
        count = self.rows.size
        total = count + other.rows.size
        blocks = self.blocks
        if total > len(blocks):
            blocks = np.zeros((2 * total, BLOCK))
            blocks[:count] = self.blocks[:count]
        blocks[count:total] = other.blocks[other.rows]
        return TransferMatrices(blocks, np.arange(total))


class ChannelFacts(msgspec.Struct, frozen=True, eq=False):
    """One entry for each channel.

    `traits`: CLOSED where the Z-diagonal part is closed; FIRST_ALONE (SECOND_ALONE) where what
    happens to the first (second) qubit does not depend on the other one. `is_pauli`: a mixture of
    Pauli operators. `errors`: -log(1 - p). p is estimated as the entanglement infidelity without
    its coherent part, which folds into the gate: (1 - sqrt(u)) (4^n - 1) / 4^n by the unitarity u
    (Wallman et al., arXiv 1503.07865). `drawn`: the part of `errors` that depends on the state: the
    nonunital part, the probability of a reset.
    """

    traits: NDArray[np.uint8]
    is_pauli: NDArray[np.bool_]
    errors: NDArray[np.float64]
    drawn: NDArray[np.float64]
    matrices: TransferMatrices

    def of(self, numbers: NDArray[np.int64]) -> ChannelFacts:
        """Those of some channels."""
        return ChannelFacts(
            self.traits[numbers],
            self.is_pauli[numbers],
            self.errors[numbers],
            self.drawn[numbers],
            self.matrices.of(numbers),
        )

    def joined(self, other: ChannelFacts) -> ChannelFacts:
        """Those of these channels and others behind them."""
        return ChannelFacts(
            np.concatenate((self.traits, other.traits)),
            np.concatenate((self.is_pauli, other.is_pauli)),
            np.concatenate((self.errors, other.errors)),
            np.concatenate((self.drawn, other.drawn)),
            self.matrices.joined(other.matrices),
        )


def channel_facts(channels: Sequence[Channel]) -> ChannelFacts:
    """Facts of channels on one and two qubits."""
    count = len(channels)
    found = ChannelFacts(
        np.zeros(count, np.uint8),
        np.zeros(count, np.bool_),
        np.zeros(count),
        np.zeros(count),
        TransferMatrices.of_channels(channels),
    )
    for size, masks, flags in _FORBIDDEN:
        mine = [k for k, channel in enumerate(channels) if len(channel.ptm) == size]
        if not mine:
            continue
        stack = np.array([channels[k].ptm for k in mine])
        flat = np.abs(stack).reshape(len(mine), -1)
        found.traits[mine] = (flat @ masks < _TOLERANCE) @ flags
        found.is_pauli[mine] = flat[:, ~np.eye(size, dtype=np.bool_).ravel()].max(1) < _OFF_DIAGONAL
        unital = np.sqrt(np.square(stack[:, 1:, 1:]).sum(axis=(1, 2)) / (size - 1))
        p = np.clip((1.0 - unital) * (size - 1) / size, 0.0, _CERTAIN)
        errors = -np.log1p(-p)
        found.errors[mine] = errors
        found.drawn[mine] = np.minimum(errors, np.abs(stack[:, 1:, 0]).max(axis=1))
    return found


def _forbidden(size: int) -> tuple[int, NDArray[np.float64], NDArray[np.uint8]]:
    """Entries [size^2, traits] that are zero where a channel has a trait, and the flags."""
    index = np.arange(size)
    diagonal = ((index & 3) % 3 == 0) & ((index >> 2) % 3 == 0)
    first, second = index & 3 == 0, index >> 2 == 0
    masks = [(diagonal, CLOSED)]
    if size == 16:
        masks += [(second, FIRST_ALONE), (first, SECOND_ALONE)]
    columns = [np.outer(mask, ~mask).ravel() for mask, _ in masks]
    flags = np.array([flag for _, flag in masks], np.uint8)
    return size, np.array(columns, np.float64).T, flags


_FORBIDDEN = _forbidden(4), _forbidden(16)

"""Runs of strings through a program, in arrays that grow."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import Stopped
from simulators.strings import kernel
from simulators.strings.program import Program

_LEAST = 1_024  # strings of new arrays
_SEED = 20_231_129  # of the words of the hash: any number
_RAISE = 2.0  # factor of eps where one mix makes too many strings


class Cuts(msgspec.Struct, frozen=True):
    """Limits of a run. `key`: seed, binding and draw of unbiased cuts; None: what is below eps is
    dropped."""

    eps: float
    most: int  # strings; eps is raised where there are more
    key: tuple[int, int, int] | None = None


class Propagated(msgspec.Struct, frozen=True):
    """Value of a string in |0...0>, and what it rests on."""

    value: float
    bound: float  # sum of the magnitudes of all cuts
    eps: float  # at the end
    raised: bool  # eps was raised to hold the number of strings
    diagonal: int  # strings of I and Z at the end
    strings: int  # at the end
    peak: int
    work: int  # strings that all steps passed over


@functools.cache
def _random_words(num_words: int) -> NDArray[np.uint64]:
    """Words of the hash of x and z bits."""
    generator = np.random.Generator(np.random.Philox(_SEED))
    return generator.integers(0, 2**64, 2 * 64 * num_words, dtype=np.uint64)


class Propagation:
    """Arrays for runs of one width, one run at a time."""

    def __init__(self, num_qubits: int) -> None:
        self._num_words = (num_qubits + 63) // 64
        self._random = _random_words(self._num_words)
        self._words = np.zeros(kernel.words_size(self._num_words), np.uint64)
        self._state = np.zeros(kernel.STATE_SIZE, np.int64)
        self._measures = np.zeros(kernel.MEASURES_SIZE)
        self._make(_LEAST)

    def run(self, program: Program, x: int, z: int, cuts: Cuts, control: RunControl) -> Propagated:
        """Run the string with these masks. Raises Stopped."""
        state, measures = self._state, self._measures
        self._begin(program, x, z, cuts)
        while True:
            result = kernel.propagate(
                program.ints, program.reals, self._random, self._keys, self._cells, self._values,
                self._table, state, measures, self._words, control.flag,
            )  # fmt: skip
            if result == kernel.STOPPED:
                raise Stopped()
            if result == kernel.DONE:
                return Propagated(
                    float(measures[kernel.VALUE]), float(measures[kernel.LOST]),
                    float(measures[kernel.EPS]), bool(state[kernel.RAISED]),
                    int(state[kernel.DIAGONAL]), int(state[kernel.COUNT]), int(state[kernel.PEAK]),
                    int(state[kernel.WORK]),
                )  # fmt: skip
            if self._cells.shape[0] >= 2 * cuts.most:
                measures[kernel.EPS] *= _RAISE
                state[kernel.RAISED] = 1
            self._grow()

    def _begin(self, program: Program, x: int, z: int, cuts: Cuts) -> None:
        state, measures, words = self._state, self._measures, self._words
        num_words = self._num_words
        state[:] = 0
        state[kernel.COUNT] = state[kernel.PEAK] = state[kernel.STALE] = 1
        state[kernel.BEFORE] = -1
        state[kernel.MOST], state[kernel.NUM_MIXES] = cuts.most, program.mixes
        measures[:] = 0.0
        measures[kernel.EPS] = cuts.eps
        if cuts.key is not None:
            state[kernel.UNBIASED] = 1
            words[kernel.SEED], words[kernel.BINDING], words[kernel.DRAW] = cuts.key
        for at, mask in ((0, x), (num_words, z)):
            data = mask.to_bytes(8 * num_words, "little")
            self._keys[at : at + num_words, 0] = np.frombuffer(data, np.uint64)
        words[kernel.SCOPE : kernel.SCOPE + num_words] = (
            self._keys[:num_words, 0] | self._keys[num_words:, 0]
        )
        both = x | z << 64 * num_words
        hashed = 0
        for bit in range(both.bit_length()):
            if both >> bit & 1:
                hashed ^= int(self._random[bit])
        self._cells[0, 0] = hashed
        self._values[0, 1] = 1.0

    def _make(self, capacity: int) -> None:
        self._keys = np.empty((2 * self._num_words, capacity), np.uint64)
        self._cells = np.empty((capacity, 2), np.uint64)
        self._values = self._cells.view(np.float64)
        self._table = np.zeros(2 * capacity, np.uint64)

    def _grow(self) -> None:
        keys, cells = self._keys, self._cells
        count = len(cells)
        self._make(2 * count)
        self._keys[:, :count] = keys
        self._cells[:count] = cells
        self._state[kernel.STALE] = 1

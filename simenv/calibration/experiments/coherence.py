"""Circuit pieces that measure relaxation, dephasing, ZZ interaction and readout.

Signals are differences of two arms, in which the offset of the decay cancels: preparation with and
without a half turn for T1 and readout, and two phases of the last quarter turn otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from simenv.calibration.experiments.programs import CircuitPiece, NativeGateRows, joined

Arm = Callable[
    [NativeGateRows, float, int], CircuitPiece
]  # by duration in ns and number of the arm


def relaxation(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Inversion recovery; arm 1 begins in |1>."""
    prepared = [alphabet.half()] if arm else []
    return joined([*prepared, alphabet.delay(duration_ns)])


def echo(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Hahn echo over two halves of the duration; arms end in |0> and |1> without noise."""
    half = alphabet.delay(duration_ns / 2.0)
    return joined(
        [
            alphabet.quarter(), half, alphabet.half(), half,
            alphabet.z(math.pi * arm), alphabet.quarter(),
        ]
    )  # fmt: skip


def ramsey(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Ramsey sequence with the phase arm * pi / 2 before the last quarter turn."""
    return joined(
        [
            alphabet.quarter(), alphabet.delay(duration_ns),
            alphabet.z(math.pi / 2.0 * arm), alphabet.quarter(),
        ]
    )  # fmt: skip


def conditional_ramsey(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Ramsey sequence on qubit 0 while qubit 1 is in |0> (arms 0-3) or |1> (arms 4-7).

    The difference of both frequencies is the ZZ interaction (Takita et al., Phys. Rev. Lett. 119,
    180501, supplement).
    """
    prepared = [alphabet.half(1)] if arm >= 4 else []
    return joined(
        [
            *prepared, alphabet.quarter(), alphabet.barrier(),
            alphabet.delay(duration_ns), alphabet.delay(duration_ns, 1), alphabet.barrier(),
            alphabet.z(math.pi / 2.0 * (arm % 4)), alphabet.quarter(),
        ]
    )  # fmt: skip


def readout(alphabet: NativeGateRows, _duration_ns: float, arm: int) -> CircuitPiece:
    """Measurement of |0>, or of |1> (arm 1)."""
    return joined([alphabet.half()] if arm else [])

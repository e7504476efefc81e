"""A circuit as it travels, and what its free parameters are called.

Invariant: what a batch asks of each of thousands stands here; the rest is read from the bytes when
somebody wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.circuits.bindings import Slots
from simenv.model import Program, decode_program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NO_SLOTS = Slots((), ())


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """A program in its wire form. Nothing in it leads back to it."""

    packed: bytes
    num_qubits: int
    measures: bool
    parameters: tuple[str, ...] = ()  # in the order of `circuit.parameters`
    slots: Slots = _NO_SLOTS

    @property
    def program(self) -> Program:
        """What was packed."""
        return decode_program(self.packed)

    def bind(self, bindings: Any = None) -> NDArray[np.float64]:
        """The values of all slots: float64 [K, num_slots], row k for the k-th set of values.

        `bindings`: an array (K, P) or (P,), columns in the order of `parameters`; or a mapping from
        parameter (object, name, or a vector with its elements last) to a value or K values; None
        where there are no parameters. OptionError names what is missing, unknown or not finite;
        ProgramError names an expression without a finite value.
        """
        return self.slots.values(bindings)

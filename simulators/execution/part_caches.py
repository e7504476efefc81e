"""Parts of a circuit that the outputs of a request depend on: their requests, and caches of what is
prepared for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import msgspec

from simulators.circuit.ir import Circuit
from simulators.circuit.passes.components import Subcircuit
from simulators.circuit.passes.light_cone import OutputSupport, output_support
from simulators.engine import (
    PauliSum,
    Request,
)

_KEPT = 4  # cached entries of one circuit, the oldest evicted


class Sized(Protocol):
    """Value of a cache."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""


T = TypeVar("T")
S = TypeVar("S", bound=Sized)


class SupportCache(Generic[T]):
    """Values of one structure by the support of the requested outputs."""

    def __init__(self) -> None:
        self._made: dict[tuple[OutputSupport | None, tuple[bool, ...]], T] = {}

    def of(
        self,
        circuit: Circuit,
        request: Request,
        make: Callable[[OutputSupport | None], T],
        *traits: bool,
    ) -> T:
        """Value for a request. `traits`: of the request, if `make` depends on more than the
        support."""
        labels = [label for item in request.observables for label in item.labels]
        key = output_support(request.outputs, labels, circuit), traits
        result = self._made.get(key)
        if result is None:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            result = self._made[key] = make(key[0])
        return result

    def values(self) -> Iterable[T]:
        return self._made.values()


class ProgramCache(Generic[S]):
    """Programs of one structure, or of a part of one, made when first needed."""

    def __init__(
        self,
        make: Callable[[Circuit, bool], S],
        traits: Callable[[Circuit], bytes] | None = None,
    ) -> None:
        """Set up. `make(circuit, keep)`: builds the program. `traits`: of the parameters, on which
        it may depend."""
        self._make = make
        self._traits = traits
        self._made: dict[tuple[bool, bytes], S] = {}
        self._last = b"", b""  # parameters, and their traits

    @property
    def memory_bytes(self) -> int:
        """Bytes of its programs."""
        return sum(item.memory_bytes for item in self._made.values())

    def of(self, circuit: Circuit, *, keep: bool) -> S:
        """Program for outputs of clbits, or (`keep`) of the final state."""
        last = self._last
        if self._traits is not None and last[0] != circuit.params_data:
            last = self._last = circuit.params_data, self._traits(circuit)
        key = keep, last[1]
        result = self._made.get(key)
        if result is None:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            result = self._made[key] = self._make(circuit, keep)
        return result


def part_request(part: Subcircuit, request: Request, num_qubits: int) -> Request:
    """Convert a request for a circuit of `num_qubits` qubits to one for a part of it."""
    if not request.observables or part.qubits.size == num_qubits:
        return request
    sums = tuple(
        PauliSum(part.labels(item.labels, num_qubits), item.coefficients)
        for item in request.observables
        if "expectation" in request.outputs
    )
    return msgspec.structs.replace(request, observables=sums)

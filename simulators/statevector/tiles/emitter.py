"""LLVM IR emitter for SIMD code of one register width; `row_ops` is written with it.

Vectors have 64 bytes with AVX-512 and 32 bytes elsewhere: AVX2 has 16 registers, and a two-qubit
matrix needs 16 vectors at a time. Products and sums are fused (fma) only where written so, and sums
of lanes follow the wide order, so results depend neither on the compiler nor on the width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils

from simulators.statevector.planning.tables import LANES

_WIDE_BYTES, _NARROW_BYTES = 64, 32


def vector_bytes(features: Mapping[str, bool]) -> int:
    """Bytes of a vector on a processor with these features, as LLVM names them."""
    return _WIDE_BYTES if features.get("avx512f") else _NARROW_BYTES


VECTOR_BYTES = vector_bytes(binding.get_host_cpu_features())
_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def number(value: int) -> Any:
    """A constant."""
    return ir.Constant(_I64, value)


class Emitter:
    """Emitter of one kernel's instructions, for arrays with the element type of `like`."""

    def __init__(self, context: Any, builder: Any, like: Any) -> None:
        self.context, self.builder = context, builder
        single = like.dtype == types.float32
        self.element = ir.FloatType() if single else ir.DoubleType()
        self._bits = 32 if single else 64
        self.count = 8 * VECTOR_BYTES // self._bits
        self.summed = 8 * _WIDE_BYTES // self._bits  # lanes of a wide sum
        self.per_row = LANES // self.count
        self.kind = ir.VectorType(self.element, self.count)

    def data(self, array_type: Any, array: Any) -> Any:
        """Address of an array's first number."""
        return cgutils.create_struct_proxy(array_type)(self.context, self.builder, array).data

    def at(self, data: Any, index: Any, more: int = 0) -> Any:
        """Address of a vector."""
        place = self.builder.add(index, number(more)) if more else index
        return self.builder.bitcast(self.builder.gep(data, [place]), self.kind.as_pointer())

    def load(self, pointer: Any, *, aligned: bool = True) -> Any:
        """Load a vector."""
        return self.builder.load(pointer, align=VECTOR_BYTES if aligned else self._bits // 8)

    def store(self, value: Any, pointer: Any, *, aligned: bool = True) -> None:
        """Store a vector."""
        self.builder.store(value, pointer, align=VECTOR_BYTES if aligned else self._bits // 8)

    def scalar(self, data: Any, index: Any, more: int = 0) -> Any:
        """Load one number."""
        place = self.builder.add(index, number(more)) if more else index
        return self.builder.load(self.builder.gep(data, [place]))

    def splat(self, value: Any) -> Any:
        """Vector with the same number in all lanes."""
        none = ir.Constant(self.kind, ir.Undefined)
        vector = self.builder.insert_element(none, value, ir.Constant(_I32, 0))
        return self.shuffled(vector, none, [0] * self.count)

    def shuffled(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        """Vector whose lane k is lane order[k] of both vectors, concatenated."""
        lanes = ir.Constant(ir.VectorType(_I32, len(order)), list(order))
        return self.builder.shuffle_vector(a, b, lanes)

    def negative(self, value: Any) -> Any:
        """Return -value; no instruction if an fma absorbs it."""
        return self.builder.fneg(value)

    def product(self, a: Any, b: Any) -> Any:
        """Return a * b."""
        return self.builder.fmul(a, b)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c, rounded once."""
        kind = a.type
        bits = 64 if isinstance(kind.element, ir.DoubleType) else 32
        name = f"llvm.fma.v{kind.count}f{bits}"
        shape = ir.FunctionType(kind, [kind, kind, kind])
        function = cgutils.get_or_insert_function(self.builder.module, shape, name)
        return self.builder.call(function, [a, b, c])

    def times(self, x: Any, y: Any, u: Any, v: Any) -> tuple[Any, Any]:
        """Return (x + iy) * (u + iv)."""
        re = self.fma(self.negative(y), v, self.product(x, u))
        return re, self.fma(x, v, self.product(y, u))

    def sum(self, value: Any) -> Any:
        """Sum of all lanes of a vector of float64, added in pairs."""
        size = value.type.count
        while size > 1:
            size //= 2
            none = ir.Constant(value.type, ir.Undefined)
            halves = [self.shuffled(value, none, [k + at for k in range(size)]) for at in (0, size)]
            value = self.builder.fadd(*halves)
        return self.builder.extract_element(value, ir.Constant(_I32, 0))

    def joined(self, values: Sequence[Any]) -> list[Any]:
        """Vectors of `summed` lanes, with the lanes of these vectors in order."""
        results = list(values)
        while results[0].type.count < self.summed:
            lanes = range(2 * results[0].type.count)
            pairs = zip(results[0::2], results[1::2], strict=True)
            results = [self.shuffled(a, b, lanes) for a, b in pairs]
        return results

    def wide(self, value: Any) -> Any:
        """Convert a vector's numbers to float64."""
        if self._bits == 64:
            return value
        return self.builder.fpext(value, ir.VectorType(ir.DoubleType(), value.type.count))

    def prefetch(self, pointer: Any) -> None:
        """Prefetch a cache line; a hint."""
        byte = ir.IntType(8).as_pointer()
        shape = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self.builder.module, shape, "llvm.prefetch.p0")
        hints = [ir.Constant(_I32, value) for value in (0, 3, 1)]
        self.builder.call(function, [self.builder.bitcast(pointer, byte), *hints])

    def each(self, count: Any, body: Callable[[Any], None]) -> None:
        """Call body(start) for `count` vectors, as a loop."""
        with cgutils.for_range(self.builder, count) as loop:
            body(self.builder.mul(loop.index, number(self.count)))

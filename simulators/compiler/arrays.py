"""Typed views on one byte buffer, inside kernels.

Each array argument costs the caller of a kernel as much as ten numbers, so scratch memory is one
buffer that the kernel divides. There are no checks: the buffer must be large enough and aligned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numpy.typing import NDArray

_I64 = ir.IntType(64)
_LINE_BYTES = 64


def aligned(size_bytes: int) -> NDArray[np.uint8]:
    """Buffer that begins at a cache line."""
    raw = np.zeros(size_bytes + _LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % _LINE_BYTES
    return raw[start : start + size_bytes]


def _cut(element: Any, *, readonly: bool = False) -> Any:
    """An intrinsic (buffer, byte, count) -> array of `element`."""
    size = element.bitwidth // 8
    array_type = types.Array(element, 1, "C", readonly=readonly)

    @intrinsic  # type: ignore[untyped-decorator]
    def cut(_context: Any, buffer: Any, _byte: Any, _count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
            array = make_array(array_type)(context, builder)
            pointer = builder.gep(data, [args[1]])
            populate_array(
                array,
                data=builder.bitcast(pointer, context.get_data_type(element).as_pointer()),
                shape=(args[2],),
                strides=(ir.Constant(_I64, size),),
                itemsize=ir.Constant(_I64, size),
                meminfo=None,
            )
            return array._getvalue()

        return array_type(buffer, types.int64, types.int64), codegen

    return cut


as_reals = _cut(types.float64)
as_words = _cut(types.uint64)
as_numbers = _cut(types.int64)
as_tallies = _cut(types.uint32)
as_short = _cut(types.uint16)
# Views of received bytes, as U16 and F64.
read_short = _cut(types.uint16, readonly=True)
read_reals = _cut(types.float64, readonly=True)


@intrinsic  # type: ignore[untyped-decorator]
def put_word(_context: Any, buffer: Any, _byte: Any, _word: Any) -> Any:
    """buffer[byte : byte + 8] = the word, little-endian, at any address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), _I64.as_pointer())
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.uint64), codegen

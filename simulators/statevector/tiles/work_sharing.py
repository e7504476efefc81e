"""Work sharing between threads over the tiles of many sweeps, without barriers.

Each thread owns a range of a sweep's tiles, so that it finds the same memory in its cache in each
sweep, and then takes tiles that others have not begun. A sweep begins when all tiles of the one
before are done, so a thread waits only for tiles in progress.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from simulators.compiler.kernel import inline_function

_SPINS = 4096  # looks at another thread's work before the processor is offered to others
_X86 = platform.machine() in ("x86_64", "AMD64")


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(_context: Any, marks: Any, _index: Any, _value: Any) -> Any:
    """marks[index] += value, in one piece; what was there before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(marks, types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(_context: Any, marks: Any, _index: Any) -> Any:
    """marks[index], and all that was written before it was."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(marks, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _pause(_context: Any) -> Any:
    """A moment in which the other thread of a core may work, where there is a word for it."""

    def codegen(context: Any, builder: Any, _given: Any, _args: Any) -> Any:
        if _X86:
            shape = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, shape, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _offer(_context: Any) -> Any:
    """Let another thread have the processor."""

    def codegen(context: Any, builder: Any, _given: Any, _args: Any) -> Any:
        shape = ir.FunctionType(ir.IntType(32), [])
        call = cgutils.get_or_insert_function(builder.module, shape, "sched_yield")
        builder.call(call, [])
        return context.get_dummy_value()

    return types.void(), codegen


@inline_function
def spin_wait(marks, index, value, control):  # type: ignore[no-untyped-def]
    """Until marks[index] has come to `value`; False if the control flag was raised meanwhile."""
    spins = 0
    while load_acquire(marks, index) < value:
        if load_acquire(control, 0):
            return False
        spins += 1
        if spins < _SPINS:
            _pause()
        else:
            _offer()
    return True

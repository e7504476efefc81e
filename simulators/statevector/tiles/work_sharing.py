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

_SPINS = 4096  # polls before the processor is yielded to other threads
_X86 = platform.machine() in ("x86_64", "AMD64")


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(_context: Any, marks: Any, _index: Any, _value: Any) -> Any:
    """Add value to marks[index] atomically; returns the previous value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(marks, types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(_context: Any, marks: Any, _index: Any) -> Any:
    """Load marks[index] with acquire semantics."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(marks, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _pause(_context: Any) -> Any:
    """Pause instruction for the other hardware thread of a core, if the processor has one."""

    def codegen(context: Any, builder: Any, _given: Any, _args: Any) -> Any:
        if _X86:
            shape = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, shape, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _offer(_context: Any) -> Any:
    """Yield the processor to another thread."""

    def codegen(context: Any, builder: Any, _given: Any, _args: Any) -> Any:
        shape = ir.FunctionType(ir.IntType(32), [])
        call = cgutils.get_or_insert_function(builder.module, shape, "sched_yield")
        builder.call(call, [])
        return context.get_dummy_value()

    return types.void(), codegen


@inline_function
def spin_wait(marks, index, value, control):  # type: ignore[no-untyped-def]
    """Wait until marks[index] has reached `value`; False if the control flag was set meanwhile."""
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

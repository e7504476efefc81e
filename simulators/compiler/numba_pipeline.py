"""Compilation of kernels by numba without what kernels do not need, and their machine code on disk.

Most of the compile time is numba's front end, not LLVM. Three changes nearly halve it. A device
function (`kernel.device_function`) is only linked into its callers: it is neither optimised nor
compiled to machine code on its own (`_DeviceLowering`), nor again for each literal argument
(`_call_type_without_literals`). Passes for features that kernels do not use (closures, array
expressions, `with` blocks) are left out (`_PASSES`). The result type of an operator for given
argument types is cached (`_cached_call_type`).

A kernel on disk is machine code alone, and the descriptions that numba needs to call it, for the
processor that it was compiled for. numba's own cache sets its compiler up before it loads a kernel,
0.15 s in each process, and then takes four times the time of this module for each kernel, mostly
for bitcode for callers that would inline it.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import pickle
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llvmlite import binding as llvm
from numba import _dynfunc, types
from numba.core import config, serialize, typed_passes, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python

_PASSES = (
    untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing,
    untyped_passes.RewriteSemanticConstants, untyped_passes.DeadBranchPrune,
    untyped_passes.GenericRewrites, untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference, typed_passes.PreLowerStripPhis,
    typed_passes.IRLegalization,
)  # fmt: skip


class _LinkedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Library of a device function: optimised and compiled to machine code only with its
    callers."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _KernelLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Library of a kernel. No other library links it: the bitcode of its stored form only names the
    functions, because numba reads the names there."""

    def serialize_using_object_code(self) -> tuple[str, str, tuple[bytes, bytes]]:
        self._ensure_finalized()
        names = [each.name for each in self._final_module.functions if not each.is_declaration]
        bodies = [f'define void @"{name}"() {{ ret void }}' for name in names]
        bitcode = llvm.parse_assembly("\n".join(bodies)).as_bitcode()
        return self.name, "object", (self._get_compiled_object(), bitcode)


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(typed_passes.NativeLowering):  # type: ignore[misc]
    """Lowering of a function that Python calls."""

    _name = "lowering_of_a_kernel"

    def run_pass(self, state: Any) -> bool:
        state.library = _KernelLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        lowered: bool = super().run_pass(state)
        return lowered


@register_pass(mutates_CFG=True, analysis_only=False)
class _DeviceLowering(typed_passes.NativeLowering):  # type: ignore[misc]
    """Lowering of a function that only compiled functions call."""

    _name = "lowering_of_a_device_function"

    def run_pass(self, state: Any) -> bool:
        library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        library.enable_object_caching()
        state.library = library
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        name = lowered.fndesc.qualname
        # numba knows a compiled function by such an object. This one is never called: no code.
        result = _dynfunc.make_function(
            lowered.fndesc.lookup_module(), name, name, 0, lowered.env, (library,)
        )
        library.finalize()
        state.targetctx.insert_user_function(result, lowered.fndesc, [library])
        state["cr"] = lowered._replace(cfunc=result)
        return True


class _Compiler(CompilerBase):  # type: ignore[misc]
    """numba's compiler with the passes of this module."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("kernels")
        # numba needs a wrapper for calls from Python of kernels alone.
        lowering = _DeviceLowering if self.state.flags.no_cpython_wrapper else _KernelLowering
        for step in (*_PASSES, lowering, typed_passes.NoPythonBackend):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


COMPILER = _Compiler


@contextmanager
def patched_numba() -> Iterator[None]:
    """Cache types of operators during the compilation of kernels, and disable the garbage
    collector, which would scan all objects of numba again and again."""
    collects = gc.isenabled()
    gc.disable()
    types.Function.get_call_type = _cached_call_type
    types.Dispatcher.get_call_type = _call_type_without_literals
    try:
        yield
    finally:
        types.Function.get_call_type = _operator_call_type
        types.Dispatcher.get_call_type = _function_call_type
        if collects:
            gc.enable()


_operator_call_type = types.Function.get_call_type
_function_call_type = types.Dispatcher.get_call_type
_call_types: dict[tuple[int, int, tuple[Any, ...]], tuple[Any, Any, Any, Any]] = {}


def _cached_call_type(self: Any, context: Any, args: tuple[Any, ...], kws: Any) -> Any:
    """Cached result of numba, which else tries all signatures of an operator at each call. The
    cache holds the operator, so that its identity stays unique."""
    if kws:
        return _operator_call_type(self, context, args, kws)
    key = (id(self), id(context), args)
    result = _call_types.get(key)
    if result is None:
        signature = _operator_call_type(self, context, args, kws)
        _call_types[key] = self, context, signature, self.get_impl_key(signature)
        return signature
    _, _, signature, implementation = result
    self._impl_keys[signature.args] = implementation
    return signature


def _call_type_without_literals(self: Any, context: Any, args: tuple[Any, ...], kws: Any) -> Any:
    """Result of numba for a call of a device function, with literal arguments replaced by their
    types."""
    if self.dispatcher._compiler.pipeline_class is COMPILER:
        args = tuple([types.unliteral(each) for each in args])
    return _function_call_type(self, context, args, kws)


_DIGEST_BYTES = 16


@functools.cache
def _processor() -> str:
    """Name of the instruction set for which numba compiles here, 8 hex digits."""
    target = repr(cpu_target.target_context.codegen().magic_tuple())
    return hashlib.blake2b(target.encode(), digest_size=4).hexdigest()


@functools.cache
def _define_helpers() -> None:
    """Make numba's functions that check and unpack arguments known to the linker."""
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


# Levels of the x86-64 psABI for which wheels carry machine code, the best first, and LLVM's names
# of what they add to the earlier level. `FEATURES`: settings of numba, with which LLVM uses the
# whole registers of AVX-512 in loops too.
LEVELS = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
}
FEATURES = {"x86-64-v4": "-prefer-256-bit", "x86-64-v3": "+avx2"}


def cpu_level() -> str | None:
    """Return the highest of LEVELS that this processor has; None if it has none, or if numba's
    settings name another processor."""
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return None
    host = llvm.get_host_cpu_features()
    needed = LEVELS["x86-64-v3"]
    if not all(host.get(name) for name in needed):
        return None
    return next(level for level, names in LEVELS.items() if all(host.get(each) for each in names))


def path(folder: Path, kernel: str, *, by_processor: bool = True) -> Path:
    """File of a kernel's code: for this processor, or in a folder for a level of processors."""
    return folder / (f"{kernel}.{_processor()}.code" if by_processor else f"{kernel}.code")


def read(file: Path) -> Any:
    """Read the code as numba's result of a compilation; None if there is none, or it is damaged.
    The file's content runs as code: no other user may be able to write to the folder."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if digest != _digest(body):
        return None
    _define_helpers()
    return CompileResult._rebuild(cpu_target.target_context, *pickle.loads(body))  # noqa: S301


def write(file: Path, compiled: Any) -> None:
    """Store numba's result of a compilation. A full disk is no error: the next process that needs
    the kernel compiles it."""
    body = serialize.dumps(compiled._reduce())
    begun = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        begun.write_bytes(_digest(body) + body)
        begun.replace(file)
    except OSError:
        with suppress(OSError):
            os.unlink(begun)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()

"""Compiled kernels: one explicit signature each, cached on disk, interpreter lock released.

The import of a module compiles nothing. A kernel has exactly one specialisation; it is compiled, or
loaded from the cache, by `Kernel.load` or by its first call, and never again. Processes that need
it at the same time compile it once (`run_once`, a file lock). No kernel starts threads: callers
call kernels on ranges from a `engine.ThreadPool`.

The cache folder is named by a digest of the sources of all kernels and of their imports, and never
mixes two versions. A wheel may carry machine code for levels of x86-64, which is read in place of
the cache where digest and processor match.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from simulators.compiler import folder as folders, numba_pipeline
from simulators.compiler.kernel_time import booked
from simulators.compiler.numba_pipeline import COMPILER, patched_numba

_DONE = b"+"
# Longest wait for another process that compiles a kernel, which takes up to 4 s of processor time,
# while no kernel of the folder is begun, as `ProgressDeadline` counts that process's time: one that
# was stopped does not keep others for long, and one that waits for a processor is waited for.
PATIENCE_S = 60.0
_POLL_S, _LOOK_S = 0.02, 0.5


class KernelLocked(Exception):
    """Another process does the work at this time."""


@contextmanager
def run_once(path: Path, *, wait: bool = True, patience_s: float | None = None) -> Iterator[None]:
    """Enter the block in one process at a time, until one has left it without an error: from then
    on no process waits. If the file cannot be made or locked, or another process has had
    `patience_s` of time (see `ProgressDeadline`) in which no file is made in its folder, there is
    no order. Raises KernelLocked instead of waiting if `wait` is false."""
    lock = -1 if is_done(path) else _opened(path)
    try:
        if lock >= 0 and not _locked(lock, path, patience_s if wait else 0.0) and not wait:
            raise KernelLocked
        yield
        if lock >= 0:
            with suppress(OSError):  # a full disk: the next process takes the lock, too
                os.pwrite(lock, _DONE, 0)
    finally:
        if lock >= 0:
            os.close(lock)


def _locked(lock: int, path: Path, patience_s: float | None) -> bool:
    """Lock a file within this time since a file was made next to it (None: without a limit); False:
    another process has it."""
    try:
        if patience_s is None:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return True
        from simenv.sandbox.progress import ProgressDeadline  # few processes wait

        changed, look_s = -1, 0.0
        deadline: ProgressDeadline | None = None
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                pass
            if not patience_s:
                return False
            if (now_s := time.monotonic()) >= look_s:
                look_s = now_s + _LOOK_S
                if deadline is None or changed != _changed_ns(path.parent):
                    changed = _changed_ns(path.parent)
                    deadline = ProgressDeadline(patience_s, _holder(lock))
                elif deadline.is_over:
                    return False
            time.sleep(_POLL_S)
    except OSError:  # a file system without locks
        return True


def _holder(lock: int) -> int:
    """Return the process that has the lock of a file; 0: the kernel does not tell, as of one on
    another machine. Source: proc_locks(5)."""
    info = os.fstat(lock)
    file = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, *words = line.split()
            if kind == "FLOCK" and words[3] == file:
                return max(0, int(words[2]))
    return 0


def _changed_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def is_done(path: Path) -> bool:
    """Return whether a process has left the block of this file without an error."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1


_HERE = Path(__file__).parents[1]  # all sources of simulators


def _without_blas() -> None:
    """Hide SciPy from numba while it checks for BLAS: no kernel calls it, and the import of
    scipy.linalg costs each process 0.2 s and 13 MB."""
    hidden = "scipy.linalg" not in sys.modules
    if hidden:
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        if hidden:
            del sys.modules["scipy.linalg"]


# Types of arguments and of fields of records, under these names in signatures. Read-only: views on
# received bytes.
BYTES = Annotated[bytes, types.Bytes(types.uint8, 1, "C")]
NAMES = Annotated[NDArray[np.int64], types.Array(types.int64, 2, "C")]  # the table of a circuit
U16 = Annotated[NDArray[np.uint16], types.Array(types.uint16, 1, "C", readonly=True)]
I32 = Annotated[NDArray[np.int32], types.Array(types.int32, 1, "C", readonly=True)]
F64 = Annotated[NDArray[np.float64], types.Array(types.float64, 1, "C", readonly=True)]
F64_2 = Annotated[NDArray[np.float64], types.Array(types.float64, 2, "C", readonly=True)]
I64 = Annotated[NDArray[np.int64], types.int64[::1]]
INTS2 = Annotated[NDArray[np.int64], types.int64[:, ::1]]
INTS3 = Annotated[NDArray[np.int64], types.int64[:, :, ::1]]
U8 = Annotated[NDArray[np.uint8], types.uint8[::1]]
SHORTS = Annotated[NDArray[np.uint16], types.uint16[::1]]
U32 = Annotated[NDArray[np.uint32], types.uint32[::1]]
U64 = Annotated[NDArray[np.uint64], types.uint64[::1]]
WORDS2 = Annotated[NDArray[np.uint64], types.uint64[:, ::1]]
REALS = Annotated[NDArray[np.float64], types.float64[::1]]
REALS2 = Annotated[NDArray[np.float64], types.float64[:, ::1]]
REALS3 = Annotated[NDArray[np.float64], types.float64[:, :, ::1]]
SINGLES = Annotated[NDArray[np.float32], types.float32[::1]]
COMPLEX = Annotated[NDArray[np.complex128], types.complex128[::1]]
INT = Annotated[int, types.int64]
WORD = Annotated[np.uint64, types.uint64]
REAL = Annotated[float, types.float64]
NUMBER = Annotated[complex, types.complex128]


def integer_fields(*names: str) -> np.dtype[np.void]:
    """Layout of rows of named integers."""
    return np.dtype([(name, np.int64) for name in names])


def structured(dtype: np.dtype[np.void]) -> Any:
    """Type of an array of one axis with named fields, to annotate a field of a record."""
    return types.Array(numba.from_dtype(dtype), 1, "C")


TYPES = {
    name: get_args(alias)[1] for name, alias in globals().items() if get_origin(alias) is Annotated
}


_Record = TypeVar("_Record", bound=tuple[Any, ...])


def record(cls: type[_Record]) -> type[_Record]:
    """Register a NamedTuple as a type of arguments, under its own name: arrays and numbers that
    kernels take together. Fields are annotated with the types above, and need them exactly: numba
    lets a writable array pass for a read-only one, and an int for a WORD, as an argument alone, not
    in a field."""
    if cls.__name__ in TYPES:
        raise ValueError(f"two records with the name {cls.__name__}")
    fields = get_type_hints(cls, include_extras=True).values()
    TYPES[cls.__name__] = types.BaseTuple.from_types([get_args(each)[1] for each in fields], cls)
    return cls


def signature_of(text: str) -> Any:
    """numba's signature of names of types and records, `NAMES U16 INT -> INT`; no arrow: nothing is
    returned. AMPLITUDES: of one state, in double and in single precision; one of the arrays is
    empty."""
    names, _, returned = text.replace("AMPLITUDES", "REALS SINGLES").partition("->")
    result = TYPES[returned.strip()] if returned else types.void
    return result(*(TYPES[name] for name in names.split()))


def sources_digest() -> str:
    """Digest of the kernels' sources, their compiler, and the interpreter and the major version of
    numpy, whose ABIs machine code uses; 16 hex digits."""
    result = hashlib.blake2b(digest_size=8)
    numpy_abi = np.__version__.partition(".")[0]
    result.update(f"{numba.__version__} {numpy_abi} {sys.implementation.cache_tag}".encode())
    for path, text in sorted(kernel_sources().items()):
        result.update(path.name.encode() + b"\0" + text)
    return result.hexdigest()


_digest = functools.cache(sources_digest)  # reading all sources takes 10 ms


def kernel_sources() -> dict[Path, bytes]:
    """Modules with compiled functions, this package, and all their imports at any depth. Changes of
    other modules cannot change machine code, so kernels stay valid. An import from a package counts
    as one of all its modules, unless the line names modules of it."""
    texts = {path: path.read_bytes() for path in _HERE.rglob("*.py")}
    pending = [
        path
        for path, text in texts.items()
        if path.parent.name == "compiler" or _COMPILED.search(text)
    ]
    entries: dict[Path, bytes] = {}
    while pending:
        path = pending.pop()
        if path in entries:
            continue
        entries[path] = texts[path]
        for package, names in _IMPORTS.findall(texts[path]):
            pending += _modules(texts, package.decode(), names.decode())
    return entries


_COMPILED = re.compile(rb"\n@(?:kernel|device_function|intrinsic)\b")
_IMPORTS = re.compile(rb"\nfrom simulators\.?([\w.]*) import ([^\n]*)")


def _modules(texts: dict[Path, bytes], package: str, names: str) -> list[Path]:
    """Files of one import line."""
    base = _HERE.joinpath(*package.split(".")) if package else _HERE
    if base.with_suffix(".py") in texts:
        return [base.with_suffix(".py")]
    named = [base / f"{name.split()[0]}.py" for name in names.split(",") if name.strip("( ")]
    modules = [path for path in named if path in texts]
    return [base / "__init__.py", *(modules or [p for p in texts if p.parent == base])]


def version(folder: Path) -> Path:
    """Folder under `folder` for the kernels of this version."""
    return folder / f"kernels-{_digest()}"


def _folder() -> Path:
    """Folder of this version's kernels, in the folder of this process."""
    return _made(version(folders.current()))


@functools.cache
def _made(folder: Path) -> Path:
    with suppress(OSError):  # a full disk: kernels are compiled, and not stored
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


_PACKAGED = _HERE / "compiler" / "machine_code"


@functools.cache
def packaged() -> Path | None:
    """Folder of the machine code that this installation carries for this version and processor;
    None: it carries none. It is complete, and as trusted as the sources."""
    folder = version(_PACKAGED)
    if not folder.is_dir():
        return None
    level = numba_pipeline.cpu_level()
    return folder / level if level and (folder / level).is_dir() else None


# Without numba's reference counts a kernel allocates nothing, is entered in half the time, and its
# inner calls are free (they took 50 ns a gate); scratch arrays are arguments.
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False, "pipeline_class": COMPILER}


# Time and place of the compilation or loading of a kernel: see `warmup`.
Group = Literal[
    "small",  # by a worker before it is ready: counts of circuits of at most SMALL_QUBITS qubits
    "admission",  # by a service before it is ready: the checks of a circuit
    "light_cone",  # by a service once it is ready: the checks of a wide circuit
    "wide",  # by an idle worker: planning and sweeps of wide states in double precision
    "deferred",  # by an idle worker, after these: all other outputs and options
    "distributed",  # by a worker of several ranks
    "gradient",  # by the first task that asks for a gradient
    "attachment",  # by a service that was asked for a device: the checks of a circuit with noise
    "noise",  # by the first task with a noise model, or an idle worker
    "trajectories",  # by the first task with noise that this engine runs
    "sweeps",  # by the first task of engine `sweep`, or of counts by `contraction`
    "pauli",  # by the first task of engine `pauli`
    "rydberg",  # by the first task of engine `rydberg`
    "transfer",  # by the first fit or prediction of distributions
]


class Kernel:
    """Function compiled for one signature; a call loads it first if necessary. The types of
    arguments are checked at each call, or at the first one if there are records among them: numba
    takes as long as a small circuit to find the type of a record."""

    __slots__ = ("_call", "_code", "_dispatcher", "_lock", "_signature", "group", "name", "py_func")

    def __init__(
        self, function: Callable[..., Any], signature: Any, group: Group, precision: str = ""
    ) -> None:
        self.py_func = function
        suffix = f"_{precision}" if precision else ""
        self.name = f"{function.__module__}.{function.__qualname__}{suffix}"
        self.group: Group = group
        self._signature = signature
        self._dispatcher: Any = None
        self._code: Any = None
        self._call: Any = None
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        if self._call is not None:
            return self._call(*args)
        if self._dispatcher is None:
            self.load()
        result = self._dispatcher(*args)
        has_records = any(isinstance(each, types.BaseTuple) for each in self._signature.args)
        self._call = self._code if has_records else self._dispatcher
        return result

    def __repr__(self) -> str:
        return f"<kernel {self.name}, {'loaded' if self.is_loaded else 'not loaded'}>"

    @property
    def module(self) -> str:
        return str(self.py_func.__module__)

    @property
    def is_loaded(self) -> bool:
        """True if this process has loaded its machine code."""
        return self._dispatcher is not None

    @property
    def is_stored(self) -> bool:
        """True if it need not be compiled: a process has compiled it into the folder of this one,
        or the installation carries its machine code."""
        return self._packaged() is not None or is_done(self._mark())

    @property
    def entry_point(self) -> Callable[..., Any]:
        """Machine code, loaded if necessary. It does not check argument types, which halves the
        cost of a call: for callers that are sure of the types."""
        if self._code is None:
            self.load()
        return self._code  # type: ignore[no-any-return]

    def load(self, *, wait: bool = True) -> bool:
        """Load the machine code from the cache, or compile it; any thread may call this. Processes
        that need it at the same time compile it once: the others wait for the first, while kernels
        are begun and for PATIENCE_S after the last, or, with `wait=False`, return False at once. A
        waiting caller makes its group wanted."""
        if self._dispatcher is not None:
            return True
        if wait and not self.is_stored:
            want(self.group)
        with self._lock:
            if self._dispatcher is not None:
                return True
            path = self._packaged()
            once = (
                nullcontext() if path else run_once(self._mark(), wait=wait, patience_s=PATIENCE_S)
            )
            try:
                with booked(), once, _compiling, patched_numba():
                    dispatcher = self._loaded(path)
                    (overload,) = dispatcher.overloads.values()
                    self._code, self._dispatcher = overload.entry_point, dispatcher
            except KernelLocked:
                return False
        return True

    def _packaged(self) -> Path | None:
        """File of the installation's machine code; None if there is none."""
        folder = packaged()
        path = numba_pipeline.path(folder, self.name, by_processor=False) if folder else None
        return path if path is not None and path.exists() else None

    def _loaded(self, packaged: Path | None) -> Any:
        """numba's dispatcher, with the machine code."""
        dispatcher = numba.njit(no_cfunc_wrapper=True, **_OPTIONS)(self.py_func)
        file = numba_pipeline.path(_folder(), self.name)
        code = numba_pipeline.read(packaged) if packaged else None
        if code is None:
            code = numba_pipeline.read(file)
        if code is not None:
            dispatcher.add_overload(code)
        else:
            _without_blas()
            dispatcher.compile(self._signature)
            numba_pipeline.write(file, *dispatcher.overloads.values())
        dispatcher.disable_compile()
        return dispatcher

    def _mark(self) -> Path:
        return _folder() / "begun" / self.name


def want(group: Group) -> None:
    """Let processes that compile ahead begin with the kernels of this group."""
    with suppress(OSError):  # they come later, then
        _wanted(group).touch()


def is_wanted(group: Group) -> bool:
    """Return whether a task waits for kernels of this group, or will."""
    return _wanted(group).exists()


def _wanted(group: Group) -> Path:
    return _folder() / f"{group}.wanted"


_compiling = threading.Lock()  # numba's settings belong to the process
_kernels: dict[str, Kernel] = {}


def kernels(*groups: Group) -> tuple[Kernel, ...]:
    """Kernels of these groups, in the order of the groups, whose modules have been imported."""
    return tuple(
        each for group in groups for each in tuple(_kernels.values()) if each.group == group
    )


def kernel(
    signature: str, *, group: Group, precision: str = ""
) -> Callable[[Callable[..., Any]], Kernel]:
    """Register a function as a kernel for one signature (see `signature_of`), callable from Python.
    The function may be a `device_function`, which other kernels call. `precision`: part of the
    name, for a function with a kernel for each precision."""

    def registered(function: Callable[..., Any]) -> Kernel:
        python_function = getattr(function, "py_func", function)
        built = Kernel(python_function, signature_of(signature), group, precision)
        _kernels[built.name] = built
        return built

    return registered


def device_function(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call: it becomes part of each of them."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def inline_function(function: Callable[..., Any]) -> Any:
    """Compile a function that is always inlined, because the call would cost as much as its
    work."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True, **_OPTIONS)(
        function
    )

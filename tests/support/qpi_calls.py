"""Calls of the C library in the process of a test."""

import ctypes
from typing import Any

import numpy as np

from simenv.frontends.qpi import InstalledLibrary


class Config(ctypes.Structure):
    """`qpi_config`."""

    _fields_ = (
        ("struct_bytes", ctypes.c_size_t), ("environment", ctypes.c_char_p),
        ("url", ctypes.c_char_p), ("token", ctypes.c_char_p), ("timeout_s", ctypes.c_double),
        ("patience_s", ctypes.c_double),
    )  # fmt: skip


class Options(ctypes.Structure):
    """`qpi_options` before `noise` was appended."""

    _fields_ = (
        ("struct_bytes", ctypes.c_size_t), ("shots", ctypes.c_int64), ("has_seed", ctypes.c_int),
        ("seed", ctypes.c_uint64), ("outputs", ctypes.c_uint), ("observables", ctypes.c_void_p),
        ("num_observables", ctypes.c_size_t), ("device", ctypes.c_char_p),
        ("engine", ctypes.c_char_p), ("single_precision", ctypes.c_int),
        ("priority", ctypes.c_int64), ("queue_timeout_s", ctypes.c_double),
        ("run_timeout_s", ctypes.c_double), ("name", ctypes.c_char_p),
        ("idempotency_key", ctypes.c_char_p),
    )  # fmt: skip


class AllOptions(ctypes.Structure):
    """`qpi_options` with the fields that were appended."""

    _fields_ = (
        *Options._fields_, ("noise", ctypes.c_void_p), ("num_noise", ctypes.c_size_t),
        ("account", ctypes.c_char_p), ("qos", ctypes.c_char_p), ("reservation", ctypes.c_int64),
    )  # fmt: skip


class Observable(ctypes.Structure):
    """`qpi_observable`."""

    _fields_ = (
        ("labels", ctypes.POINTER(ctypes.c_char_p)),
        ("coefficients", ctypes.POINTER(ctypes.c_double)),
        ("terms", ctypes.c_size_t),
    )


class CallError(RuntimeError):
    """A call that failed, with its text."""

    def __init__(self, status: int, message: str, job: int | None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.job = job  # that it gave all the same


class Library:
    """Calls of the library; those that fail raise CallError."""

    def __init__(self, library: InstalledLibrary) -> None:
        self._lib = ctypes.CDLL(str(library.library))
        self._lib.qpi_error_message.restype = ctypes.c_char_p
        self._lib.qpi_error_hint.restype = ctypes.c_char_p
        self._lib.qpi_error_retry_after_s.restype = ctypes.c_double
        self._lib.qpi_submit.argtypes = [
            *[ctypes.c_void_p] * 4, ctypes.c_size_t, ctypes.c_double, ctypes.c_void_p,
        ]  # fmt: skip
        self._lib.qpi_wait.argtypes = [ctypes.c_void_p, ctypes.c_double]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def call(self, name: str, *arguments: object) -> None:
        status = getattr(self._lib, name)(*arguments)
        if status:
            raise CallError(status, self._lib.qpi_error_message().decode(), None)

    def made(self, name: str, *arguments: object) -> ctypes.c_void_p:
        pointer = ctypes.c_void_p()
        try:
            self.call(name, *arguments, ctypes.byref(pointer))
        except CallError as error:
            error.job = pointer.value
            raise
        return pointer

    def options(self, **values: object) -> Options:
        options = Options()
        self._lib.qpi_options_init(ctypes.byref(options))
        for name, value in values.items():
            setattr(options, name, value)
        return options

    def all_options(self, **values: object) -> AllOptions:
        options = AllOptions()
        size = ctypes.c_size_t(ctypes.sizeof(options))
        self._lib.qpi_options_init_sized(ctypes.byref(options), size)
        for name, value in values.items():
            setattr(options, name, value)
        return options

    def submit(
        self,
        session: ctypes.c_void_p,
        text: str,
        options: Options | AllOptions,
        rows: np.ndarray | None = None,
        timeout_s: float = 60.0,
    ) -> ctypes.c_void_p:
        circuit = self.made("qpi_circuit_from_qasm", text.encode())
        value = None if rows is None else rows.ctypes.data
        count = 1 if rows is None else len(rows)
        given = session, circuit, ctypes.addressof(options), value, count, timeout_s
        try:
            return self.made("qpi_submit", *given)
        finally:
            self._lib.qpi_circuit_free(circuit)

    def run(
        self,
        session: ctypes.c_void_p,
        text: str,
        options: Options | AllOptions,
        rows: np.ndarray | None = None,
    ) -> ctypes.c_void_p:
        """A job that has ended."""
        job = self.submit(session, text, options, rows)
        self.call("qpi_wait", job, 120.0)
        return job

    def counts(self, job: ctypes.c_void_p, row: int = 0) -> dict[str, int]:
        outcomes, table = ctypes.c_size_t(), {}
        self.call("qpi_counts_size", job, ctypes.c_size_t(row), ctypes.byref(outcomes))
        for index in range(outcomes.value):
            bits, count = ctypes.create_string_buffer(200), ctypes.c_uint64()
            self.call(
                "qpi_counts_entry", job, ctypes.c_size_t(row), ctypes.c_size_t(index), bits,
                ctypes.c_size_t(len(bits)), ctypes.byref(count),
            )  # fmt: skip
            table[bits.value.decode()] = count.value
        return table

    def statevector(self, job: ctypes.c_void_p, row: int, qubits: int) -> np.ndarray:
        array = np.empty(1 << qubits, np.complex128)
        self.call(
            "qpi_statevector", job, ctypes.c_size_t(row), ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(len(array)),
        )  # fmt: skip
        return array

    def end(self, session: ctypes.c_void_p, *jobs: ctypes.c_void_p) -> None:
        for job in jobs:
            self._lib.qpi_job_free(job)
        self._lib.qpi_finalize(session)

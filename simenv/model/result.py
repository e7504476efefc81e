"""Results of tasks in encoded form, with provenance and timing."""

from __future__ import annotations

import msgspec

from simenv.model.task import EngineOptions

RESULT_FORMAT = 2


class StoredArray(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An array of a ResultData that lies in a file, contiguous and little-endian."""

    field: str  # of ResultData
    dtype: str  # numpy's: "<c16"
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file
    size_bytes: int
    checksum: int  # CRC-32


class ResultFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """File with the large arrays of a result. `name` is relative to the environment's results
    folder."""

    name: str
    size_bytes: int
    checksum: int  # CRC-32 of all bytes outside the arrays, in order
    arrays: tuple[StoredArray, ...]  # by offset


class DeviceRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The emulated device that a result is of, and how the program was compiled for it."""

    name: str  # "": a noise model of the caller's own, without a device
    snapshot: str  # hex digest of the noise document
    calibrated_s: float = 0.0  # wall clock of the calibration, seconds since 1970; 0: not known
    noise: tuple[tuple[str, float], ...] = ()  # factors of components; (): all as calibrated
    compiled: str = ""  # compiler, level and seed; "": the program ran as it was written
    layout: bytes = b""  # uint16: the device's qubit of each at the circuit's end; b"": the same
    gates: tuple[tuple[str, int], ...] = ()  # gates of the program that ran, by name
    initial_layout: bytes = b""  # as `layout`, at its beginning
    warnings: tuple[str, ...] = ()  # noise that does not act as asked, or was fitted to others
    stale: bool = False  # compiled for another calibration than the one in force at the start


class ResultData(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Output of an engine for all rows of a task. The worker packs it; the service forwards it
    without decoding.

    Row r belongs to binding number `binding` + r. An outcome is one row of `outcome_width` bytes,
    little-endian, clbit 0 in bit 0 of byte 0. Rows differ in their numbers of distinct outcomes:
    their parts of `outcomes` and `counts` follow one another, with the lengths in `rows`.
    """

    format: int
    registers: tuple[tuple[str, int], ...]  # of the program; (): it measures nothing
    num_qubits: int
    shots: int  # of each row
    seed: int
    outcome_width: int = 0  # 1, 2, 4, 8, or ceil(clbits / 8) beyond 64 clbits
    outcomes: bytes = b""  # each row's distinct outcomes, ascending
    counts: bytes = b""  # uint32, one for each outcome
    # Exact distribution over the clbits, or over the qubits if the circuit measures nothing.
    probability_outcomes: bytes = b""  # as above, of `probability_width` bytes
    probability_width: int = 0
    probabilities: bytes = b""  # float64, one for each outcome
    # complex128 or complex64 [count, 2**num_qubits], qubit 0 = lowest index bit
    statevector: bytes = b""
    expectations: bytes = b""  # float64 [count, observables, 2]: value, standard error
    truncation: float = 0.0  # the largest of the rows
    remark: str = ""  # e.g. "12 branches"
    precision: str = "double"
    binding: int = 0  # number of row 0 in the caller's sweep: part of the random key
    count: int = 1  # rows
    rows: bytes = b""  # uint32 [count]: distinct outcomes of each row; b"": one row has them all
    probability_rows: bytes = b""  # the same of `probability_outcomes`
    file: ResultFile | None = None  # holds the arrays too large for a message, which are b"" here
    options: EngineOptions = ()  # as submitted; all others have the engine's defaults
    gradients: bytes = b""  # float64 [count, observables, parameters]
    device: DeviceRecord | None = None  # None: an ideal one
    # uint8 [count, shots, ceil(clbits / 8)]: clbit c of a shot in bit c % 8 of byte c // 8
    memory: bytes = b""
    value: bytes = b""  # of a call: see `simenv.model.calls`


class AmplitudeResultData(ResultData, frozen=True, array_like=True, gc=False):
    """ResultData with the output `amplitudes`. Results without it are encoded as a ResultData, and
    decoded as this with empty arrays."""

    bit_strings: bytes = b""  # ASCII 0 and 1 [strings, num_qubits], highest qubit first
    amplitudes: bytes = b""  # complex128 or complex64 [count, strings]


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """The worker that computed a result; shared by all results of one message."""

    worker: str
    node: str  # where its ranks were, each node once: "node1,node2"
    pid: int  # of its first rank
    version: str
    ranks: int = 1


class Timing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Microseconds spent in each stage of one task, as the service and worker measured them."""

    queued_us: int  # accepted -> sent to a worker
    sent_us: int  # at the worker -> begun: behind the others of its chunk
    run_us: int  # in the worker: the next four stages, and the short times between them
    decode_us: int = 0  # bytes to circuit
    plan_us: int = 0  # the engine's plan, cached or new; the load of the engine at its first use
    engine_us: int = 0  # inside the engine: evolving and sampling
    encode_us: int = 0  # result to bytes
    returned_us: int = 0  # transport in both directions, and waiting for the rest of its message
    compile_us: int = 0  # kernels compiled or loaded, once in a worker; not a part of `run_us`
    device_ns: int = 0  # on the emulated device, by its calibration; 0: on none, or not known
    begun_ns: int = 0  # on a paced device: wall clock of its begin there, since 1970; 0: not paced

"""Descriptions of engines, and of pools as devices: qubits, gates, coupling, measured properties.

An ideal simulator has no measured properties; those of hardware are from its own description.
Unknown numbers are NaN.
"""

from __future__ import annotations

import enum
import functools
import math
from datetime import UTC, datetime

import msgspec

from simenv.model.paradigms import CIRCUIT_FORMATS
from simenv.model.program import is_gate


class GateInfo(msgspec.Struct, frozen=True, array_like=True):
    """A gate by its name; `qubits` -1: any number."""

    name: str
    qubits: int
    params: int


class EngineInfo(msgspec.Struct, frozen=True):
    """Capabilities of an engine in this environment."""

    name: str
    summary: str
    outputs: tuple[str, ...]
    precisions: tuple[str, ...]
    dynamic: bool  # mid-circuit measurement, reset, if
    clifford: bool  # Clifford circuits alone
    max_qubits: int  # in this environment's memory, double precision
    missing: str  # command that installs it; "": it is installed
    gates: tuple[GateInfo, ...]


UNKNOWN = math.nan
LONGEST_NS = 10**18  # time of a task on its device, 31.7 years; messages carry 64-bit integers


@functools.lru_cache(maxsize=64)
def wall_clock_s(moment: str) -> float:
    """Seconds since 1970 of an ISO 8601 time, which is in UTC if it names no zone; 0.0 if the text
    is no such time."""
    try:
        result = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    return (result if result.tzinfo else result.replace(tzinfo=UTC)).timestamp()


_DATE_NAME = "%Y%m%dT%H%M%S.%fZ"


def date_name(time_s: float) -> str:
    """Name, without its ending, of the file of a calibration that came at a time (seconds since
    1970)."""
    return datetime.fromtimestamp(time_s, UTC).strftime(_DATE_NAME)


def dated_s(name: str) -> float:
    """Time of a name that `date_name` made; 0.0 for another name."""
    try:
        return datetime.strptime(name, _DATE_NAME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def device_time_ns(shots: int, circuits: int, overhead_ns: float, shot_ns: float) -> int:
    """Time of a device for circuits with `shots` shots each: circuits overhead_ns + shots shot_ns.
    `shot_ns` is the sum of the times of one shot of each circuit. 0 for exact results (no shots),
    which no device gives. Longer times than `LONGEST_NS` are limited to it; tasks whose time is
    known at their acceptance are refused then."""
    return round(min(circuits * overhead_ns + shots * shot_ns, LONGEST_NS)) if shots else 0


class DeviceKind(enum.StrEnum):
    """Kind of device that a pool represents."""

    IDEAL = "ideal"  # a simulator without errors: every qubit coupled with every other
    EMULATED = "emulated"  # a simulator with a machine's errors, couplings and gates
    HARDWARE = "hardware"  # a machine


class CalibrationSource(enum.StrEnum):
    """Source of the calibration of an emulated device."""

    IMPORTED = "imported"  # a file of SIMENV_HOME/devices
    BUNDLED = "bundled"
    INSTALLED = "qiskit-ibm-runtime"
    STORED = "stored"  # by an environment: the machine of linked QPUs that a client described


class QubitInfo(msgspec.Struct, frozen=True, array_like=True):
    """Measured properties of one qubit."""

    t1_us: float = UNKNOWN
    t2_us: float = UNKNOWN
    frequency_ghz: float = UNKNOWN
    readout_error: float = UNKNOWN  # a probability
    readout_ns: float = UNKNOWN
    t2_star_us: float = UNKNOWN  # of a Ramsey experiment; `t2_us` is that of an echo
    memory_error: float = UNKNOWN  # average infidelity by a layer of gates on two qubits
    measure_decay: float = UNKNOWN  # probability that a measurement leaves 1 in 0
    measure_excitation: float = UNKNOWN  # probability that a measurement leaves 0 in 1
    leaked_readout: float = UNKNOWN  # probability that it is read as 1 in its third level


class OperationInfo(msgspec.Struct, frozen=True, array_like=True):
    """One gate on an ordered tuple of qubits; (): on all that the device couples."""

    name: str
    qubits: tuple[int, ...]
    error: float = UNKNOWN  # average gate infidelity
    duration_ns: float = UNKNOWN
    leakage: float = UNKNOWN  # mean probability to leave the computational states
    seepage: float = UNKNOWN  # probability that a leaked qubit comes back


class TermInfo(msgspec.Struct, frozen=True, array_like=True):
    """A further calibrated quantity, wherever it was measured. A place is a qubit, the qubits of a
    gate or pair, or a measured qubit and one that this disturbs; (): all without a place of their
    own."""

    name: str  # field of the snapshot, or gate and quantity, as "cz leakage"
    title: str
    unit: str
    places: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]  # one for each place


class LayerInfo(msgspec.Struct, frozen=True, array_like=True):
    """Two-qubit gates that act at the same time and have an error together."""

    gates: tuple[str, ...]  # with their qubits, as "cz 0-1"
    qubits: tuple[int, ...]  # of the gates and around them
    rates: int  # number of Pauli generators
    error: float  # sum of the probabilities of all Pauli errors
    calibrated_s: float = 0.0  # seconds since 1970; 0: not known


class AngleLimits(msgspec.Struct, frozen=True, array_like=True):
    """Smallest and largest angle of each parameter of a gate, in radians."""

    gate: str
    bounds_rad: tuple[tuple[float, float], ...]


# Name of a device that is a stored calibration: the first digits of its digest, in hexadecimal.
MACHINE_PREFIX = "machine-"
MACHINE_DIGITS = 32


class ModuleInfo(msgspec.Struct, frozen=True, array_like=True):
    """A QPU of a device that consists of several."""

    name: str
    qubits: tuple[int, ...]
    communication: tuple[int, ...]  # of its qubits: those of links


class LinkInfo(msgspec.Struct, frozen=True, array_like=True):
    """A link, which makes Bell pairs of one communication qubit of each of two modules."""

    pair: tuple[int, int]
    fidelity: float  # of a pair
    wait_ns: float = 0.0  # mean time until a pair is there
    latency_ns: float = 0.0  # of a classical message


class LogicalInfo(msgspec.Struct, frozen=True, array_like=True):
    """Origin of a device's qubits, which are logical: a code on the qubits of a chip. The errors
    of the device are those that decoding leaves."""

    code: str
    distance: int
    decoder: str
    chip: str
    chip_digest: str  # of the chip's calibration
    options: str  # with which the errors were sampled
    shots: int
    physical_qubits: int  # of one logical qubit
    round_ns: float  # of one round of syndrome measurements
    deadline_ns: float = 0.0  # of the decoder for a round; 0: none
    suppression: tuple[float, float] | None = None  # errors / those at the next distance, X and Z
    extrapolated: bool = False  # from a smaller distance
    # The chip's qubits of each patch on it: data qubits by rows, then ancillas.
    patches: tuple[tuple[int, ...], ...] = ()


class AnalogInfo(msgspec.Struct, frozen=True, array_like=True):
    """What a device runs pulse sequences with; its noise is among the terms."""

    device: str  # abstract representation of a device of pulser-core
    shot_ns: float  # of one shot, without the sequence
    overhead_ns: float  # of each task
    uncalibrated: tuple[str, ...] = ()  # titles of noise that was not measured


class DeviceInfo(msgspec.Struct, frozen=True):
    """One pool as a device. `all_to_all`: all pairs are coupled, and `coupling` is empty. The
    operations that it has, and where, are those of `availability`."""

    name: str  # the pool's
    kind: DeviceKind
    provider: str  # "simenv", or the provider that the machine names
    model: str  # the machine's own name; of a simulator, the preferred engine
    version: str
    technology: str  # "simulator", "superconducting", "trapped-ion", "neutral-atom"
    num_qubits: int
    max_shots: int
    gates: tuple[GateInfo, ...]  # native: by name, with the number of qubits and parameters
    all_to_all: bool
    directed: bool = False
    coupling: tuple[tuple[int, int], ...] = ()
    operations: tuple[OperationInfo, ...] = ()
    qubits: tuple[QubitInfo, ...] = ()  # empty, or one for each
    dynamic: bool = False  # mid-circuit measurement, reset and conditions
    calibration_id: str = ""  # "": nothing was ever measured
    calibrated_s: float = 0.0  # wall clock of the calibration, seconds since 1970; 0: not known
    dt_ns: float = UNKNOWN  # resolution of its clock
    formats: tuple[str, ...] = CIRCUIT_FORMATS
    unusable: tuple[int, ...] = ()  # numbers that name no qubit, or one that does not work
    angle_limits: tuple[AngleLimits, ...] = ()  # of gates whose angles are limited
    problem: str = ""  # reason why an emulated device has no calibration, and nothing else is known
    # Of its qubits in a drawing: x to the right, y down; (): not known.
    coordinates: tuple[tuple[float, float], ...] = ()
    layers: tuple[LayerInfo, ...] = ()  # with learned errors
    terms: tuple[TermInfo, ...] = ()  # all quantities but T1, T2, errors, durations, frequencies
    refused_fit: str = ""  # reason for which its fit to counts was refused; it was stored by force
    modules: tuple[ModuleInfo, ...] = ()  # QPUs that it consists of; (): it is one QPU
    links: tuple[LinkInfo, ...] = ()  # between modules
    logical: LogicalInfo | None = None  # None: its qubits are physical
    # Formats that the pool would run with packages that are not installed, and the command that
    # installs them.
    missing_formats: tuple[tuple[str, str], ...] = ()
    analog: AnalogInfo | None = None  # None: it runs circuits; else pulse sequences
    # Gates beside `gates` that circuits may have, and that compiled ones have on request.
    fractional_gates: tuple[GateInfo, ...] = ()

    @property
    def is_discrete(self) -> bool:
        """True if no native gate has an angle: a rotation becomes a sequence of gates, of T on
        logical qubits, that depends on its number."""
        return bool(self.gates) and not any(gate.params for gate in self.gates)

    def width(self, operation: OperationInfo) -> int:
        """Return the number of qubits of a gate; 0: no gate, or one of any number of qubits."""
        if not is_gate(operation.name):
            return 0
        if operation.qubits:
            return len(operation.qubits)
        return next((max(0, gate.qubits) for gate in self.gates if gate.name == operation.name), 0)

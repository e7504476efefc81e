"""Description of a pool as a device: qubits, gates, coupling, and measured properties.

An ideal simulator has no measured properties; those of hardware are from its own description.
Unknown numbers are NaN.
"""

from __future__ import annotations

import enum
import functools
import math
from datetime import UTC, datetime

import msgspec

from simenv.model.views import GateInfo

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


def device_time_ns(shots: int, circuits: int, overhead_ns: float, shot_ns: float) -> int:
    """Time of a device for circuits with `shots` shots each: circuits overhead_ns + shots shot_ns.

    `shot_ns` is the sum of the times of one shot of each circuit. 0 for exact results (no shots),
    which no device gives. Longer times than `LONGEST_NS` are limited to it; tasks whose time is
    known at their acceptance are refused then.
    """
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


class QubitInfo(msgspec.Struct, frozen=True, array_like=True):
    """Measured properties of one qubit."""

    t1_us: float = UNKNOWN
    t2_us: float = UNKNOWN
    frequency_ghz: float = UNKNOWN
    readout_error: float = UNKNOWN  # a probability
    readout_ns: float = UNKNOWN


class OperationInfo(msgspec.Struct, frozen=True, array_like=True):
    """One gate on an ordered tuple of qubits."""

    name: str
    qubits: tuple[int, ...]
    error: float = UNKNOWN  # average gate infidelity
    duration_ns: float = UNKNOWN


class DeviceInfo(msgspec.Struct, frozen=True):
    """One pool as a device. `all_to_all`: all pairs are coupled, and `coupling` is empty."""

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
    formats: tuple[str, ...] = ("openqasm2", "openqasm3", "qpy")
    problem: str = ""  # reason why an emulated device has no calibration, and nothing else is known

"""What a pool says of itself, in words: only who asks learns it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING

from simenv.errors import SimenvError
from simenv.model.devices import DeviceInfo

if TYPE_CHECKING:
    from simenv.client.client import Client

UNKNOWN = "not known"
_NO_CLIFFORD = "OPENQASM 2.0;\nqreg q[1];\nu3(0.1,0,0) q[0];\n"


def facts(device: DeviceInfo, client: Client) -> dict[str, str]:
    """By name, the same names for every pool."""
    return {
        "kind": str(device.kind),
        "provider": device.provider,
        "model": device.model,
        "technology": device.technology,
        "qubits": str(device.num_qubits),
        "gates": ", ".join(sorted(gate.name for gate in device.gates)),
        "couplings": _couplings(device),
        "largest number of shots": str(device.max_shots),
        "measures and branches on the way": _yes(device.dynamic),
        "circuit formats": ", ".join(device.formats),
        "statevectors": _yes(_takes_amplitudes(client, device.name)),
        "calibration": device.calibration_id or "none",
        "error of a gate of two qubits": _middle(
            each.error for each in device.operations if len(each.qubits) == 2
        ),
        "error of reading": _middle(qubit.readout_error for qubit in device.qubits),
        "T1 (us)": _middle(qubit.t1_us for qubit in device.qubits),
        "T2 (us)": _middle(qubit.t2_us for qubit in device.qubits),
    }


def _couplings(device: DeviceInfo) -> str:
    if device.all_to_all:
        return "every pair"
    way = "directed" if device.directed else "both ways"
    return f"{len(device.coupling)} pairs, {way}"


def _middle(values: Iterable[float]) -> str:
    """The median of those that are known."""
    known = [value for value in values if not math.isnan(value)]
    return f"{median(known):.3g} (median)" if known else UNKNOWN


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _takes_amplitudes(client: Client, pool: str) -> bool:
    try:
        found = client.explain(_NO_CLIFFORD, pool=pool, shots=None, outputs="statevector")
    except SimenvError:
        return False
    return bool(found.engine)

"""Targets of devices, cached by calibration, and the Target of an ideal pool.

A Target of 156 qubits takes a tenth of a second to make; backends of one calibration share it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from qiskit.circuit import Delay, Measure, Parameter, Reset
from qiskit.circuit.controlflow import (
    BreakLoopOp,
    ContinueLoopOp,
    ForLoopOp,
    IfElseOp,
    SwitchCaseOp,
    WhileLoopOp,
)
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.transpiler import Target

from simenv.client.client import Client
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.transpiler.target import target_of

_KEPT = 16
_CONTROL_FLOW = {
    "if_else": IfElseOp,
    "while_loop": WhileLoopOp,
    "for_loop": ForLoopOp,
    "switch_case": SwitchCaseOp,
    "break_loop": BreakLoopOp,
    "continue_loop": ContinueLoopOp,
}
_NO_GATES = ("measure", "reset", "delay", "barrier")
_known: OrderedDict[tuple[str, str], Target] = OrderedDict()
_lock = threading.Lock()


def device_target(info: DeviceInfo) -> Target:
    """Target of a calibrated device: gates, couplings, durations in seconds and errors."""
    key = info.name, info.calibration_id
    with _lock:
        result = _known.get(key) if info.calibration_id else None
        if result is None:
            result = _known[key] = target_of(info)
            if len(_known) > _KEPT:
                _known.popitem(last=False)
        _known.move_to_end(key)
        return result


def ideal_target(info: DeviceInfo) -> Target:
    """Target of an ideal pool, with any number of qubits and all pairs coupled: the gates of the
    pool that Qiskit knows, measurement, reset, delays and control flow."""
    target = Target(description=f"simenv pool {info.name}", num_qubits=None)
    standard = get_standard_gate_name_mapping()
    for gate in info.gates:
        if gate.name in standard and gate.name not in _NO_GATES:
            target.add_instruction(standard[gate.name])
    for instruction in (Measure(), Reset(), Delay(Parameter("t"))):
        target.add_instruction(instruction)
    for name, kind in _CONTROL_FLOW.items():
        target.add_instruction(kind, name=name)
    return target


def ideal_info(client: Client, pool: str | None) -> DeviceInfo:
    """Description of an ideal backend: the named pool, else the first simulator, else the first
    pool."""
    pools = client.devices()
    if pool is not None and pool in pools:
        return pools[pool]
    ideal = [info for info in pools.values() if info.kind is DeviceKind.IDEAL]
    return (ideal or list(pools.values()))[0]

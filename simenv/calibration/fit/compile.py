"""Compilation of measured circuits for a device, like a submit, with the places of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.data.records import CountsRecord, DataError
from simenv.client.devices.compiler import Compiler
from simenv.errors import SimenvError
from simenv.service.devices.describe import device_info
from simenv.transpiler.limits import LEVEL
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error

if TYPE_CHECKING:
    from simenv.client.circuits import PackedCircuit


class CompiledRun(msgspec.Struct, frozen=True, eq=False):
    """Circuit on the device's qubits. `was_placed`: True if the compiler chose them; level 0 uses
    qubits 0, 1, 2, ..."""

    circuit: Circuit
    loaded: PackedCircuit
    was_placed: bool


class DeviceCompiler:
    """Compiler for one snapshot, like `Client.submit` with `compile="auto"`; a record that states
    its compilation level is compiled at that level."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        self._info = device_info(snapshot.name, snapshot, snapshot.digest.hex())
        self._compilers: dict[int, Compiler] = {}
        self._known: dict[tuple[str, tuple[int, ...], int], CompiledRun] = {}

    def run_of(self, record: CountsRecord) -> CompiledRun:
        """Compiled circuit of a record. Raises DataError for a circuit that the device cannot
        run."""
        key = (record.source.text, record.layout, record.level)
        result = self._known.get(key)
        if result is None:
            result = self._known[key] = self._compiled(record)
        return result

    def _compiled(self, record: CountsRecord) -> CompiledRun:
        try:
            compiler = self._compilers.get(record.level)
            if compiler is None:
                level = LEVEL if record.level < 0 else record.level
                compiler = self._compilers[record.level] = Compiler(self._info, level)
            built = compiler.compiled(record.source.loaded, "auto", record.layout)
        except SimenvError as error:
            raise DataError(
                f"{record.label} on device {self.snapshot.name}: {error.message}",
                hint=error.hint,
            ) from error
        circuit = Circuit.from_program(built.loaded.program)
        if text := validation_error(circuit):
            raise DataError(f"{record.label}: {text}")
        is_free = bool(built.compiler) and not record.layout and record.level != 0
        return CompiledRun(circuit, built.loaded, is_free)

"""Transpilation of Qiskit circuits to a device, by its preset pass managers with a fixed seed.

A compiled circuit is a function of circuit, device, level, seed and version of Qiskit alone, not of
earlier compilations, in every process. Invariant: clbits are never changed.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from simenv.errors import ProgramError
from simenv.model.devices import DeviceInfo
from simenv.transpiler.angles import closed, opened_circuit
from simenv.transpiler.limits import LEVEL, SEED
from simenv.transpiler.plugins import load_plugins_lazily
from simenv.transpiler.target import target_of


class Transpiler:
    """Transpiler for one device. Not thread-safe."""

    def __init__(self, info: DeviceInfo, level: int = LEVEL, seed: int = SEED) -> None:
        """Create a transpiler. `level`: of Qiskit's transpiler, 0 to 3; `seed`: of its random
        choices."""
        self._info = info
        self._level = level
        self._seed = seed
        self._passes: Any = None

    @property
    def name(self) -> str:
        """Version, level and seed of the compiler, as results record them."""
        import qiskit

        return f"qiskit {qiskit.__version__}, level {self._level}, seed {self._seed}"

    def transpiled(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """Return a QuantumCircuit in native gates on the device's qubits, compiled once for its
        structure.

        See `angles`. `mapping`: as for `run`. Raises ProgramError.
        """
        structure, values = opened_circuit(circuit)
        result = self.run(structure, mapping)
        return closed(result, values, self.merging) if values.size else result

    def run(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """Return a QuantumCircuit after the preset passes. Raises ProgramError.

        `mapping`: the device's qubit of each of its qubits at the beginning; (): any.
        """
        from qiskit.exceptions import QiskitError

        if circuit.num_qubits > self._info.num_qubits:
            raise ProgramError(
                f"the circuit has {circuit.num_qubits} qubits; device {self._info.name} has"
                f" {self._info.num_qubits}",
                hint="a wider device, or fewer qubits",
            )
        try:
            if mapping:
                return self._pass_manager(mapping).run(circuit)
            if self._passes is None:
                self._passes = self._pass_manager()
            return self._passes.run(circuit)
        except QiskitError as error:
            raise ProgramError(
                f"the circuit cannot be compiled for device {self._info.name}: {error.message}",
                hint="compile='never' runs it as it is written, in native gates",
            ) from error

    @cached_property
    def merging(self) -> Any:
        """Passes that merge gates on one qubit, as the level does for angles that are numbers."""
        target = self._target  # loads qiskit
        from qiskit.transpiler import PassManager
        from qiskit.transpiler.passes import Optimize1qGatesDecomposition

        return PassManager([Optimize1qGatesDecomposition(target=target)])

    @cached_property
    def _target(self) -> Any:
        return target_of(self._info)

    def _pass_manager(self, mapping: tuple[int, ...] = ()) -> Any:
        target = self._target
        from qiskit.transpiler import generate_preset_pass_manager

        load_plugins_lazily()
        return generate_preset_pass_manager(
            optimization_level=self._level,
            target=target,
            seed_transpiler=self._seed,
            initial_layout=list(mapping) or None,
        )

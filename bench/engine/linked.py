"""Engines on circuits of several QPUs: Bell pairs, corrections and resets, with noise."""

from __future__ import annotations

import itertools
import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

import simenv
from bench.harness import SEED, Report, benchmark, timed
from bench.harness.environments import home
from noise_models import snapshot as snapshots
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from noise_models.linked import LinkDesign, linked
from simenv.client.client import Client
from simenv.client.result import Result
from simenv.model.program import HIDDEN_REGISTER

T1_US, T2_US = 1e9, 1e6  # of an ion
ONE_NS, TWO_NS, READ_NS = 5e3, 2e4, 1e5
ONE, TWO, READ = 3e-5, 1e-3, 2e-3  # errors
WAIT_NS = 1e4  # for a pair, at 10^5 /s
PHASE = 0.37  # that the inverse QFT finds
FIDELITY = 0.97  # of a pair
WIDE_ANGLES, LAYERS = 0.6, 6  # of the rotations of a wide machine


class Machine:
    """Modules of fully coupled qubits, of which the last ones communicate, and their links."""

    def __init__(self, data: Sequence[int], links: Sequence[tuple[int, int]], fidelity: float):
        """`data`: number of data qubits of each module. A module has one communication qubit for
        each of its links, or one alone if all modules are linked with one another."""
        self.data, self.links = data, links
        every = len(links) == math.comb(len(data), 2)
        ends = [sum(module in link for link in links) for module in range(len(data))]
        self._ports = [1 if every else count for count in ends]
        sizes = [a + b for a, b in zip(data, self._ports, strict=True)]
        self.first = list(itertools.accumulate(sizes, initial=0))
        modules = {f"m{k}": _module(size) for k, size in enumerate(sizes)}
        designs = []
        for a, b in links:
            ends_of = tuple(f"m{m}.{self.port(m, (a, b)) - self.first[m]}" for m in (a, b))
            designs.append(LinkDesign((ends_of[0], ends_of[1]), fidelity))
        self.snapshot = linked("machine", modules, designs)

    def port(self, module: int, link: tuple[int, int]) -> int:
        """Communication qubit of a module for a link."""
        mine = [each for each in self.links if module in each]
        number = 0 if self._ports[module] == 1 else mine.index(link)
        return self.first[module] + self.data[module] + number

    def place(self, qubit: int) -> tuple[int, int]:
        """Module of a data qubit, and its number in the device."""
        for module, size in enumerate(self.data):
            if qubit < size:
                return module, self.first[module] + qubit
            qubit -= size
        raise IndexError(qubit)


def _module(num_qubits: int) -> CalibrationSnapshot:
    one, two = ("h", "x", "ry"), ("cx", "cz", "cp")
    native = [NativeGate(name, 1) for name in ("h", "x", "z", "s")]
    native += [NativeGate(name, 1, 1) for name in ("ry", "rz", "p")]
    native += [NativeGate("cx", 2), NativeGate("cz", 2), NativeGate("cp", 2, 1)]
    gates = [GateCalibration(name, error=0.0, duration_ns=0.0) for name in ("z", "s", "rz", "p")]
    gates += [GateCalibration(name, error=ONE, duration_ns=ONE_NS) for name in one]
    gates += [GateCalibration(name, error=TWO, duration_ns=TWO_NS) for name in two]
    qubit = QubitCalibration(
        t1_us=T1_US, t2_us=T2_US, p01=READ, p10=READ, readout_ns=READ_NS, reset_ns=0.0
    )
    return CalibrationSnapshot(
        name="module", num_qubits=num_qubits, technology="trapped-ion", version="1", dynamic=True,
        native_gates=tuple(native), all_to_all=True, qubits=(qubit,) * num_qubits,
        gates=tuple(gates),
    )  # fmt: skip


class _Builder:
    """Circuit on a machine; each remote operation has correction bits of its own."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.pairs = machine, 0
        self._bits = 0
        size = sum(machine.data)
        self._data = ClassicalRegister(size, "c")
        self.circuit = QuantumCircuit(
            QuantumRegister(machine.snapshot.num_qubits, "q"), self._data,
            ClassicalRegister(4 * size * len(machine.data), HIDDEN_REGISTER),
        )  # fmt: skip
        self._hidden = self.circuit.cregs[1]

    def _measured(self, qubit: int) -> object:
        bit = self._hidden[self._bits]
        self._bits += 1
        self.circuit.measure(qubit, bit)
        return bit

    def _pair(self, first: int, second: int) -> tuple[int, int]:
        """Make |00> + |11> of the communication qubits of two modules: they wait for the herald."""
        circuit, link = self.circuit, (min(first, second), max(first, second))
        here, there = (self.machine.port(module, link) for module in (first, second))
        for port in (here, there):
            circuit.delay(WAIT_NS, port, unit="ns")
            circuit.reset(port)
        circuit.rxx(math.pi / 2, *((here, there) if first < second else (there, here)))
        circuit.s(here)
        self.pairs += 1
        return here, there

    def copies(self, root: int, module: int) -> Iterator[int]:
        """Yield the copy of a data qubit in another module, for gates that are diagonal on it."""
        circuit, (own, qubit) = self.circuit, self.machine.place(root)
        here, copy = self._pair(own, module)
        circuit.cx(qubit, here)
        with circuit.if_test((self._measured(here), 1)):
            circuit.x(copy)
        yield copy
        circuit.h(copy)
        with circuit.if_test((self._measured(copy), 1)):
            circuit.z(qubit)

    def read(self, bits: Sequence[int] = ()) -> QuantumCircuit:
        """Measure data qubit k into clbit k, or bits[k]; return the circuit."""
        for k in range(sum(self.machine.data)):
            self.circuit.measure(self.machine.place(k)[1], self._data[bits[k] if bits else k])
        return self.circuit


def inverse_qft(machine: Machine) -> tuple[QuantumCircuit, int, int]:
    """Inverse QFT of the Fourier state of a number, which it finds; the number, and the pairs."""
    built, n = _Builder(machine), sum(machine.data)
    circuit, number = built.circuit, int(PHASE * 2**n)
    for k in range(n):
        circuit.h(machine.place(k)[1])
        circuit.p(2.0 * math.pi * number / 2 ** (n - k), machine.place(k)[1])
    for root in reversed(range(n)):
        module, qubit = machine.place(root)
        for other, group in itertools.groupby(range(root + 1, n), lambda j: machine.place(j)[0]):
            wires = [(-math.pi / 2 ** (j - root), machine.place(j)[1]) for j in group]
            for copy in (qubit,) if other == module else built.copies(root, other):
                for angle, wire in wires:
                    circuit.cp(angle, copy, wire)
        circuit.h(qubit)
    return built.read([n - 1 - k for k in range(n)]), number, built.pairs


def ghz(machine: Machine) -> tuple[QuantumCircuit, int]:
    """GHZ state of all data qubits of a chain of modules, and the pairs."""
    built = _Builder(machine)
    circuit, n = built.circuit, sum(machine.data)
    circuit.h(machine.place(0)[1])
    for k in range(n - 1):
        (module, qubit), (other, target) = machine.place(k), machine.place(k + 1)
        for control in (qubit,) if other == module else built.copies(k, other):
            circuit.cx(control, target)
    return built.read(), built.pairs


def brickwork(machine: Machine, layers: int, seed: int) -> tuple[QuantumCircuit, int]:
    """Layers of rotations and of CZ between neighbours, those between modules in the first layer;
    and the pairs."""
    built, random = _Builder(machine), np.random.default_rng(seed)
    circuit, n = built.circuit, sum(machine.data)
    for layer in range(layers):
        for k, angle in enumerate(random.uniform(-WIDE_ANGLES, WIDE_ANGLES, n).tolist()):
            circuit.ry(math.pi / 2 + angle, machine.place(k)[1])
        for k in range(n - 1):
            (module, qubit), (other, target) = machine.place(k), machine.place(k + 1)
            if module == other and k % 2 == layer % 2:
                circuit.cz(qubit, target)
            elif module != other and not layer:
                for control in built.copies(k, other):
                    circuit.cz(control, target)
    return built.read(), built.pairs


@contextmanager
def _client() -> Iterator[tuple[Client, Path]]:
    """Environment of one worker; a client, and the folder of devices."""
    with home() as folder:
        devices = folder / "devices"
        devices.mkdir()
        with simenv.local(workers=1) as client:
            yield client, devices


@benchmark(seed=SEED, shots=(1_000, 200))
def linked_engines(report: Report, options: Namespace) -> None:
    """Circuits of several QPUs with noise, by each engine: submission to counts of 1,000 shots.

    Modules are fully coupled ions, with error rates of 0.1 % (two qubits), 0.003 % (one qubit) and
    0.2 % (readout), linked by pairs of fidelity 0.97 at 10^5 /s. Remote gates copy a qubit to the
    other module over a pair. Every outcome of a correction has a bit of its own in the hidden
    register. The inverse QFT finds a number; the machine of 8 modules is a chain, and so are the
    wide ones, whose gates are not Clifford.
    """
    with _client() as (client, folder):

        def run(key: str, machine: Machine, circuit: QuantumCircuit, engine: str,
                twirl: bool = False) -> Result:  # fmt: skip
            (folder / "machine.json").write_bytes(snapshots.dump(machine.snapshot))

            def once(shots: int) -> Result:
                return client.run(
                    circuit, device="machine", compile="never", engine=engine, shots=shots,
                    seed=options.seed, options={"twirl": 1} if twirl else None,
                )  # fmt: skip

            once(2)  # loads the kernels and the device
            seconds, result = timed(lambda: once(options.shots))
            print(f"{machine.snapshot.num_qubits} qubits, {result.remark or 'one record'}")
            report.seconds(key, seconds)
            return result

        found: dict[str, float] = {}
        for key, data, engine in (
            ("densitymatrix_s", (2, 2, 2, 2), "densitymatrix"),
            ("small_s", (2, 2, 2, 2), "statevector"),
            ("trajectories_s", (4, 4, 4), "statevector"),
        ):
            links = list(itertools.combinations(range(len(data)), 2))
            machine = Machine(data, links, FIDELITY)
            circuit, number, pairs = inverse_qft(machine)
            assert pairs == 12
            counts = run(key, machine, circuit, engine).counts
            found[key] = counts.get(f"{number:0{sum(data)}b}", 0) / options.shots
            print(f"the number is found in {found[key]:.3f} of the shots")
        exact, drawn = found["densitymatrix_s"], found["small_s"]
        error = math.sqrt(2.0 * exact * (1.0 - exact) / options.shots)
        report.at_most("deviation", abs(exact - drawn) / error)

        machine = Machine((25,) * 8, _chain(8), FIDELITY)
        counts = run("clifford_s", machine, ghz(machine)[0], "stabilizer", twirl=True).counts
        assert sum(counts.values()) == options.shots
        for key, data_of_each, modules in (("wide_40_s", 10, 4), ("wide_96_s", 12, 8)):
            machine = Machine((data_of_each,) * modules, _chain(modules), FIDELITY)
            run(key, machine, brickwork(machine, LAYERS, options.seed)[0], "mps")


def _chain(modules: int) -> list[tuple[int, int]]:
    return list(itertools.pairwise(range(modules)))

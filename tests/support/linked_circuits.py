"""Circuits on linked QPUs with noise, as engines get them."""

from __future__ import annotations

from noise_models import library
from noise_models.build import build
from noise_models.linked import LinkDesign, linked
from simenv import library as algorithms
from simenv.client.circuits import load
from simenv.service.devices.registry import device_info
from simenv.transpiler.linked.distribution import LinkedTranspiler, with_pairs
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise


def linked_ghz(qubits: int) -> tuple[Circuit, NoiseProgram]:
    """GHZ state of qubits on two modules: a Bell pair over a link with a wait, bits of corrections
    in the hidden register, and the noise of both modules."""
    chip = library.load("trapped-ions")
    link = LinkDesign(("a.0", "b.0"), fidelity=0.95, rate_hz=1e5)
    snapshot = linked("duo", {"a": chip, "b": chip}, [link])
    info = device_info("duo", snapshot, "")
    half = qubits // 2
    circuit = algorithms.ghz(qubits).circuit
    modules = ["a"] * half + ["b"] * (qubits - half)
    compiled = with_pairs(LinkedTranspiler(info).divided(circuit, modules=modules).circuit, info)
    program = Circuit.from_program(load(compiled).program)
    return program, attach_noise(program, build(snapshot))

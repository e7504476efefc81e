"""Final states and distributions of pulse sequences by other emulators, for one request a line.

It runs in the interpreter that has the emulators, and imports nothing of this project.

    PYTHON pulser_states.py

A request is {"kind", "sequence", "modulation", "noise", "trajectories", "dt", "config"} in JSON,
an answer {"seconds", "values"} or {"error"}; seconds are CPU times in one thread. Kinds: `state`
and `time` by pulser-simulation (QuTiP), `density` and `counts` with noise, `results` of an
emulation's configuration, `emu-sv`; and `emu-mps`, with {"shots", "seed", "precision", "bond"},
whose values are occupations and whose seconds are wall-clock time. QuTiP has tight tolerances for
`state` and `results`. Values of a state are real and imaginary parts; bit strings and indices have
the first atom as their highest digit.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import numpy as np

TIGHT = {"atol": 1e-12, "rtol": 1e-10, "nsteps": 1_000_000, "max_step": 1e-3}


def main() -> None:
    """Answer requests until the end of the input."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            answer = answered(json.loads(line))
        except Exception as error:  # noqa: BLE001 - of any emulator
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), flush=True)


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request."""
    from pulser import NoiseModel, Sequence

    sequence = Sequence.from_abstract_repr(request["sequence"])
    noise = NoiseModel.from_abstract_repr(request["noise"]) if request.get("noise") else None
    if request["kind"] == "emu-sv":
        return _emu_sv(sequence, request["dt"])
    if request["kind"] == "emu-mps":
        return _emu_mps(sequence, request)
    from pulser_simulation import QutipEmulator

    how = {"with_modulation": request.get("modulation", False), "noise_model": noise}
    if request["kind"] == "results":
        return _results(sequence, request["config"])
    if request["kind"] == "counts":
        return _counts(sequence, noise, request["trajectories"])
    emulator = QutipEmulator.from_sequence(sequence, evaluation_times="Minimal", **how)
    options = TIGHT if request["kind"] == "state" else {}
    begin = time.process_time()
    results = emulator.run(**options)
    seconds = time.process_time() - begin
    state = results.states[-1]
    basis = emulator.basis_name.removesuffix("_with_error")
    values = state.full()
    order = list(range(emulator.dim))
    if basis == "ground-rydberg":  # r, g, x: 1, 0 and one that is measured as 0
        order[:2] = [1, 0]
    if request["kind"] == "density":
        atoms = len(sequence.register.qubits)
        weights = values.diagonal().real if state.isoper else abs(values.ravel()) ** 2
        diagonal = weights.reshape((emulator.dim,) * atoms)
        for axis in range(atoms):
            diagonal = np.take(diagonal, order, axis)
            if emulator.dim == 3:
                merged = np.take(diagonal, [0, 1], axis)
                slot = [slice(None)] * atoms
                slot[axis] = slice(0, 1)
                merged[tuple(slot)] += np.take(diagonal, [2], axis)
                diagonal = merged
        return {"seconds": seconds, "values": diagonal.ravel().tolist()}
    vector = values.ravel()
    if basis == "ground-rydberg":
        vector = vector[::-1]
    return {"seconds": seconds, "values": [vector.real.tolist(), vector.imag.tolist()]}


def _counts(sequence: Any, noise: Any, trajectories: int) -> dict[str, Any]:
    """Counts of one shot in each trajectory."""
    from pulser.backend import BitStrings
    from pulser_simulation import QutipBackendV2, QutipConfig

    config = QutipConfig(
        observables=[BitStrings(num_shots=1)], noise_model=noise,
        n_trajectories=trajectories,
    )  # fmt: skip
    begin = time.process_time()
    found = QutipBackendV2(sequence, config=config).run().final_bitstrings
    values = {text: int(count) for text, count in found.items()}
    return {"seconds": time.process_time() - begin, "values": values}


def _results(sequence: Any, text: str) -> dict[str, Any]:
    from pulser_simulation import QutipBackendV2, QutipConfig

    config = QutipConfig.from_abstract_repr(text)
    begin = time.process_time()
    backend = QutipBackendV2(sequence, config=config)
    backend._qutip_options |= TIGHT  # the class takes none
    results = backend.run()
    seconds = time.process_time() - begin
    return {"seconds": seconds, "values": json.loads(results.to_abstract_repr())}


def _emu_sv(sequence: Any, dt: int) -> dict[str, Any]:
    import torch
    from emu_sv import StateResult, SVBackend, SVConfig

    torch.set_num_threads(1)
    config = SVConfig(
        observables=[StateResult(evaluation_times=[1.0])], dt=dt, log_level=50, gpu=False
    )
    begin = time.process_time()
    SVBackend(sequence, config=config).run()
    return {"seconds": time.process_time() - begin, "values": []}


def _emu_mps(sequence: Any, request: dict[str, Any]) -> dict[str, Any]:
    import torch
    from emu_mps import MPSBackend, MPSConfig
    from pulser.backend import BitStrings, Occupation

    torch.set_num_threads(1)
    torch.manual_seed(request["seed"])
    config = MPSConfig(
        observables=[Occupation(), BitStrings(num_shots=request["shots"])], dt=request["dt"],
        precision=request["precision"], max_bond_dim=request["bond"], log_level=50, gpu=False,
    )  # fmt: skip
    begin = time.perf_counter()
    results = MPSBackend(sequence, config=config).run()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "values": [float(each) for each in results.occupation[-1]]}


if __name__ == "__main__":
    main()

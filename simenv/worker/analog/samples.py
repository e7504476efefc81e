"""Samples of a pulse sequence and draws of its noise, by pulser-core.

A sequence of another user is read in a process of its own (`simenv.sandbox.function_process`).
Noise that is constant during a shot is drawn as pulser-simulation draws it, by the same class of
pulser-core, which is not public: `pyproject.toml` bounds its version. Where preparation alone is
drawn, many trajectories are alike, and each kind of them is one draw, which is repeated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.errors import ProgramError
from simenv.model.pulses import BASES, PulseCall, PulseSizes, check_atoms
from simenv.sandbox.function_process import SandboxProcess
from simenv.transpiler.atoms import built_sequence, errors_of_pulser, sizes_of
from simulators.engine import RunControl
from simulators.rydberg.drive import PulseProgram
from simulators.rydberg.jumps import CollapseOperator

BATCH_BYTES = 16 * 2**20  # of the samples that are converted at once
_CANNOT = "pulser cannot sample the sequence"
# Terms of pulser's Hamiltonian that are none of the states here.
_CONSTANTS: dict[str, Literal["", "detuning", "interaction"]] = {
    "ground-rydberg": "", "digital": "detuning", "XY": "interaction",
}  # fmt: skip
_LEAKED = "x"


class Request(msgspec.Struct, frozen=True, array_like=True):
    """Trajectories `first` up to `last` of the noise that is drawn from this seed."""

    call: PulseCall
    seed: int
    first: int
    last: int


class Trajectory(msgspec.Struct, frozen=True, array_like=True):
    """Arrays of one draw, as a PulseProgram has them; `repeats`: how often it was drawn."""

    repeats: int
    rabi: bytes
    detuning: bytes
    interaction: bytes
    exchange: bytes


class SampledSequence(msgspec.Struct, frozen=True, array_like=True):
    """A sequence as arrays. `drawn`: number of different trajectories; `jumps`: (rate, matrix as
    complex128 [3, 3] over 0, 1 and lost), of each atom; `noiseless`: the arrays without noise, if
    the call needs them; `masked` and `masked_ns`: as a PulseProgram has them."""

    atoms: tuple[str, ...]
    basis: str
    pulser: str
    drawn: int
    false_positive: float
    false_negative: float
    jumps: tuple[tuple[float, bytes], ...]
    trajectories: tuple[Trajectory, ...]
    noiseless: Trajectory | None = None
    masked: tuple[int, ...] = ()
    masked_ns: int = 0


def sampled(
    call: PulseCall, seed: int, control: RunControl, *, trusted: bool
) -> Iterator[SampledSequence]:
    """Iterate over batches of trajectories of a sequence. Raises ProgramError, OptionError,
    LimitExceededError, Stopped."""
    bytes_of_one = 24 * call.sizes.atoms * (call.sizes.duration_ns + 1)
    batch = max(1, BATCH_BYTES // bytes_of_one)
    first, last = 0, 1
    while first < last:
        packed = msgspec.msgpack.encode(Request(call, seed, first, first + batch))
        answer = converted(packed) if trusted else _PROCESS.convert(packed, check=control.check)
        result = msgspec.msgpack.decode(answer, type=SampledSequence)
        first, last = first + batch, result.drawn
        yield result


def checked_sequence(
    call: PulseCall, seed: int, control: RunControl, *, trusted: bool
) -> tuple[Any, Any]:
    """Return the sequence and the noise model of a call, as pulser's objects. Those of another user
    are read and sampled in a process of its own before: they take as much time and memory here.
    Raises like `sampled`."""
    if not trusted:
        packed = msgspec.msgpack.encode(Request(call, seed, 0, 1))
        _PROCESS.convert(packed, check=control.check)
    with errors_of_pulser(_CANNOT):
        return _checked(call)


def program_of(sequence: SampledSequence, trajectory: Trajectory) -> PulseProgram:
    """Return the arrays of a trajectory."""
    n = len(sequence.atoms)
    exchange = np.frombuffer(trajectory.exchange)
    return PulseProgram(
        np.frombuffer(trajectory.rabi, np.complex128).reshape(-1, n),
        np.frombuffer(trajectory.detuning).reshape(-1, n),
        np.frombuffer(trajectory.interaction).reshape(n, n),
        exchange.reshape(n, n) if exchange.size else np.zeros((0, 0)),
        _CONSTANTS[sequence.basis],
        sequence.masked,
        sequence.masked_ns,
    )


def noiseless(sequence: SampledSequence) -> PulseProgram:
    """Return the arrays without noise of a first batch of trajectories."""
    return program_of(sequence, sequence.noiseless or sequence.trajectories[0])


def jumps_of(sequence: SampledSequence) -> tuple[CollapseOperator, ...]:
    """Return the jumps of each atom."""
    return tuple(
        CollapseOperator(rate, np.frombuffer(matrix, np.complex128).reshape(3, 3))
        for rate, matrix in sequence.jumps
    )


def converted(packed: bytes) -> bytes:
    """Read a sequence and sample it: a Request in, a SampledSequence out. Raises ProgramError,
    OptionError."""
    request = msgspec.msgpack.decode(packed, type=Request)
    with errors_of_pulser(_CANNOT):
        result = _sampled(*_checked(request.call), request)
    return msgspec.msgpack.encode(result)


def _checked(call: PulseCall) -> tuple[Any, Any]:
    """Return the sequence, whose sizes are those of the call, and the noise model."""
    sequence = built_sequence(call)
    check_atoms(sequence.register.qubit_ids)
    sizes = sizes_of(sequence, modulation=bool(call.modulation))
    if sizes != call.sizes:
        raise _other_sizes(sizes, call.sizes)
    return sequence, _noise_model(call)


def _other_sizes(sizes: PulseSizes, given: PulseSizes) -> ProgramError:
    text = f"the sequence has {_sizes_text(sizes)}; it came with {_sizes_text(given)}"
    return ProgramError(text, hint="client and service should be of one version")


def _sizes_text(sizes: PulseSizes) -> str:
    return f"{sizes.atoms} atoms, {sizes.channels} channels and {sizes.duration_ns} ns"


def _noise_model(call: PulseCall) -> Any:
    from pulser import NoiseModel

    return NoiseModel.from_abstract_repr(call.noise) if call.noise else NoiseModel()


def _sampled(sequence: Any, noise: Any, request: Request) -> SampledSequence:
    import pulser
    from pulser import NoiseModel
    from pulser._hamiltonian_data.hamiltonian_data import (
        HamiltonianData,
        has_shot_to_shot_except_spam,
    )
    from pulser.sampler import sample

    call = request.call
    duration = call.sizes.duration_ns
    samples = sample(sequence, modulation=call.modulation, extended_duration=duration)
    samples = samples.extend_duration(duration + 1)
    # Where no two draws are alike, those of a batch have a seed of their own: the others are not
    # drawn with it.
    is_drawn_alone = has_shot_to_shot_except_spam(noise)
    number, skipped = 1, 0
    if is_drawn_alone:
        number, skipped = min(request.last, call.trajectories) - request.first, request.first
    key = (skipped,) if skipped else ()
    seeds = np.random.SeedSequence(request.seed, spawn_key=key)
    np.random.seed(seeds.generate_state(4))  # pulser draws there
    atoms_of = samples, sequence.register, sequence.device
    data = HamiltonianData(*atoms_of, noise, number)
    basis = data.basis_data.basis_name.removesuffix("_with_error")
    if basis not in BASES:
        raise ProgramError(
            f"the sequence drives transitions of the bases {sorted(samples.used_bases)}",
            hint="channels of one basis: atoms have two levels here",
        )
    distinct, chosen = call.trajectories, data.noise_trajectories
    if noise.dmm_sigma:
        chosen = [(_own_map_factors(one, noise.dmm_sigma), repeats) for one, repeats in chosen]
    if not is_drawn_alone:
        wrong, numbers = _preparations(seeds, noise.state_prep_error, call)
        distinct, batch = len(numbers), slice(request.first, request.last)
        pairs = zip(wrong[batch], numbers[batch].tolist(), strict=True)
        chosen = [(_prepared(data, row), repeats) for row, repeats in pairs]
    atoms = tuple(str(name) for name in sequence.register.qubit_ids)
    trajectories = tuple(
        _trajectory(data._sample_with_trajectory(one), one, repeats, basis, sequence)
        for one, repeats in chosen
    )
    ideal = None
    if call.noise and "energy" in call.outputs and not request.first:
        without = HamiltonianData(*atoms_of, NoiseModel(), 1)
        (one, _) = without.noise_trajectories[0]
        ideal = _trajectory(without._sample_with_trajectory(one), one, 1, basis, sequence)
    mask = samples._slm_mask
    masked: tuple[int, ...] = ()
    if basis == "XY" and mask.end > 0:  # else its detunings are in the samples
        names = list(sequence.register.qubit_ids)
        masked = tuple(sorted(names.index(name) for name in mask.targets))
    return SampledSequence(
        atoms,
        basis,
        f"pulser-core {pulser.__version__}",
        distinct,
        float(noise.p_false_pos),
        float(noise.p_false_neg),
        _jumps(data, basis),
        trajectories,
        ideal,
        masked,
        int(mask.end),
    )


def _preparations(
    seeds: np.random.SeedSequence, error: float, call: PulseCall
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Draw which atoms are prepared wrongly in each trajectory. Return the distinct rows
    [rows, atoms], and how often each was drawn."""
    atoms = call.sizes.atoms
    if not error:
        return np.zeros((1, atoms), np.bool_), np.array([call.trajectories])
    wrong = np.random.default_rng(seeds).random((call.trajectories, atoms)) < error
    rows, repeats = np.unique(np.packbits(wrong, axis=1), axis=0, return_counts=True)
    return np.unpackbits(rows, axis=1, count=atoms).astype(np.bool_), repeats


def _prepared(data: Any, wrong: NDArray[np.bool_]) -> Any:
    """Return the trajectory in which these atoms, and nothing else, are wrong."""
    (one, _) = data.noise_trajectories[0]
    bad_atoms = dict(zip(data.register.qubit_ids, wrong.tolist(), strict=True))
    matrix = data._noisy_interaction_matrix(data.register, bad_atoms)
    return dataclasses.replace(one, bad_atoms=bad_atoms, interaction_matrix=matrix)


def _own_map_factors(drawn: Any, sigma: float) -> Any:
    """Return a trajectory with factors of its detuning maps of its own: those of pulser 1.9.1 are
    one object that all trajectories share, with the factors of the last one."""
    factors = {
        name: max(0.0, float(np.random.normal(1.0, sigma))) if name.startswith("dmm_") else 1.0
        for name in drawn.dmm_det_fluctuation
    }
    return dataclasses.replace(drawn, dmm_det_fluctuation=factors)


def _trajectory(samples: Any, drawn: Any, repeats: int, basis: str, sequence: Any) -> Trajectory:
    """Return the arrays of a draw in the states 0 and 1 of this basis."""
    names = list(sequence.register.qubit_ids)
    shape = samples.max_duration, len(names)
    rabi, detuning = np.zeros(shape, np.complex128), np.zeros(shape)
    nested = samples.to_nested_dict()
    for values in nested["Global"].values():
        drive, shift = _drive(values)
        rabi += drive[:, None]
        detuning += shift[:, None]
    for by_atom in nested["Local"].values():
        for name, values in by_atom.items():
            drive, shift = _drive(values)
            rabi[:, names.index(name)] += drive
            detuning[:, names.index(name)] += shift
    matrices = np.asarray(drawn.interaction_matrix.as_array(detach=True), np.float64)
    exchange = np.zeros((0, 0))
    interaction = matrices[-1]
    if basis == "digital":  # the detuning is that of the state 0, up to a common phase
        rabi, detuning, interaction = np.conj(rabi), -detuning, np.zeros_like(interaction)
    elif basis == "XY":  # the interaction is that of two atoms in the state 0
        exchange = matrices[0]
    return Trajectory(
        int(repeats),
        np.ascontiguousarray(rabi).tobytes(),
        np.ascontiguousarray(detuning).tobytes(),
        np.ascontiguousarray(interaction).tobytes(),
        np.ascontiguousarray(exchange).tobytes(),
    )


def _drive(values: Any) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    amplitude, detuning, phase = (np.asarray(values[key]) for key in ("amp", "det", "phase"))
    return amplitude * np.exp(-1j * phase), detuning.astype(np.float64)


def _jumps(data: Any, basis: str) -> tuple[tuple[float, bytes], ...]:
    """Return the collapse operators of each atom over its states 0, 1 and lost."""
    lindblad = data.lindblad_data
    order = [*BASES[basis], _LEAKED]
    own = data.basis_data.eigenbasis
    result = []
    for coefficient, operator in lindblad.local_collapse_ops:
        matrix = np.zeros((3, 3), np.complex128)
        if isinstance(operator, str):
            parts = lindblad.depolarizing_pauli_2ds.get(operator, [(1, operator)])
            for factor, name in parts:
                left, right = name.removeprefix("sigma_")
                matrix[order.index(left), order.index(right)] += factor
        else:
            places = [order.index(state) for state in own]
            matrix[np.ix_(places, places)] = operator
        result.append((float(abs(coefficient) ** 2), matrix.tobytes()))
    return tuple(result)


_PROCESS = SandboxProcess(__name__, "converted", "pulse sequence", ("sampling", "sampled"), 20.0)

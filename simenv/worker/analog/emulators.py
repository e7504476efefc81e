"""Engines `emu-mps`, `emu-sv` and `pulser-simulation`: pulse sequences by other packages.

Each is a backend class of pulser's protocol (`pulser.backend.EmulatorBackend`), which is given the
sequence, the noise model and observables; what it computes is its own. None states a bound on its
error: `error` of an answer is NaN, and `remark` says what was cut off. A result depends on the
call, shots, seed and number of threads, and on the versions of the packages, not on the worker or
the attempt. Invariant: all random numbers are those of the generators of Python, numpy and PyTorch,
which are seeded before a run; PyTorch has as many threads as the task has slots, and no GPU.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import logging
import math
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pulser.backend import (
    BitStrings,
    CorrelationMatrix,
    Energy,
    EnergySecondMoment,
    Expectation,
    Observable,
    Occupation,
    StateResult,
)
from pulser.backend.observable import AggregationMethod

from simenv.errors import LimitExceededError, SimenvError
from simenv.model import Observable as PauliSum, TaskOptions, calls
from simenv.model.pulses import BASES, PulseAnswer, PulseCall, check_shots, words
from simenv.transpiler.atoms import driven_bases, pulser_text
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog.samples import checked_sequence
from simulators.catalog import builtin_card
from simulators.engine import STEPS, RunControl
from simulators.errors import EngineError, OutOfMemory, Unsupported
from simulators.execution.philox import block_seed

_ORDER = "rghudx01"  # of eigenstates, in pulser
_JUMPS = {"dephasing", "relaxation", "depolarizing", "eff_noise", "leakage"}  # during the evolution
_DENSITY = 2**16  # elements of a density matrix of pulser-simulation
_DRAWN_BYTES = 2**28  # of the draws of all trajectories
_MOST_CHECKS = 500  # of the control in a run: packages look a time up in a list of all
_RUN, _ORDER_OF_SHOTS = 0, 1  # numbers of streams of random numbers
_LEAST_PREPARED = 2  # atoms of a state of emu-mps
_OWN = "pulser-simulation"  # the package that has no PyTorch


class Emulator(msgspec.Struct, frozen=True):
    """Package of an engine. `bases`: those that it evolves; `has_leakage`: it has atoms of three
    levels (emu-mps 2.10.1 has, but exchanges leakage from 0 with that from 1); `has_jumps`: it
    draws the jumps of each trajectory, else it evolves the density matrix; `names`: its own names
    of states, by basis."""

    module: str
    backend: str
    config: str
    bases: tuple[str, ...]
    least_atoms: int = 1
    has_state: bool = True
    has_leakage: bool = False
    has_jumps: bool = True
    names: dict[str, str] = {}


_EMULATORS = {
    "emu-mps": Emulator(
        "emu_mps", "MPSBackend", "MPSConfig", ("ground-rydberg", "XY"), 2, False, names={"XY": "01"}
    ),
    "emu-sv": Emulator("emu_sv", "SVBackend", "SVConfig", ("ground-rydberg",)),
    _OWN: Emulator(
        "pulser_simulation", "QutipBackendV2", "QutipConfig", tuple(BASES), has_leakage=True,
        has_jumps=False,
    ),
}  # fmt: skip


class EmulatorEngine:
    """Engine of pulse sequences over one of these packages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._emulator = _EMULATORS[name]

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> tuple[bytes, None, int]:
        """See `CallEngine`. Raises ProgramError for a sequence that pulser cannot read, or whose
        sizes differ from those of the call, Unsupported for what the package cannot do."""
        assert isinstance(call, PulseCall)
        check_shots(call, assigned.shots)
        control.check()
        seed = block_seed(assigned.seed, call.binding, _RUN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages, about their own versions
            try:
                sequence, noise = checked_sequence(call, seed, control, trusted=assigned.trusted)
                run = _Run(self.name, call, assigned, (sequence, noise))
                _seed_generators(seed)
                results = run.results(terms, control)
                return codec.encode(run.answer(results)), None, 0
            except (EngineError, SimenvError, MemoryError):
                raise
            except Exception as error:  # the packages raise many types
                text = pulser_text(error)
                if "can't allocate memory" in text:  # PyTorch's RuntimeError
                    raise OutOfMemory(f"engine {self.name!r}: {text}") from error
                hint = "engine='rydberg' may run it"
                raise Unsupported(f"engine {self.name!r}: {text}", hint=hint) from error

    def warm_up(self) -> None:
        """Load the package."""
        importlib.import_module(self._emulator.module)


class _Run:
    """Run of a call."""

    def __init__(
        self, name: str, call: PulseCall, assigned: AssignedTask, given: tuple[Any, Any]
    ) -> None:
        """`given`: the sequence and the noise model, as pulser's objects. Raises Unsupported for
        what the package cannot do."""
        self._name, self._emulator, self._call, self._assigned = (
            name, _EMULATORS[name], call, assigned,
        )  # fmt: skip
        self._sequence, self._noise = given
        kinds = set(self._noise.noise_types)
        self._jumps = kinds & _JUMPS
        self._has_draws = bool(kinds - _JUMPS - {"SPAM"}) or self._noise.state_prep_error > 0.0
        self._basis = self._checked_basis()
        is_random = self._has_draws or (self._jumps and self._emulator.has_jumps)
        self._trajectories = call.trajectories if is_random else 1
        self._check_draws()
        self._steps = 1
        self._settings: dict[str, float] = {}

    def _check_draws(self) -> None:
        """Raise LimitExceededError for draws of the noise that take too much memory: the packages
        draw those of all trajectories before the first."""
        atoms, noise = self._call.sizes.atoms, self._noise
        phases = len(noise.detuning_hf_omegas or ()) * self._call.sizes.channels
        each = 16 * atoms**2 + 600 * atoms + 8 * phases  # interactions, atoms of pulser
        if self._trajectories * each > _DRAWN_BYTES:
            text = f"{self._trajectories} trajectories of {atoms} atoms"
            most = _DRAWN_BYTES // each
            raise LimitExceededError(
                f"{text}; engine {self._name!r} takes {most}", hint="engine='rydberg', or fewer"
            )

    def _checked_basis(self) -> str:
        """Return the basis of the sequence."""
        name, emulator, atoms = self._name, self._emulator, self._call.sizes.atoms
        bases = sorted(driven_bases(self._sequence))
        most = int(math.log(_DENSITY, 3 if self._noise.with_leakage else 2)) // 2
        text = ""
        if "statevector" in self._call.outputs and not emulator.has_state:
            text = f"engine {name!r} has no output 'statevector'"
        elif atoms < emulator.least_atoms:
            text = f"engine {name!r} takes {emulator.least_atoms} atoms or more"
        elif len(bases) != 1 or bases[0] not in emulator.bases:
            text = (
                f"the sequence drives transitions of the bases {bases}; engine {name!r} evolves one"
                f" of {', '.join(emulator.bases)}"
            )
        elif self._noise.with_leakage and not emulator.has_leakage:
            text = f"engine {name!r} has no leakage"
        elif self._jumps and not emulator.has_jumps and atoms > most:
            text = (
                f"engine {name!r} evolves the density matrix with noise of"
                f" {', '.join(sorted(self._jumps))}, of at most {most} atoms"
            )
        if text:
            raise Unsupported(text, hint="engine='rydberg'")
        return str(bases[0])

    def results(self, terms: TaskOptions, control: RunControl) -> Any:
        """Evolve the atoms; return pulser's Results."""
        card, module = builtin_card(self._name), importlib.import_module(self._emulator.module)
        self._settings = {each.name: card.value(terms.options, each.name) for each in card.options}
        options: dict[str, Any] = {}
        if self._name != _OWN:
            _set_threads(max(1, control.threads))
            options = {"log_level": logging.ERROR, "gpu": False, "dt": self._settings["dt"]}
        elif self._jumps:
            options = {"solver": "MasterEquation"}  # that of jumps takes no seed
        if self._name == "emu-mps":
            options["precision"] = self._settings["precision"]
            options["max_bond_dim"] = self._settings["bond"]
        elif self._name == "emu-sv":
            options["solver"] = module.Solver.MONTECARLO
        kind = getattr(module, self._emulator.config)
        observables = self._observables(kind.operator_type)
        if self._name != _OWN:
            observables.append(self._checks(control))
        config = kind(
            observables=observables,
            with_modulation=self._call.modulation,
            noise_model=self._noise,
            n_trajectories=self._trajectories,
            **options,
        )
        backend = getattr(module, self._emulator.backend)(self._sequence, config=config)
        if self._name == "emu-mps":
            _keep_lost_atoms(backend)
        control.check()
        result = backend.run()
        control.check()
        return result

    def _observables(self, operators: Any) -> list[Any]:
        """`operators`: the package's class of operators."""
        call = self._call
        means = {
            "evaluation_times": call.times,
            "default_aggregation_method": AggregationMethod.MEANSTD,
        }
        result: list[Any] = [Occupation(**means)]
        if "correlation" in call.outputs:
            result.append(CorrelationMatrix(**means))
        if "energy" in call.outputs:
            result += [Energy(**means), EnergySecondMoment(**means)]
        states = self._emulator.names.get(self._basis, "".join(BASES[self._basis]))
        states += "x" if self._noise.with_leakage else ""
        for number, observable in enumerate(call.observables):
            operator = operators.from_operator_repr(
                eigenstates=tuple(sorted(states, key=_ORDER.index)),
                n_qudits=call.sizes.atoms,
                operations=_operations(observable, states),
            )
            result.append(Expectation(operator, tag_suffix=str(number), **means))
        if {"counts", "memory"} & set(call.outputs):
            result.append(_ShotShares(self._assigned.shots, self._trajectories, call.times))
        if "statevector" in call.outputs:
            result.append(StateResult(evaluation_times=call.times))
        return result

    def _checks(self, control: RunControl) -> _Checks:
        duration, step = self._call.sizes.duration_ns, self._settings["dt"]
        self._steps = math.ceil(duration / step)
        control.expect(self._steps * self._trajectories, STEPS)
        every = max(1, self._steps // _MOST_CHECKS)
        numbers = range(every, self._steps, every)
        return _Checks(control, [number * float(step) / duration for number in numbers], every)

    def answer(self, results: Any) -> PulseAnswer:
        """Return the answer with these results."""
        call = self._call
        fields: dict[str, Any] = {}
        if {"counts", "memory"} & set(call.outputs):
            fields = self._sampled(results)
        if "statevector" in call.outputs:
            states = self._at_times(results, "state")
            fields["statevector"] = b"".join(self._amplitudes(each).tobytes() for each in states)
        errors = []
        for name, width in call.widths.items():
            values = [
                [_mean_and_error(each, self._trajectories) for each in self._at_times(results, tag)]
                for tag in self._tags(name)
            ]
            table = np.array(values).transpose(2, 1, 0, 3)  # [2, times, tags, numbers of a tag]
            means, deviations = table.reshape(2, len(call.times), width)
            fields[name] = means.astype("<f8").tobytes()
            errors.append(deviations)
        if call.noise:
            fields["standard_errors"] = self._errors(np.hstack(errors)).astype("<f8").tobytes()
        return PulseAnswer(
            format=calls.CALL_FORMAT,
            shots=self._assigned.shots,
            seed=self._assigned.seed,
            atoms=tuple(str(name) for name in self._sequence.register.qubit_ids),
            basis=self._basis,
            simulator=", ".join(map(_version, _packages(self._name))),
            error=math.nan,
            steps=self._steps * self._trajectories,
            trajectories=self._trajectories,
            duration_ns=call.sizes.duration_ns,
            times=call.times,
            remark=self._remark(results),
            **fields,
        )

    def _tags(self, name: str) -> list[str]:
        """Return pulser's tags of the values of an output."""
        if name == "expectation":
            return [f"expectation_{number}" for number in range(len(self._call.observables))]
        tags = {"correlation": ["correlation_matrix"], "energy": ["energy", "energy_second_moment"]}
        return tags.get(name, [name])

    def _at_times(self, results: Any, tag: str) -> list[Any]:
        """Return the values of a tag at the times of the call."""
        times = np.array(results.get_result_times(tag))
        values = results.get_tagged_results()[tag]
        return [values[int(np.abs(times - time).argmin())] for time in self._call.times]

    def _errors(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return standard errors over trajectories: none are random, or there is one alone."""
        if self._trajectories > 1:
            return errors
        return np.full_like(errors, 0.0 if self._call.trajectories > 1 else math.nan)

    def _sampled(self, results: Any) -> dict[str, Any]:
        """Return the fields of sampled outcomes. The packages count shots without their order, so
        that of `memory` is drawn."""
        call, outcomes, numbers = self._call, [], []
        for counts in self._at_times(results, "bitstrings"):
            texts = sorted(counts)
            outcomes.append(packed_outcomes(texts, call.sizes.atoms))
            numbers.append(np.array([counts[text] for text in texts], "<u8"))
        fields: dict[str, Any] = {}
        if "counts" in call.outputs:
            fields["outcomes"] = tuple(each.tobytes() for each in outcomes)
            fields["counts"] = tuple(each.tobytes() for each in numbers)
        if "memory" in call.outputs:
            seed = block_seed(self._assigned.seed, call.binding, _ORDER_OF_SHOTS)
            rng = np.random.Generator(np.random.Philox(seed))
            pairs = zip(outcomes, numbers, strict=True)
            shots = [np.repeat(one, other.astype(np.int64), axis=0) for one, other in pairs]
            fields["memory"] = b"".join(rng.permutation(each).tobytes() for each in shots)
        return fields

    def _amplitudes(self, state: Any) -> NDArray[np.complex128]:
        """Return the amplitudes of a state: complex128 [2**atoms], the first atom as the highest
        bit."""
        if self._name == _OWN:
            vector = state.to_qobj().full().ravel()
            vector = vector[::-1] if self._basis == "ground-rydberg" else vector  # r is first
        else:
            vector = state.data.numpy()
        return np.ascontiguousarray(vector, np.complex128)

    def _remark(self, results: Any) -> str:
        text = f"{self._name} states no bound on its error"
        given = ", ".join(f"{name} {value:g}" for name, value in self._settings.items())
        if self._name == "emu-mps" and "statistics" in results.get_result_tags():
            bonds = [each["max_bond_dimension"] for each in results.statistics]
            given += f" (largest bond {max(bonds)})"
        return f"{text}: {given}" if given else text


class _ShotShares(BitStrings):  # type: ignore[misc]
    """Samples of as many shots as each trajectory has, in the order of trajectories."""

    def __init__(self, shots: int, trajectories: int, times: Sequence[float]) -> None:
        super().__init__(num_shots=1, evaluation_times=times)
        sums = [shots * k // trajectories for k in range(trajectories + 1)]
        self._shares = [last - first for first, last in pairwise(sums)]
        self._trajectory, self._last = -1, math.inf  # the present one, and its last time

    def __call__(self, config: Any, t: float, state: Any, hamiltonian: Any, result: Any) -> None:
        self._trajectory += t <= self._last  # the next one begins
        self._last = t
        super().__call__(config, t, state, hamiltonian, result)

    def apply(self, **given: Any) -> Counter[str]:
        shots = self._shares[self._trajectory]
        if not shots:
            return Counter()
        self.num_shots = shots
        return Counter(super().apply(**given))


class _Checks(Observable):  # type: ignore[misc]
    """Checks of the control at these times, `every` steps apart; it stores nothing."""

    _base_tag = "statistics"  # a name with which emu-mps still orders the atoms by itself

    def __init__(self, control: RunControl, times: Sequence[float], every: int) -> None:
        super().__init__(
            default_aggregation_method=AggregationMethod.SKIP,
            evaluation_times=times,
            tag_suffix="control",
        )
        self._control, self._every = control, every

    def __deepcopy__(self, _memo: Any) -> _Checks:
        return self  # the control is that of the run

    def __call__(self, *_given: Any, **_named: Any) -> None:
        self._control.check()
        self._control.advance(STEPS, self._every)

    def apply(self, **_given: Any) -> None:
        raise AssertionError("nothing is stored")


def packed_outcomes(texts: Sequence[str], atoms: int) -> NDArray[np.uint64]:
    """Return bit strings as words of 64 bits, highest first: uint64 [strings, words]."""
    size = words(atoms)
    joined = b"".join(int(text, 2).to_bytes(8 * size, "big") for text in texts)
    return np.frombuffer(joined, ">u8").reshape(-1, size).astype("<u8")


def _keep_lost_atoms(backend: Any) -> None:
    """Evolve atoms that were not prepared where fewer than two others are left. emu-mps 2.10.1
    takes them out of the register, and then has no state of a single atom; without drive and
    interactions, as pulser draws them, they stay what they are."""
    run = backend._run_from_sequence_data

    def kept(data: Any, config: Any) -> Any:
        if len(data.bad_atoms) - sum(data.bad_atoms) < _LEAST_PREPARED:
            data = dataclasses.replace(data, state_prep_error=0.0)
        return run(data, config)

    backend._run_from_sequence_data = kept


def _seed_generators(seed: int) -> None:
    """Seed all generators from which the packages draw."""
    numbers = np.random.SeedSequence(seed).generate_state(6)
    random.seed(int(numbers[0]) << 32 | int(numbers[1]))
    np.random.seed(numbers[2:5])
    try:
        import torch
    except ImportError:  # pulser-simulation needs none
        return
    torch.manual_seed(int(numbers[5]))


def _set_threads(threads: int) -> None:
    """Give PyTorch this number of threads."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _operations(observable: PauliSum, states: str) -> list[tuple[complex, list[Any]]]:
    """Return a Pauli sum as pulser's operations on these states, 0 first. A lost atom is measured
    as 0."""
    zero, one, *lost = list(states)
    rest = {each * 2: 1.0 for each in lost}
    letters = {
        "X": {zero + one: 1.0, one + zero: 1.0},
        "Y": {zero + one: -1.0j, one + zero: 1.0j},
        "Z": {zero * 2: 1.0, one * 2: -1.0, **rest},
    }
    coefficients = np.frombuffer(observable.coefficients)
    result: list[tuple[complex, list[Any]]] = []
    for label, coefficient in zip(observable.labels, coefficients.tolist(), strict=True):
        places = {letter: {k for k, each in enumerate(label) if each == letter} for letter in "XYZ"}
        factors = [(letters[letter], where) for letter, where in places.items() if where]
        result.append((complex(coefficient), factors))
    return result


def _mean_and_error(value: Any, trajectories: int) -> tuple[list[float], list[float]]:
    """Return the mean of a value, and its standard error; a value of several trajectories is a pair
    of mean and standard deviation."""
    mean, deviation = value if isinstance(value, tuple) else (value, np.zeros_like(value))
    numbers = [np.array(each, np.complex128).real.ravel() for each in (mean, deviation)]
    return numbers[0].tolist(), (numbers[1] / math.sqrt(trajectories)).tolist()


def _packages(name: str) -> Sequence[str]:
    return (name, "pulser-core") if name == _OWN else (name, "torch", "pulser-core")


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"

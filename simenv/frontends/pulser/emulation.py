"""Observables of Pulser's configurations as outputs of tasks, and results in Pulser's form.

Invariant: what a task is asked for and how its result is read depend on the configuration and on
the result alone, so that another process reads the results of a stored configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pulser import NoiseModel
from pulser.backend import (
    BitStrings,
    CorrelationMatrix,
    EmulationConfig,
    Energy,
    EnergySecondMoment,
    EnergyVariance,
    Expectation,
    Fidelity,
    Observable,
    Occupation,
    Results,
    StateResult,
)

from simenv.client.submission.pulses import PulseResult
from simenv.errors import OptionError
from simenv.frontends.pulser.states import (
    PauliTerms,
    SimenvOperator,
    SimenvState,
    amplitudes_of,
    basis_of,
    pauli_sums,
    pauli_terms,
    projector_terms,
)
from simenv.model.pulses import BASES, MAX_TIMES

# Output of a task that has the values of an observable.
_OUTPUTS: Mapping[type[Observable], str] = {
    BitStrings: "counts",
    Occupation: "occupation",
    CorrelationMatrix: "correlation",
    Energy: "energy",
    EnergySecondMoment: "energy",
    EnergyVariance: "energy",
    Expectation: "expectation",
    Fidelity: "statevector",
    StateResult: "statevector",
}
_DRAWN = {"doppler", "amplitude", "detuning", "register", "dmm_sigma"}  # once for each trajectory


class SimenvConfig(EmulationConfig[SimenvState]):  # type: ignore[misc]  # pulser is untyped
    """Configuration of an emulation: Pulser's options, and those of a task.

    `seed`: of the samples and of the noise's draws; None: a random one. `tolerance`: goal of 1
    minus the fidelity of the evolution; None: the default of `Client.submit`. Each trajectory has
    the shots of `BitStrings` where the noise is drawn once for each trajectory, as in Pulser's
    emulators. Other noise has `n_trajectories` where that is above 1, else as many as `submit`.
    `default_evaluation_times="Full"`: each nanosecond, or a part of these, evenly spaced, where
    there are more than a task evaluates.
    """

    _enforce_expected_kwargs = True
    _state_type = SimenvState
    _operator_type = SimenvOperator

    def __init__(
        self, *, seed: int | None = None, tolerance: float | None = None, **options: Any
    ) -> None:
        """Raises OptionError for an initial state, an interaction matrix, callbacks and observables
        that no worker computes, ValueError for unknown options."""
        for name in ("initial_state", "interaction_matrix", "callbacks"):
            value = options.get(name)
            if value is not None and not (name == "callbacks" and not len(value)):
                hint = "atoms begin in state g (XY: u), with the interactions of their device"
                raise OptionError(f"{name}= of an emulation by simenv: {value!r:.80}", hint=hint)
        for observable in options.get("observables", ()):
            _check(observable)
        super().__init__(seed=seed, tolerance=tolerance, **options)

    def _expected_kwargs(self) -> set[str]:
        return {*super()._expected_kwargs(), "seed", "tolerance"}


def _check(observable: Any) -> None:
    if type(observable) not in _OUTPUTS:
        names = ", ".join(kind.__name__ for kind in _OUTPUTS)
        raise OptionError(f"the observable {observable!r:.80}", hint=f"one of: {names}")
    one = getattr(observable, "one_state", None)
    if one is not None and one not in ("r", "h", "d"):
        text = f"one_state={one!r} of the observable {observable.tag!r:.80}"
        raise OptionError(text, hint="1 is the state r, h or d of an atom: leave one_state out")


def noise_model(config: EmulationConfig[Any], device: Any) -> NoiseModel | None:
    """Return the noise of an emulation, None without any."""
    model = device.noise_model if config.prefer_device_noise_model else None
    model = model or config.noise_model
    return model if model.noise_types else None


def submit_options(config: EmulationConfig[Any], built: Any, runs: int | None) -> dict[str, Any]:
    """Return the options of `Client.submit` for a sequence that has values for its variables.
    `runs`: shots in place of the default of the configuration. Raises OptionError."""
    noise = noise_model(config, built.device)
    settings: dict[str, float] = {"modulation": int(config.with_modulation)}
    if config.tolerance is not None:
        settings["tolerance"] = config.tolerance
    shots = _shots(config, runs)
    if noise is not None:
        is_drawn = bool(_DRAWN & set(noise.noise_types)) or noise.state_prep_error > 0.0
        if is_drawn:
            shots *= config.n_trajectories
        if is_drawn or config.n_trajectories > 1:
            settings["trajectories"] = config.n_trajectories
    sums = [each for part in _pauli_sums(config, noise is not None) for each in part.sums]
    outputs = {_OUTPUTS[type(each)] for each in config.observables}
    if noise is not None and not any(isinstance(each, StateResult) for each in config.observables):
        outputs.discard("statevector")  # fidelities of noisy states are expectation values
    if sums:
        outputs.add("expectation")
    duration = int(built.get_duration(include_fall_time=config.with_modulation))
    times = {time for each in config.observables for time in _times(config, each, duration)}
    return {
        "shots": shots or None,
        "outputs": tuple(sorted(outputs)),
        "observables": sums or None,
        "evaluation_times": sorted(times),
        "noise": "off" if noise is None else noise,
        "options": settings,
        "seed": config.seed,
    }


def results_of(config: EmulationConfig[Any], result: PulseResult) -> Results:
    """Return the results of a task in Pulser's form."""
    results = Results(atom_order=result.atoms, total_duration=result.duration_ns)
    eigenstates = BASES[result.basis]
    means = {part.tag: part for part in _pauli_sums(config, not _has_state(result))}
    for observable in config.observables:
        for time in _times(config, observable, result.duration_ns):
            row = int(np.argmin(np.abs(result.evaluation_times - time)))
            if (mean := means.get(observable.tag)) is not None:
                value: Any = mean.value(result.expectation_at[row])
            else:
                value = _value(observable, result, row, eigenstates)
            results._store(observable=observable, time=time, value=value)
    return results


def _has_state(result: PulseResult) -> bool:
    try:
        return len(result.statevector) > 0
    except OptionError:
        return False


class _PauliSums(NamedTuple):
    """Pauli sums whose expectation values are the value of an observable, by its tag: a real sum,
    and one for the imaginary part of an operator that is not Hermitian. `first`: place of the first
    among all sums of the configuration."""

    tag: str
    first: int
    sums: tuple[dict[str, float], ...]

    def value(self, expectation: NDArray[np.float64]) -> complex:
        """Return the value from the expectation values of all sums."""
        real = float(expectation[self.first])
        return real if len(self.sums) == 1 else complex(real, float(expectation[self.first + 1]))


def _pauli_sums(config: EmulationConfig[Any], is_noisy: bool) -> list[_PauliSums]:
    """Return the sums of the observables that are expectation values."""
    result: list[_PauliSums] = []
    first = 0
    for observable in config.observables:
        if isinstance(observable, Expectation):
            terms, atoms = _operator_terms(observable.operator)
        elif isinstance(observable, Fidelity) and is_noisy:
            amplitudes, atoms, _ = _amplitudes(observable.state)
            terms = projector_terms(atoms, amplitudes)
        else:
            continue
        real, imaginary = pauli_sums(terms, atoms)
        sums = (real or {"I" * atoms: 0.0}, *([imaginary] if imaginary else []))
        result.append(_PauliSums(observable.tag, first, sums))
        first += len(sums)
    return result


def _operator_terms(operator: Any) -> tuple[PauliTerms, int]:
    """Return terms and atoms of an operator of any backend."""
    if isinstance(operator, SimenvOperator):
        return operator.terms, operator.n_qudits
    given = operator._to_abstract_repr()
    basis, atoms = basis_of(given["eigenstates"]), given["n_qudits"]
    return pauli_terms(basis, atoms, given["operations"]), atoms


def _amplitudes(state: Any) -> tuple[dict[int, complex], int, tuple[str, str]]:
    """Return amplitudes that are not 0, atoms and basis of a state of any backend."""
    if isinstance(state, SimenvState):
        places = np.flatnonzero(state.statevector).tolist()
        values = {place: complex(state.statevector[place]) for place in places}
        return values, state.n_qudits, basis_of(state.eigenstates)
    given = state._to_abstract_repr()
    basis = basis_of(given["eigenstates"])
    values = amplitudes_of(basis, given["amplitudes"])
    return values, len(next(iter(given["amplitudes"]))), basis


def _value(observable: Any, result: PulseResult, row: int, eigenstates: tuple[str, str]) -> Any:
    """Return the value of an observable at the time of this row."""
    if isinstance(observable, BitStrings):
        return Counter(result.counts_at[row])
    if isinstance(observable, Occupation):
        return result.occupation[row].tolist()
    if isinstance(observable, CorrelationMatrix):
        return result.correlation[row].tolist()
    if isinstance(observable, Energy):
        return float(result.energy[row])
    if isinstance(observable, EnergySecondMoment):
        return float(result.energy_second_moment[row])
    if isinstance(observable, EnergyVariance):
        return float(result.energy_variance[row])
    statevector = result.statevector_at[row]
    if isinstance(observable, StateResult):
        return SimenvState(statevector, eigenstates=eigenstates)
    amplitudes, atoms, basis = _amplitudes(observable.state)
    if (atoms, basis) != (len(result.atoms), eigenstates):
        text = f"the fidelity with a state of {atoms} atoms in {basis}"
        raise OptionError(text, hint=f"{len(result.atoms)} atoms in {eigenstates}")
    overlap = sum(np.conj(value) * statevector[k] for k, value in amplitudes.items())
    return float(abs(overlap) ** 2)


def _shots(config: EmulationConfig[Any], runs: int | None) -> int:
    """Return the number of shots; 0 without bit strings. Raises OptionError for several."""
    numbers = {
        each._num_shots or runs or config.default_num_shots
        for each in config.observables
        if isinstance(each, BitStrings)
    }
    if len(numbers) > 1:
        text = f"BitStrings of {sorted(numbers)} shots in one emulation"
        raise OptionError(text, hint="one num_shots, or several emulations")
    return numbers.pop() if numbers else 0


def _times(config: EmulationConfig[Any], observable: Observable, duration: int) -> list[float]:
    """Return the relative times at which an observable is evaluated, ascending."""
    times = observable.evaluation_times
    if times is None:
        times = config.default_evaluation_times
    if isinstance(times, str):  # "Full"
        places = np.linspace(0, duration, min(duration, MAX_TIMES) + 1)
        return [int(place) / duration for place in np.unique(np.round(places))]
    return [float(time) for time in times]

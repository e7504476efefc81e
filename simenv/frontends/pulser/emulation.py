"""Observables of Pulser's configurations as outputs of tasks, and results in Pulser's form.

Invariant: what a task is asked for and how its result is read depend on the configuration and on
the result alone, so that another process reads the results of a stored configuration.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pulser import NoiseModel
from pulser.backend import (
    AggregationMethod,
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
from simenv.transpiler.atoms import driven_bases

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
_NOT_RANDOM = {"SPAM", "dmm_crosstalk"}  # but errors of preparation
# Options of tasks that configurations and jobs decide, and where.
_DECIDED = {
    "shots": "num_shots of BitStrings, default_num_shots of a configuration, or runs of a job",
    "outputs": "observables of a configuration",
    "observables": "observables of a configuration",
    "evaluation_times": "evaluation_times of an observable of a configuration",
    "parameter_values": "Sequence.build(), or variables of a job",
    "binding_index": "the number of a job in its batch",
}
_OF_CONFIG = {
    "modulation": "with_modulation", "trajectories": "n_trajectories", "tolerance": "tolerance",
}  # fmt: skip
_SKIPPED = {AggregationMethod.SKIP, AggregationMethod.SKIP_WARN}
_SPREAD = AggregationMethod.MEANSTD
# Values of a result that have standard errors, by observable; "expectation_at" of the others.
_WITH_ERRORS: Mapping[type[Observable], str] = {
    Occupation: "occupation",
    CorrelationMatrix: "correlation",
    Energy: "energy",
    EnergySecondMoment: "energy_second_moment",
}


class SimenvConfig(EmulationConfig[SimenvState]):  # type: ignore[misc]  # pulser is untyped
    """Configuration of an emulation: Pulser's options, and those of a task.

    `seed`: of the samples and of the noise's draws; None: a random one. `tolerance`: goal of 1
    minus the fidelity of the evolution; None: the default of `Client.submit`. Each trajectory has
    the shots of `BitStrings` where the noise is drawn once for each trajectory, as in Pulser's
    emulators. Other noise has `n_trajectories` where that is above 1, else as many as `submit`.
    `default_evaluation_times="Full"`: each nanosecond, or a part of these, evenly spaced, where
    there are more than a task evaluates. An observable that aggregates trajectories by MEANSTD is a
    pair of mean and standard deviation where there are several, and one by SKIP is left out.
    """

    _enforce_expected_kwargs = True
    _state_type = SimenvState
    _operator_type = SimenvOperator

    def __init__(
        self, *, seed: int | None = None, tolerance: float | None = None, **options: Any
    ) -> None:
        """Raises OptionError for an initial state, an interaction matrix, callbacks and observables
        that no worker computes, ValueError for unknown options."""
        if "backend_options" in options:  # Pulser would check none of them
            raise OptionError("backend_options= of an emulation", hint="each as an argument")
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
    method = observable.default_aggregation_method
    means = {AggregationMethod.MEAN, _SPREAD}
    own = {
        BitStrings: {AggregationMethod.BAG_UNION}, EnergyVariance: set(), StateResult: {method},
    }  # fmt: skip
    if method not in _SKIPPED | own.get(type(observable), means):
        text = f"default_aggregation_method {method!r} of the observable {observable.tag!r:.80}"
        raise OptionError(text, hint="MEAN or MEANSTD of values, BAG_UNION of BitStrings")


def checked_config(config: Any) -> SimenvConfig:
    """Return the configuration of any backend as a SimenvConfig. Raises OptionError, ValueError."""
    if isinstance(config, SimenvConfig):
        return config
    if not isinstance(config, EmulationConfig):
        hint = "an EmulationConfig; without one, runs= of each job is its number of shots"
        raise OptionError(f"config={config!r:.80} of an emulation", hint=hint)
    return SimenvConfig(**config._backend_options)


def checked_task_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for all tasks. Raises OptionError for those that configurations and jobs
    decide."""
    for name, hint in _DECIDED.items():
        if options.get(name) is not None:
            raise OptionError(f"{name}= of all tasks: {options[name]!r:.80}", hint=hint)
    return dict(options)


def _noise(config: SimenvConfig, device: Any, given: Mapping[str, Any]) -> Any:
    """Return the noise as `Client.submit` takes it; "off": none."""
    named = given.get("noise")
    if named is None:
        is_preferred = config.prefer_device_noise_model
        is_emulated = given.get("device") is not None
        if is_preferred and (
            is_emulated or (given.get("pool") and not config.noise_model.noise_types)
        ):
            return "auto"  # the service knows the noise of its devices
        model = device.noise_model if is_preferred else None
        model = model or config.noise_model
    elif named in ("auto", "on") and given.get("device") is None and given.get("pool") is None:
        model = device.noise_model
    else:
        return named
    return model if model is not None and model.noise_types else "off"


def _settings(config: SimenvConfig, given: Any) -> Any:
    """Return the options of the engine. `given`: those of the task."""
    settings: dict[str, float] = {"modulation": int(config.with_modulation)}
    if config.tolerance is not None:
        settings["tolerance"] = config.tolerance
    if given is not None and not isinstance(given, Mapping):
        return given  # which `Client.submit` refuses
    for name, place in _OF_CONFIG.items():
        if name in (given or {}):
            hint = f"{place}= of the configuration"
            raise OptionError(f"the option {name!r} of an emulation's task", hint=hint)
    return settings | dict(given or {})


def submit_options(
    config: SimenvConfig,
    built: Any,
    runs: int | None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the options of `Client.submit` for a sequence that has values for its variables.
    `runs`: shots in place of the default of the configuration. `given`: of the task; its noise
    takes the place of the configuration's, whose seed comes before its. Raises OptionError."""
    given = checked_task_options(given or {})
    if built.is_parametrized() or built.is_register_mappable():
        hint = _DECIDED["parameter_values"]
        raise OptionError("an emulation of a sequence without values of its variables", hint=hint)
    _check_states(config, built)
    noise = _noise(config, built.device, given)
    is_noisy = not (isinstance(noise, str) and noise == "off")
    settings = _settings(config, given.get("options"))
    shots = _shots(config, runs)
    if isinstance(noise, NoiseModel):
        kinds = set(noise.noise_types)
        if not noise.amp_sigma:
            kinds.discard("amplitude")  # the profile of the beam alone
        is_drawn = bool(_DRAWN & kinds) or noise.state_prep_error > 0.0
        if is_drawn:
            shots *= config.n_trajectories
        if is_drawn or config.n_trajectories > 1:
            is_random = is_drawn or kinds - _NOT_RANDOM
            settings["trajectories"] = config.n_trajectories if is_random else 1
    elif is_noisy and config.n_trajectories > 1:
        settings["trajectories"] = config.n_trajectories
    sums = [each for part in _pauli_sums(config, is_noisy) for each in part.sums]
    outputs = {_OUTPUTS[type(each)] for each in config.observables}
    if is_noisy and not any(isinstance(each, StateResult) for each in config.observables):
        outputs.discard("statevector")  # fidelities of noisy states are expectation values
    if sums:
        outputs.add("expectation")
    duration = int(built.get_duration(include_fall_time=config.with_modulation))
    times = {time for each in config.observables for time in _times(config, each, duration)}
    seed = given.get("seed") if config.seed is None else config.seed
    return given | {
        "shots": shots or None,
        "outputs": tuple(sorted(outputs)),
        "observables": sums or None,
        "evaluation_times": sorted(times),
        "noise": noise,
        "options": settings,
        "seed": seed,
    }


def _check_states(config: SimenvConfig, built: Any) -> None:
    """Raise OptionError for observables of another basis than that of the sequence, or of another
    number of atoms."""
    bases = driven_bases(built)
    if len(bases) != 1:
        return  # workers say so
    states, atoms = BASES[bases.pop()], len(built.register.qubits)
    for observable in config.observables:
        what = f"the observable {observable.tag!r:.80}"
        one = getattr(observable, "one_state", None)
        if one not in (None, states[1]):
            hint = f"{states[1]!r}, or leave it out"
            raise OptionError(f"one_state={one!r} of {what} of atoms in {states}", hint=hint)
        if isinstance(observable, Expectation):
            _, number, basis = _operator_terms(observable.operator)
        elif isinstance(observable, Fidelity):
            _, number, basis = _amplitudes(observable.state)
        else:
            continue
        if number != atoms or basis not in (states, ("0", "1")):
            text = f"{what} is one of {number} atoms in {basis}"
            raise OptionError(text, hint=f"{atoms} atoms in {states}, as the sequence has")


def results_of(config: SimenvConfig, result: PulseResult) -> Results:
    """Return the results of a task in Pulser's form."""
    results = Results(atom_order=result.atoms, total_duration=result.duration_ns)
    eigenstates = BASES[result.basis]
    means = {part.tag: part for part in _pauli_sums(config, not _has_state(result))}
    for observable in config.observables:
        method = observable.default_aggregation_method if result.trajectories > 1 else None
        if method in _SKIPPED and not isinstance(observable, EnergyVariance):
            continue
        for time in _times(config, observable, result.duration_ns):
            row = int(np.argmin(np.abs(result.evaluation_times - time)))
            mean = means.get(observable.tag)
            if mean is not None:
                value: Any = mean.value(result.expectation_at[row])
            else:
                value = _value(observable, result, row, eigenstates)
            if method is _SPREAD:
                value = value, _deviation(observable, result, row, mean)
            results._store(observable=observable, time=time, value=value)
    return results


def _deviation(
    observable: Observable, result: PulseResult, row: int, mean: _PauliSums | None
) -> Any:
    """Return the standard deviation over the trajectories of an observable's value."""
    errors = result.standard_error(_WITH_ERRORS.get(type(observable), "expectation_at"))[row]
    deviations = errors * math.sqrt(result.trajectories)
    if mean is None:
        return deviations.tolist()
    own = deviations[mean.first : mean.first + len(mean.sums)]
    deviation = float(np.linalg.norm(own))  # of a complex number: of its distance from the mean
    return deviation if len(own) == 1 else complex(deviation)


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


def _pauli_sums(config: SimenvConfig, is_noisy: bool) -> list[_PauliSums]:
    """Return the sums of the observables that are expectation values."""
    result: list[_PauliSums] = []
    first = 0
    for observable in config.observables:
        if isinstance(observable, Expectation):
            terms, atoms, _ = _operator_terms(observable.operator)
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


def _operator_terms(operator: Any) -> tuple[PauliTerms, int, tuple[str, str]]:
    """Return terms, atoms and basis of an operator of any backend."""
    if isinstance(operator, SimenvOperator):
        return operator.terms, operator.n_qudits, operator.eigenstates
    given = operator._to_abstract_repr()
    basis, atoms = basis_of(given["eigenstates"]), given["n_qudits"]
    return pauli_terms(basis, atoms, given["operations"]), atoms, basis


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
    amplitudes, _, _ = _amplitudes(observable.state)
    overlap = sum(np.conj(value) * statevector[k] for k, value in amplitudes.items())
    return float(abs(overlap) ** 2)


def _shots(config: SimenvConfig, runs: int | None) -> int:
    """Return the number of shots; 0 without bit strings. Raises OptionError for several."""
    if runs is not None and runs < 1:
        raise OptionError(f"runs={runs!r:.80} of a job", hint="1 or more")
    numbers = {
        each._num_shots or runs or config.default_num_shots
        for each in config.observables
        if isinstance(each, BitStrings)
    }
    if len(numbers) > 1:
        text = f"BitStrings of {sorted(numbers)} shots in one emulation"
        raise OptionError(text, hint="one num_shots, or several emulations")
    return numbers.pop() if numbers else 0


def _times(config: SimenvConfig, observable: Observable, duration: int) -> list[float]:
    """Return the relative times at which an observable is evaluated, ascending."""
    times = observable.evaluation_times
    if times is None:
        times = config.default_evaluation_times
    if isinstance(times, str):  # "Full"
        places = np.linspace(0, duration, min(duration, MAX_TIMES) + 1)
        return [int(place) / duration for place in np.unique(np.round(places))]
    return [float(time) for time in times]

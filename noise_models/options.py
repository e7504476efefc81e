"""Options of a noise model: the recipe, factors of noise components and replaced values."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping

import msgspec

from noise_models.strict_json import STAR_US, NoiseError, known_names

COMPONENTS = (
    "gate.depolarizing",  # the rest of the measured gate error
    "gate.coherent",  # over-rotation
    "gate.layer",  # Pauli-Lindblad error of gates that act at the same time
    "gate.crosstalk",  # static ZZ interaction with neighbours
    "gate.leakage",  # leakage to a third level, and seepage from it
    "link.pair",  # error of the pair of a link
    "link.wait",  # T1 and T2 while others await the pair of a link
    "qubit.relaxation",  # T1 and T2 during gates and readout
    "qubit.t1_jumps",  # more relaxation while a jump by a two-level system makes T1 low
    "qubit.idle",  # T1 and T2 while a qubit waits
    "qubit.quasistatic",  # detuning that is constant during a shot: T2* beside T2
    "qubit.memory",  # dephasing in each layer of gates on two or more qubits
    "qubit.measurement",  # transitions of a measured qubit beside relaxation
    "qubit.measurement_crosstalk",  # dephasing and rotation of others by a measurement
    "qubit.thermal",  # population of |1> in equilibrium
    "qubit.preparation",  # |1> at the start
    "qubit.reset",  # |1> after a reset
    "qubit.readout",  # confusion of outcomes
    "qubit.correlated_readout",  # confusion of qubits that are read together
    "atom.preparation",  # of devices that run pulse sequences: atoms that are not prepared
    "atom.detection",  # false positives and negatives
    "atom.temperature",  # Doppler shifts, and motion in the traps
    "atom.amplitude",  # deviation of the Rabi frequency between shots
    "atom.waist",  # profile of the lasers of global channels
    "atom.detuning",  # deviation of the detuning between shots
    "atom.relaxation",  # T1 of the Rydberg state
    "atom.dephasing",  # pure dephasing
    "atom.depolarizing",
)
GROUPS = ("all", "gate", "link", "qubit", "atom")
# Values that replace the measured ones of every qubit, gate or pair: name -> largest value.
VALUES = {
    "gate.error_1q": 1.0, "gate.error_2q": 1.0, "gate.over_rotation_rad": math.pi,
    "gate.zz_angle_rad": math.pi, "gate.iz_angle_rad": math.pi,
    "gate.zz_khz": 1e6, "gate.zz_strength": 10.0,
    "gate.leakage_1q": 1.0, "gate.leakage_2q": 1.0, "gate.seepage": 1.0,
    "qubit.t1_us": math.inf, "qubit.t2_us": math.inf, "qubit.t2_star_us": math.inf,
    "qubit.excited": 1.0,
    "qubit.p01": 1.0, "qubit.p10": 1.0, "qubit.leaked_readout": 1.0,
    "qubit.leaked_t1_us": math.inf,
    "qubit.preparation_error": 1.0, "qubit.reset_error": 1.0,
    "qubit.memory_error": 1.0, "qubit.measure_decay": 1.0, "qubit.measure_excitation": 1.0,
    "qubit.readout_decided": 1.0,
    "qubit.measurement_crosstalk_error": 1.0,
    "atom.state_prep_error": 1.0, "atom.p_false_pos": 1.0, "atom.p_false_neg": 1.0,
    "atom.temperature_uk": 1e6, "atom.trap_waist_um": 1e6, "atom.trap_depth_uk": 1e9,
    "atom.amplitude_sigma": 1.0, "atom.laser_waist_um": 1e6, "atom.detuning_sigma_rad_us": 1e6,
    "atom.t1_us": math.inf, "atom.t_phi_us": math.inf, "atom.hyperfine_t_phi_us": math.inf,
    "atom.depolarizing_per_us": 1e6,
}  # fmt: skip
LARGEST_FACTOR = 1e9  # so that products of three factors and any calibrated value are finite
_TIMES = (
    *("qubit.t1_us", "qubit.t2_us", "qubit.t2_star_us", "qubit.leaked_t1_us"),
    *("atom.t1_us", "atom.t_phi_us", "atom.hyperfine_t_phi_us"),
)
_LENGTHS = ("atom.trap_waist_um", "atom.trap_depth_uk", "atom.laser_waist_um")
RECIPES = ("simenv", "aer", "aer-properties")
_RECIPE = "recipe."
_IDLE = "recipe.idle"
_KNOWN = f"on, off, a recipe ({', '.join(RECIPES)}), or factors of components"


class NoiseOptions(msgspec.Struct, frozen=True):
    """Options that turn a calibration snapshot into a noise model. The factor of `gate` multiplies
    all components whose names begin with `gate.`; the factor of `all` multiplies every component.
    Factors of one component are multiplied together. Tuples are sorted, and a factor of 1 is
    omitted: equal options have equal fields."""

    recipe: str = "simenv"
    idle: bool = True  # noise of idle time, from a schedule of the circuit
    factors: tuple[tuple[str, float], ...] = ()
    values: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def parse(value: str | Mapping[str, object] | Iterable[tuple[object, ...]]) -> NoiseOptions:
        """Parse options from `"on"`, `"off"`, a recipe's name, a mapping, or the pairs of `wire`.

        A mapping has names of `COMPONENTS`, `GROUPS` or `VALUES`, and also `recipe` and `idle`.
        Raises NoiseError.
        """
        if isinstance(value, str):
            return _named(value)
        pairs: list[tuple[str, object]] = []
        for pair in value.items() if isinstance(value, Mapping) else value:
            name = pair[0] if len(pair) == 2 else None
            if not isinstance(name, str):
                raise NoiseError(f"noise option {pair!r}", hint="pairs of a name and a number")
            pairs.append((name, pair[1]))
        return _parsed(pairs)

    def wire(self) -> tuple[tuple[str, float], ...]:
        """Return canonical pairs, sorted by name; `parse` converts them to equal options."""
        results = [*self.factors, *self.values]
        if self.recipe != "simenv":
            results.append((_RECIPE + self.recipe, 1.0))
        if not self.idle:
            results.append((_IDLE, 0.0))
        return tuple(sorted(results))

    def factor(self, component: str) -> float:
        """Return the factor of one component: the product over its name and the groups that contain
        it."""
        return _factor(self.factors, component)

    def replaced(self, name: str) -> float | None:
        """Return the value that replaces the measured ones; None: the measured ones are used."""
        return dict(self.values).get(name)


@functools.lru_cache(maxsize=4096)
def _factor(factors: tuple[tuple[str, float], ...], component: str) -> float:
    groups = ("all", component.partition(".")[0], component)
    return math.prod(factor for name, factor in factors if name in groups)


def _named(value: str) -> NoiseOptions:
    if value == "on":
        return NoiseOptions()
    if value == "off":
        return NoiseOptions(factors=(("all", 0.0),))
    if value in RECIPES:
        return NoiseOptions(recipe=value)
    raise NoiseError(f"noise {value!r}", hint=_KNOWN)


def _parsed(items: list[tuple[str, object]]) -> NoiseOptions:
    recipes: list[str] = []
    idle = True
    factors: dict[str, float] = {}
    values: dict[str, float] = {}
    inputs = [name for name, _ in items]
    for name, value in items:
        if inputs.count(name) > 1 or (name == _IDLE and "idle" in inputs):
            raise NoiseError(f"noise option {_shown(name)!r} is given twice", hint="give it once")
        if name == "recipe" or (name.startswith(_RECIPE) and name != _IDLE):
            recipes.append(_recipe(name, value))
        elif name in ("idle", _IDLE):
            idle = _switch(name, value)
        elif name in COMPONENTS or name in GROUPS:
            factors[name] = _number(name, value, LARGEST_FACTOR)
        elif name in VALUES:
            values[name] = _number(name, value, VALUES[name])
        else:
            options = ("recipe", "idle", *GROUPS, *COMPONENTS, *VALUES)
            raise NoiseError(f"unknown noise option {name!r}", hint=known_names(name, options))
    if len(recipes) > 1:
        raise NoiseError(f"noise recipes {' and '.join(recipes)}", hint="give one recipe")
    recipe = recipes[0] if recipes else "simenv"
    changed = tuple(sorted((name, each) for name, each in factors.items() if each != 1.0))
    return NoiseOptions(recipe, idle, changed, tuple(sorted(values.items())))


def _recipe(name: str, value: object) -> str:
    if name == "recipe":
        result = value
    elif value == 1.0:
        result = name.removeprefix(_RECIPE)
    else:
        raise NoiseError(f"{name} = {value!r}", hint="1.0 chooses the recipe")
    if result not in RECIPES:
        raise NoiseError(f"unknown noise {result!r}", hint=_KNOWN)
    return str(result)


def _shown(name: str) -> str:
    """Return the name of an option as the user gives it."""
    return "idle" if name == _IDLE else name


def _switch(name: str, value: object) -> bool:
    if value not in (0, 1):
        raise NoiseError(f"noise option {_shown(name)} = {value!r}", hint="True or False")
    return bool(value)


def _number(name: str, value: object, largest: float) -> float:
    positive = name in _TIMES or name in _LENGTHS
    least = STAR_US[0] if name == "qubit.t2_star_us" else 0.0
    hint = f"a number from 0 to {largest:g}"
    if name in _LENGTHS:
        hint = f"a number above 0, at most {largest:g}"
    elif positive:
        hint = f"microseconds, at least {least:g}" if least else "microseconds, above 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoiseError(f"noise option {name} = {value!r}", hint=hint)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not (math.isfinite(result) and least <= result <= largest) or (positive and not result):
        raise NoiseError(f"noise option {name} = {value!r}", hint=hint)
    return result + 0.0  # -0.0 becomes 0.0

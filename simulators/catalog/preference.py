"""Preferences of `auto`: expected operations of the engines, ranks, objections and reasons.

Operations are counted from the profile alone, in a unit of which a core does about seven in a
nanosecond: no clock, nothing learned. They order the engines and end trials (see
`simulators.chain.trial`); the memory of a pool is considered elsewhere.
"""

import math

from simulators.catalog.costs import SMALL_QUBITS
from simulators.circuit.analysis.profile import ChainTrial, Profile

EXACT_QUBITS = 14  # up to this width values with noise are those of the density matrix
DENSE_QUBITS = 20  # up to this width all amplitudes are the least work
GPU_QUBITS = 22  # from this width on a GPU's launches take less than its sweeps
LIGHT_BITS = 6  # with bonds of at most 2**6, no contraction path is searched for
AUTO_BITS = 8  # bonds of up to 2**8 are exact with the default of the option `bond`
HOPELESS_BITS = 16  # no run is tried whose bonds would grow to 2**16 at the rate of its trial
AUTO_WIDTH = 20  # tensors of up to 2**20 values are contracted for each amplitude of a sample
AUTO_OPERATIONS = 5 * 10**15  # limit of operations of tensor splits: a week
AUTO_TOLERANCE = 1e-6  # discarded weight above which a run ends with an error
TRIAL_OPERATIONS = 6 * 10**9  # about a second
# With noise: bonds of longer trajectories matter no more, since 1,000 would take five minutes.
NOISY_TRIAL_OPERATIONS = 2 * 10**9
_TRIAL_SHARE = 6  # a trial may take this fraction of the alternative's operations, which are too
# many for circuits in native gates: gates on one qubit are merged
_LEAST_TRIAL = 5 * 10**7
_PRICED_BITS = 3  # the bound of wider bonds is no price of trajectories

_LAST = 80  # rank of an engine whose success is uncertain

_SWEEP, _SWEEP_GATE = 22, 0.44  # for one amplitude: all passes, and the addition of a gate
_SPLIT = 800  # for a gate on neighbours, times the bond cubed
_CALL = 1_300_000  # overhead of a gate on neighbours
_SITE = 1_000_000  # samples of a site
_DOUBLE = 1.1  # relative to a trial, in double precision
_FACTOR, _CODE = 70_000, 3_500  # a gate of a network of samples, and a message
_SEARCH = 250_000_000  # for the order of the messages, at most
_MESSAGE, _PRODUCT = 420, 22  # for eight shots: a message, and a product of values
_SWEPT = 5  # a value that a shot of a sweep passes over
_PROPAGATED, _LOWERED = 28, 70_000  # a string in a step; a gate before that
EXACT_FACTOR = 100  # work that exact values may take, relative to values with a stated error
DMT_ADVANTAGE = 10  # time that counts without an error may take, relative to those of `dmt`
_STEP = 5_000  # an integer of its program, made and read
_LINE, _SIGN, _ACTIVE = 140_000, 40, 10  # an operation, once and in a shot; an active amplitude
_ROWS = 1_000  # shots for comparisons


def _gates(profile: Profile) -> int:
    return profile.gates_1q + profile.gates_2q + profile.gates_many


def _power(width: int) -> float:
    """2**width, within the range of floats."""
    return 2.0 ** min(width, 900)


def statevector_operations(profile: Profile, width: int) -> float:
    """Operations of all amplitudes of `width` qubits; a dynamic circuit has several states."""
    return (
        _power(width) * (_SWEEP + _SWEEP_GATE * _gates(profile)) * (4 if profile.mid_circuit else 1)
    )


def mps_operations(profile: Profile) -> float:
    """Operations of a matrix product state, from its trial as far as that went, and from its bound
    beyond. A dynamic circuit has one state for each history of outcomes."""
    sites, trial = _SITE * profile.num_qubits, profile.trial
    bits = AUTO_BITS if profile.bond_bits < 0 else min(profile.bond_bits, AUTO_BITS)
    growing = max(1.0, math.log(8.0) * bits)  # mean during the growth, not the end
    gates = profile.gates_2q + profile.gates_many
    hops = float(gates * max(1, 2 * profile.longest - 1))  # distant qubits go there and back
    bound = sites + hops * (_CALL + _SPLIT * 8.0**bits / growing)
    if profile.mid_circuit:
        return bound * min(_ROWS, 2.0 ** min(20, profile.measurements + profile.resets))
    if trial is None or not trial.part:
        return bound
    if trial.done:
        return sites + _DOUBLE * trial.operations
    return min(bound, sites + _DOUBLE * trial.operations / trial.part**3)


def contraction_operations(profile: Profile) -> float:
    """Operations of samples by contraction; infinite if the width is unknown."""
    if profile.contraction_width < 0:
        return float("inf")
    messages, products = profile.contraction_messages, profile.contraction_operations
    work = _FACTOR * _gates(profile) + _CODE * messages + min(_SEARCH, 0.7 * products)
    return work + _ROWS / 8 * (_MESSAGE * messages + _PRODUCT * products)


def sweep_operations(profile: Profile) -> float:
    """Operations of samples by sweeps; infinite if their size is unknown."""
    size = profile.sweep
    if size is None:
        return float("inf")
    return _ROWS * _SWEPT * _power(math.ceil(size.bits)) + size.steps * _STEP


def pauli_operations(profile: Profile) -> float:
    """Operations of propagated strings; infinite if trials did not reach the tolerance."""
    size = profile.strings
    if size is None or not size.certified:
        return float("inf")
    return size.terms * size.work * _PROPAGATED + profile.operations * _LOWERED


def near_clifford_operations(profile: Profile) -> float:
    """Operations of shots with few active qubits; infinite if their number is unknown."""
    size = profile.active
    if size is None:
        return float("inf")
    return _LINE * profile.operations + _ROWS * (_SIGN * profile.operations + _ACTIVE * size.work)


def trial_operations(profile: Profile, width: int, *, noisy: bool = False) -> int:
    """Limit of operations of a trial of the bonds; 0: no trial is needed, or none would decide.
    `width`: of the alternative statevector, which up to DENSE_QUBITS takes about as long as a
    trial. `noisy`: each shot may be a trajectory, which takes as long as a trial."""
    if profile.mid_circuit or profile.clifford or width <= DENSE_QUBITS:
        return 0
    other = min(
        statevector_operations(profile, width),
        contraction_operations(profile),
        sweep_operations(profile),
        EXACT_FACTOR * pauli_operations(profile),
        near_clifford_operations(profile),
    )
    is_priced = not noisy or profile.bond_bits <= _PRICED_BITS
    if is_priced and _is_known(profile) and mps_operations(profile) <= other / 2:
        return 0
    most, share = (NOISY_TRIAL_OPERATIONS, _ROWS) if noisy else (TRIAL_OPERATIONS, _TRIAL_SHARE)
    limit = int(min(most, other / share))
    return limit if limit >= _LEAST_TRIAL else 0


def _is_known(profile: Profile) -> bool:
    """Return whether the bonds are known to be small enough."""
    trial = profile.trial
    if trial is not None and trial.done:
        return True
    return 0 <= profile.bond_bits <= AUTO_BITS


def statevector_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of the statevector engine: 0 for a small state; else by its operations."""
    return 0 if num_qubits <= SMALL_QUBITS else _place(0, profile, num_qubits)


def gpu_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of the GPU: just before the processor's statevector from `GPU_QUBITS` on, else just
    after it."""
    place = statevector_rank(profile, num_qubits)
    return place - 1 if num_qubits >= GPU_QUBITS else place + 1


def stabilizer_rank(_profile: Profile, _num_qubits: int) -> int:
    """Rank of the stabilizer engine: before all engines but that of small states."""
    return 10


def mps_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of the engine `mps`: by its operations if its bonds are known; else after engines that
    are sure to succeed."""
    if _is_known(profile):
        return _place(1, profile, num_qubits)
    return _LAST


def contraction_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of the engine `contraction`: by its operations; after unknown bonds if it takes far
    longer."""
    if not _is_known(profile) and mps_operations(profile) < contraction_operations(profile) / 10:
        return _LAST + 10
    return _place(2, profile, num_qubits)


def sweep_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of the engine `sweep`: by its operations."""
    return _place(3, profile, num_qubits)


def gpu_sweep_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of sweeps on a GPU: just before those on the processor."""
    return sweep_rank(profile, num_qubits) - 1


def _place(which: int, profile: Profile, num_qubits: int) -> int:
    """Rank among statevector, mps, contraction, sweep, pauli and near_clifford by operations."""
    each = (
        statevector_operations(profile, num_qubits),
        mps_operations(profile),
        contraction_operations(profile),
        sweep_operations(profile),
        EXACT_FACTOR * pauli_operations(profile),
        near_clifford_operations(profile),
    )
    return 20 + 10 * sorted(range(len(each)), key=each.__getitem__).index(which)


def mps_objection(profile: Profile) -> str:
    """Objection from the trial, or from the bound without a trial; or the number of operations."""
    trial = profile.trial
    if trial is None and not (_is_known(profile) or profile.mid_circuit):
        bound = "unknown" if profile.bond_bits < 0 else f"2^{profile.bond_bits}"
        return (
            f"its bonds may need {bound} values, and auto allows 2^{AUTO_BITS}: asked for by name,"
            " it cuts off what is beyond its option bond"
        )
    if trial is not None and not trial.done and trial.part:
        grown = math.log2(trial.bond) / trial.part
        if trial.bond > 1 << AUTO_BITS or grown >= HOPELESS_BITS:
            return (
                f"{_how_far(trial)}, 2^{grown:.0f} at that rate, and auto allows 2^{AUTO_BITS}:"
                " asked for by name, it cuts off what is beyond its option bond"
            )
    if mps_operations(profile) > AUTO_OPERATIONS:
        return f"more than {AUTO_OPERATIONS:.0e} operations: ask for it by name to run it"
    return ""


def mps_reason(profile: Profile) -> str:
    """Reason for `mps`: its bonds, as bounded or as tried."""
    trial = profile.trial
    if trial is not None and trial.done:
        return _how_far(trial)
    if 0 <= profile.bond_bits <= AUTO_BITS:
        return f"at most 2^{profile.bond_bits} values cross any cut between them"
    return f"{_how_far(trial)}; it fails if it has to cut off more than {AUTO_TOLERANCE:g}"


def _how_far(trial: ChainTrial | None) -> str:
    if trial is None or not trial.part:
        return "its bonds are not known"
    gates = "its gates" if trial.part == 1.0 else f"{trial.part:.0%} of its gates"
    return f"bonds up to {trial.bond} in a trial of {gates}"


def contraction_objection(profile: Profile) -> str:
    """Objection to a wide network: the engine has no bound before it searches for a path, so `auto`
    requires a narrow one."""
    if profile.num_qubits <= DENSE_QUBITS or 0 <= profile.bond_bits <= LIGHT_BITS:
        return "another engine takes narrow circuits and small bonds"
    width = profile.contraction_width
    if 0 <= width <= AUTO_WIDTH:
        return ""
    bound = "unknown, or above 2^30" if width < 0 else f"2^{width}"
    return (
        f"its largest tensor may have {bound} values, auto allows 2^{AUTO_WIDTH}: asked for by"
        " name, it searches for a path and slices it, or refuses it with the bytes it needs"
    )


def contraction_reason(profile: Profile) -> str:
    """Reason for `contraction`: the width of an amplitude."""
    return f"the largest tensor of an amplitude has at most 2^{profile.contraction_width} values"


def densitymatrix_rank(_profile: Profile, _num_qubits: int) -> int:
    """Rank of the density matrix among engines for circuits with noise, which are chosen by
    expected times."""
    return 50


def dmt_rank(_profile: Profile, _num_qubits: int) -> int:
    """Rank of truncated density operators among engines for circuits with noise."""
    return 60


def dmt_objection(profile: Profile) -> str:
    """Objection to results with an error where others are exact or the error is not small."""
    noise = profile.noise
    if noise is None or not noise.kinds - {"readout"}:
        return "without noise of gates or qubits what it cuts off is not small"
    if (noise.num_qubits or profile.num_qubits) <= EXACT_QUBITS:
        return "another engine gives exact results of so few qubits"
    return ""


def dmt_reason(_profile: Profile) -> str:
    """Reason for `dmt`: it states its error."""
    return (
        "truncated density operators, with an error that is measured beside the run and stated;"
        f" exact results would take more than {DMT_ADVANTAGE:g} times as long, if there are any"
    )


def sweep_objection(profile: Profile) -> str:
    """Objection to sweeps whose size is not known."""
    if profile.sweep is None:
        return "samples wide circuits whose measurements end them, of at most 20,000 operations"
    return ""


def sweep_reason(profile: Profile) -> str:
    """Reason for `sweep`: the size of its tensors."""
    size = profile.sweep
    if size is None:
        return "the size of its sweeps is not known"
    return f"sweeps over {size.layers} layers with tensors of 2^{size.axes} values, exact"


def pauli_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of the engine `pauli`: by its operations, if trials reached the tolerance."""
    if profile.strings is not None and profile.strings.certified:
        return _place(4, profile, num_qubits)
    return _LAST + 20


def pauli_objection(profile: Profile) -> str:
    """Objection to values with an error where others are exact, and to strings that were not
    tried."""
    width, kept = profile.num_qubits, profile.kept
    limit, noise = DENSE_QUBITS, profile.noise
    if noise is not None and noise.kinds:
        width, limit = noise.num_qubits or width, EXACT_QUBITS
    elif kept is not None:
        width = min(width, kept.widest)
    if width <= limit:
        return "another engine gives exact values of so few qubits"
    if profile.strings is None:
        return "no strings were tried: it takes expectation values of at most 20,000 operations"
    return ""


def pauli_reason(profile: Profile) -> str:
    """Reason for `pauli`: the error that it states."""
    size = profile.strings
    if size is None:
        return "its strings were not tried"
    text = f"Pauli propagation of {size.terms} strings, which are cut, with a stated error of at"
    text += f" most {size.tolerance:g} of each observable"
    return text if size.certified else f"{text}, which trials of a few strings did not reach"


def near_clifford_rank(profile: Profile, num_qubits: int) -> int:
    """Rank of the engine `near_clifford`: by its operations."""
    return _place(5, profile, num_qubits)


def near_clifford_objection(profile: Profile) -> str:
    """Objection to conditions, and to circuits that other engines run in as little time."""
    if profile.conditions:
        return "conditions may be more than parities of clbits: select it by name to try"
    if profile.clifford:
        return "the engine stabilizer runs Clifford circuits"
    is_noisy = profile.noise is not None and bool(profile.noise.kinds)
    if not is_noisy and 0 <= profile.bond_bits <= LIGHT_BITS:
        return "another engine takes small bonds"
    return ""


def near_clifford_reason(profile: Profile) -> str:
    """Reason for `near_clifford`: its active qubits."""
    size = profile.active
    if size is None:
        return "its active qubits are not known"
    return f"{size.qubits} of them active in {size.rotations} gates that are no Clifford gates"

"""Matching of one patch after the other, for circuits with transversal CX between patches.

CX makes errors that flip detectors of two patches and more than two detectors, which matching does
not take. But errors of X spread from the control to the target alone: the control's detectors can
be matched by themselves, and what its errors flip in the target is then known. So the detectors are
matched in an order, each patch with the flips that the patches before it explain (Sahay et al.,
arXiv 2408.01393; Wan et al., arXiv 2407.20976).

The circuit says the order by the last two coordinates of its detectors: DETECTOR(x, y, t, order,
kind). Detectors of one kind and order are matched together; kinds, such as checks of X and of Z,
have nothing to do with one another, and those without an observable are not matched at all. Without
these coordinates all detectors belong together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import stim
from numpy.typing import NDArray

Bits = NDArray[np.uint8]  # [shots, bytes], bit k in byte k // 8, lowest first
Symptoms = frozenset[int]
Errors = dict[tuple[Symptoms, Symptoms], float]  # detectors and observables -> probability
_COORDINATES = 5  # x, y, t, order, kind
_UNUSED = 1e3  # weight of an edge that stands for no error
_MOST = 1.0 - 1e-9  # probability of an edge: its weight is finite


class _Group(NamedTuple):
    kind: float
    order: float


class _Stage(NamedTuple):
    """Matching of one group. `flips`: what its predictions flip, observables or later detectors."""

    detectors: NDArray[np.int64]
    matching: Any
    observables: NDArray[np.int64]
    later: NDArray[np.int64]


class SequentialMatching:
    """Maker of decoders that match group after group; see `DecoderFactory`."""

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> _CompiledSequence:
        """Return the decoder of an error model that is not decomposed. Raises ValueError for an
        error that flips more than two detectors of one group."""
        groups = _groups(dem)
        errors = _errors(dem)
        kinds = _observed_kinds(errors, groups, dem.num_observables)
        stages: list[_Stage] = []
        for kind in sorted(set(kinds.values())):
            observed = {k for k, each in kinds.items() if each == kind}
            stages += _stages(errors, groups, kind, observed)
        return _CompiledSequence(stages, dem.num_detectors, dem.num_observables)


class _CompiledSequence:
    def __init__(self, stages: list[_Stage], num_detectors: int, num_observables: int) -> None:
        self._stages = stages
        self._num_detectors, self._num_observables = num_detectors, num_observables

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: Bits) -> Bits:
        """See `CompiledDecoder`."""
        packed = bit_packed_detection_event_data
        events = np.unpackbits(packed, axis=1, count=self._num_detectors, bitorder="little")
        flips = np.zeros((len(events), self._num_observables), np.uint8)
        for stage in self._stages:
            syndromes = np.zeros((len(events), stage.detectors.size + 1), np.uint8)  # the boundary
            syndromes[:, :-1] = events[:, stage.detectors]
            found = stage.matching.decode_batch(syndromes)
            split = stage.observables.size
            flips[:, stage.observables] ^= found[:, :split]
            events[:, stage.later] ^= found[:, split:]
        return np.packbits(flips, axis=1, bitorder="little")


def _groups(dem: stim.DetectorErrorModel) -> dict[int, _Group]:
    places = dem.get_detector_coordinates()
    return {
        detector: _Group(place[-1], place[-2]) if len(place) == _COORDINATES else _Group(0.0, 0.0)
        for detector, place in places.items()
    }


def _errors(dem: stim.DetectorErrorModel) -> Errors:
    """Return the probability of each set of symptoms."""
    results: Errors = {}
    for item in dem.flattened():
        if item.type != "error":
            continue
        detectors: set[int] = set()
        observables: set[int] = set()
        for target in item.targets_copy():
            if target.is_relative_detector_id():
                detectors ^= {target.val}
            elif target.is_logical_observable_id():
                observables ^= {target.val}
        _add(results, (frozenset(detectors), frozenset(observables)), item.args_copy()[0])
    return {symptoms: p for symptoms, p in results.items() if p}


def _add(errors: Errors, symptoms: tuple[Symptoms, Symptoms], probability: float) -> None:
    before = errors.get(symptoms, 0.0)
    errors[symptoms] = before + probability - 2.0 * before * probability


def _observed_kinds(
    errors: Errors, groups: Mapping[int, _Group], num_observables: int
) -> dict[int, float]:
    """Return the kind of detectors that tells the flips of each observable: that of the errors
    which flip it and detectors of one kind alone."""
    masses: dict[int, defaultdict[float, float]] = {
        observable: defaultdict(float) for observable in range(num_observables)
    }
    for (detectors, observables), probability in errors.items():
        kinds = {groups[detector].kind for detector in detectors}
        for observable in observables if len(kinds) == 1 else ():
            masses[observable][next(iter(kinds))] += probability
    return {k: max(mass, key=lambda kind: mass[kind]) for k, mass in masses.items() if mass}


def _stages(
    errors: Errors, groups: Mapping[int, _Group], kind: float, observed: set[int]
) -> Iterable[_Stage]:
    """Yield the matchings of a kind in their order. An error belongs to the first group whose
    detectors it flips."""
    own: Errors = {}
    for (detectors, observables), probability in errors.items():
        of_kind = frozenset(each for each in detectors if groups[each].kind == kind)
        if of_kind:
            _add(own, (of_kind, observables & observed), probability)
    by_order: defaultdict[float, Errors] = defaultdict(dict)
    for symptoms, probability in own.items():
        by_order[min(groups[each].order for each in symptoms[0])][symptoms] = probability
    for order, part in sorted(by_order.items()):
        members = sorted(each for each, group in groups.items() if group == (kind, order))
        yield _stage(part, members)


def _stage(errors: Errors, members: list[int]) -> _Stage:
    """Return the matching of one group. Of errors with the same detectors in the group, the most
    probable one tells what else is flipped."""
    import pymatching

    inside = frozenset(members)
    edges: defaultdict[Symptoms, list[tuple[float, Symptoms, Symptoms]]] = defaultdict(list)
    for (detectors, observables), probability in errors.items():
        edges[detectors & inside].append((probability, detectors - inside, observables))
    chosen = {}
    for ends, choices in edges.items():
        if len(ends) > 2:
            names = ", ".join(f"D{each}" for each in sorted(ends))
            raise ValueError(f"an error flips {len(ends)} detectors of one group: {names:.120}")
        _, later, observables = max(choices, key=lambda each: each[0])
        contrast = math.prod(1.0 - 2.0 * probability for probability, _, _ in choices)
        chosen[ends] = min(0.5 * (1.0 - contrast), _MOST), later, observables
    flipped = sorted({each for _, _, observables in chosen.values() for each in observables})
    known = sorted({each for _, later, _ in chosen.values() for each in later})
    column = {each: number for number, each in enumerate(flipped)}
    after = {each: len(flipped) + number for number, each in enumerate(known)}
    node = {each: number for number, each in enumerate(members)}
    matching = pymatching.Matching()
    boundary = len(members)
    matching.set_boundary_nodes({boundary})
    for ends, (probability, later, observables) in chosen.items():
        first, *rest = sorted(node[each] for each in ends)
        ids = {column[each] for each in observables} | {after[each] for each in later}
        matching.add_edge(
            first,
            rest[0] if rest else boundary,
            fault_ids=ids,
            weight=math.log((1.0 - probability) / probability),
            error_probability=probability,
        )
    for each in inside.difference(*chosen):  # no error flips it; matching needs an edge
        matching.add_edge(node[each], boundary, weight=_UNUSED)
    matching.ensure_num_fault_ids(len(flipped) + len(known))
    return _Stage(
        np.array(members, np.int64), matching, np.array(flipped, np.int64),
        np.array(known, np.int64),
    )  # fmt: skip

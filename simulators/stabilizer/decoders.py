"""Decoders of detection events: their interface, and those of this distribution.

The interface is that of sinter's decoders (`sinter.Decoder`, `sinter.CompiledDecoder`), so that a
decoder which is written for sinter needs no more than a card in `simulators.catalog.decoders`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import stim
from numpy.typing import NDArray

from simulators.catalog.decoders import BUILTIN as BUILTIN, DecoderCard, decoder_card
from simulators.engine import SHOTS, RunControl
from simulators.errors import EngineError, Unsupported

Bits = NDArray[np.uint8]  # [shots, bytes], bit k in byte k // 8, lowest first
CALL_S = 0.1  # intended time of a call of a decoder: between two reads of the control flag
FIRST_SHOTS, MAX_CALL_SHOTS = 1024, 8192
_TEXT = 400  # characters of a library's own message
_MOST_MIXED = {"DEPOLARIZE1": 0.75, "DEPOLARIZE2": 0.9375}  # all outcomes are as likely
OWN_DECODER = "decoder=None with outputs='memory' gives the events for a decoder of your own"


class CompiledDecoder(Protocol):
    """Decoder of one error model. The prediction for a shot depends on its events alone."""

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: Bits) -> Bits:
        """Return the predicted flips of the observables, uint8 [shots, ceil(observables / 8)], of
        detection events, uint8 [shots, ceil(detectors / 8)]."""


class DecoderFactory(Protocol):
    """Maker of decoders; a card names its class, which is called without arguments."""

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> CompiledDecoder:
        """Return the decoder of an error model. Raises ValueError for one that it cannot decode."""


class SyndromeDecoder:
    """A decoder of one circuit."""

    def __init__(self, name: str, circuit: stim.Circuit) -> None:
        """Make the decoder with that name. Raises Unsupported for a name that this worker does not
        have, and for a circuit whose errors the decoder does not take."""
        card = decoder_card(name)
        self.name = named_decoder(card)
        self._distinct = card.distinct
        self._width = -(-circuit.num_observables // 8)
        module, _, attribute = card.module.partition(":")
        factory: DecoderFactory = getattr(importlib.import_module(module), attribute)()
        rare = rare_errors(circuit, error_model(name, circuit))
        self._events, self._flips = rare.events, rare.flips
        try:
            self._compiled = factory.compile_decoder_for_dem(dem=rare.model)
        except ValueError as error:
            text = f"the circuit cannot be decoded by {name}: {_first_line(error)}"
            raise Unsupported(text, hint=OWN_DECODER) from error

    def predictions(self, events: Bits, control: RunControl) -> Bits:
        """Return predicted flips of the observables of each shot, which count as finished work of
        the run. Raises Stopped, EngineError."""
        if self._events is not None:
            events = events ^ self._events
        rows, inverse = events, None
        if self._distinct:
            rows, inverse = np.unique(events, axis=0, return_inverse=True)
        results: list[Bits] = []
        first, size = 0, 1 if self._distinct else FIRST_SHOTS
        while first < len(rows):
            control.check()
            begun = perf_counter()
            part = np.ascontiguousarray(rows[first : first + size])
            results.append(self._decoded(part))
            first += len(part)
            control.advance(SHOTS, len(part) * len(events) / len(rows))
            spent_s = perf_counter() - begun
            if spent_s > CALL_S:
                size = max(1, size // 2)
            elif spent_s < CALL_S / 4:
                size = min(2 * size, MAX_CALL_SHOTS)
        found = np.concatenate(results) if results else np.zeros((0, self._width), np.uint8)
        if self._flips is not None:
            found = found ^ self._flips
        return found if inverse is None else found[inverse.ravel()]

    def _decoded(self, part: Bits) -> Bits:
        try:
            found = self._compiled.decode_shots_bit_packed(bit_packed_detection_event_data=part)
        except ValueError as error:
            raise Unsupported(f"decoder {self.name}: {str(error)[:_TEXT]}") from error
        if found.shape != (len(part), self._width) or found.dtype != np.uint8:
            raise EngineError(
                f"decoder {self.name} returned {found.dtype} {list(found.shape)} for"
                f" {len(part)} shots; uint8 [{len(part)}, {self._width}] is needed"
            )
        return found


def error_model(name: str, circuit: stim.Circuit) -> stim.DetectorErrorModel:
    """Return the error model of a circuit for the decoder with that name. Raises Unsupported with
    the cause: an unknown name, a channel that mixes more than completely, a detector that is not
    deterministic, or an error that matching does not take."""
    decomposed = decoder_card(name).decomposed
    try:
        return _stim_model(circuit, decomposed=decomposed)
    except ValueError as error:
        text, hint = _cause(circuit, error, decomposed=decomposed)
        raise Unsupported(
            f"the circuit cannot be decoded by {name}: {text}", hint=f"{hint}; {OWN_DECODER}"
        ) from error


def _stim_model(circuit: stim.Circuit, *, decomposed: bool) -> stim.DetectorErrorModel:
    return circuit.detector_error_model(
        decompose_errors=decomposed, approximate_disjoint_errors=True
    )


def _cause(circuit: stim.Circuit, error: ValueError, *, decomposed: bool) -> tuple[str, str]:
    """Return why stim makes no error model of a circuit, and a hint."""
    for name, arguments in _noise(circuit):
        most = _MOST_MIXED.get(name, 1.0)
        if arguments[0] > most:
            text = f"{name}({arguments[0]:g}) mixes more than completely"
            return text, f"a probability of at most {most:g}"
    if decomposed:
        with suppress(ValueError):
            _stim_model(circuit, decomposed=False)
            text = "an error flips more than two detectors and cannot be split into known parts"
            return f"{text}: {_first_line(error)}", "decoder='ldpc' takes such errors"
    text = f"a detector or an observable is not deterministic without noise: {_first_line(error)}"
    return text, "compare measurements whose parity is fixed"


def _noise(circuit: stim.Circuit) -> Iterator[tuple[str, list[float]]]:
    """Yield name and probabilities of each instruction with noise."""
    for item in circuit:
        if isinstance(item, stim.CircuitRepeatBlock):
            yield from _noise(item.body_copy())
        elif stim.gate_data(item.name).is_noisy_gate and (found := item.gate_args_copy()):
            yield item.name, found


class RareErrors(NamedTuple):
    """An error model in which each error is at most as likely as not. An error above one half is
    one that always happens, and another one, with the rest of the probability, that undoes it:
    `events` and `flips` are what the former flip of detectors and observables, as packed bits;
    None: nothing."""

    model: stim.DetectorErrorModel
    events: NDArray[np.uint8] | None = None
    flips: NDArray[np.uint8] | None = None


def rare_errors(circuit: stim.Circuit, model: stim.DetectorErrorModel) -> RareErrors:
    """Return the model without errors above one half, and without those that never happen."""
    if all(0.0 < p <= 0.5 for _, arguments in _noise(circuit) for p in arguments):
        return RareErrors(model)  # sums of such errors are as rare
    result = stim.DetectorErrorModel()
    events = np.zeros(model.num_detectors, np.uint8)
    flips = np.zeros(model.num_observables, np.uint8)
    for item in model.flattened():
        if item.type != "error":
            result.append(item)
            continue
        (probability,) = item.args_copy()
        targets = item.targets_copy()
        if probability > 0.5:
            probability = 1.0 - probability
            for each in targets:
                if each.is_relative_detector_id():
                    events[each.val] ^= 1
                elif each.is_logical_observable_id():
                    flips[each.val] ^= 1
        if probability:
            result.append("error", probability, targets)
    # Those that nothing flips any more keep their numbers.
    if events.size:
        result.append("detector", [], [stim.target_relative_detector_id(events.size - 1)])
    if flips.size:
        last = stim.target_logical_observable_id(flips.size - 1)
        result.append("logical_observable", [], [last])
    pack = partial(np.packbits, bitorder="little")
    return RareErrors(result, pack(events), pack(flips))


def _first_line(error: ValueError) -> str:
    return " ".join(str(error).partition("\n\n")[0].split())[:_TEXT]


def named_decoder(card: DecoderCard) -> str:
    """Return the name of a decoder with the version of its package, if that is installed."""
    try:
        return f"{card.name} {version(card.package.modules[0])}"
    except PackageNotFoundError:
        return card.name


class Matching:
    """Minimum-weight perfect matching. Correlated errors are split into parts that flip one or two
    detectors each; channels of disjoint errors count as independent ones, for the weights."""

    correlated = False

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> CompiledDecoder:
        import pymatching

        options = {"enable_correlations": True} if self.correlated else {}
        if self.correlated:
            dem = detectable(dem)
        matching = pymatching.Matching.from_detector_error_model(dem, **options)
        matching.ensure_num_fault_ids(dem.num_observables)
        return _CompiledMatching(matching, options)


class CorrelatedMatching(Matching):
    """Matching in two passes: the parts of an error which the first one finds make its other parts
    more likely for the second (Fowler, arXiv 1310.0863)."""

    correlated = True


def detectable(dem: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
    """Return an error model whose errors have no part without detectors. stim makes such parts of
    errors that it cannot split into known ones; matching without correlations passes them over."""
    result = stim.DetectorErrorModel()
    for item in dem.flattened():
        if item.type != "error":
            result.append(item)
            continue
        targets: list[stim.DemTarget] = []
        for part in item.target_groups():
            if any(each.is_relative_detector_id() for each in part):
                targets += [stim.target_separator()] if targets else []
                targets += part
        if targets:
            result.append("error", item.args_copy(), targets)
    return result


class _CompiledMatching:
    def __init__(self, matching: Any, options: dict[str, bool]) -> None:
        self._matching, self._options = matching, options

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: Bits) -> Bits:
        found: Bits = self._matching.decode_batch(
            bit_packed_detection_event_data,
            bit_packed_shots=True,
            bit_packed_predictions=True,
            **self._options,
        )
        return found


MAX_MECHANISMS = 2**20  # of an error model for belief propagation
MAX_CELLS = 2**28  # detectors times mechanisms: of the elimination of one shot


class BeliefPropagation:
    """Belief propagation on the error model as it is, with errors that flip any number of
    detectors, and ordered statistics decoding where it does not converge (Panteleev and Kalachev,
    arXiv 1904.02703; Roffe et al., arXiv 2005.07016), by ldpc. Errors that flip the same detectors
    and observables are one."""

    OPTIONS: ClassVar[dict[str, Any]] = {
        "max_iter": 30, "bp_method": "minimum_sum", "ms_scaling_factor": 0.625,
    }  # fmt: skip
    ORDER = 4  # of the combination sweep over the likeliest columns beside the independent ones

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> CompiledDecoder:
        """See `DecoderFactory`. Raises ValueError for an error model that is too large."""
        from ldpc import BpOsdDecoder
        from scipy.sparse import csc_matrix

        _check_size(dem.num_errors, dem.num_detectors)
        rates = _mechanisms(dem)
        if not rates:
            return _NoErrors(dem.num_observables)
        _check_size(len(rates), dem.num_detectors)
        matrices = []
        for part, height in ((0, dem.num_detectors), (1, dem.num_observables)):
            rows = [row for key in rates for row in key[part]]
            columns = np.repeat(np.arange(len(rates)), [len(key[part]) for key in rates])
            ones = np.ones(len(rows), np.uint8)
            matrices.append(csc_matrix((ones, (rows, columns)), shape=(height, len(rates))))
        # A sweep over more columns than the rest has ends the process, in ldpc 2.4.1.
        order = min(self.ORDER, max(0, len(rates) - dem.num_detectors))
        sweep = {"osd_method": "osd_cs", "osd_order": order} if order else {"osd_method": "osd_0"}
        decoder = BpOsdDecoder(
            matrices[0], error_channel=list(rates.values()), **self.OPTIONS, **sweep
        )
        return _CompiledBeliefPropagation(decoder, matrices[1].tocsr(), dem.num_detectors)


Mechanism = tuple[tuple[int, ...], tuple[int, ...]]  # detectors and observables that it flips


def _mechanisms(dem: stim.DetectorErrorModel) -> dict[Mechanism, float]:
    """Probability of each mechanism of an error model that flips a detector."""
    results: dict[Mechanism, float] = {}
    for item in dem.flattened():
        if item.type != "error":
            continue
        targets = item.targets_copy()
        detectors = sorted(t.val for t in targets if t.is_relative_detector_id())
        observables = sorted(t.val for t in targets if t.is_logical_observable_id())
        key = tuple(detectors), tuple(observables)
        p, q = item.args_copy()[0], results.get(key, 0.0)
        if detectors and p:
            results[key] = p + q - 2.0 * p * q
    return results


def _check_size(mechanisms: int, detectors: int) -> None:
    if mechanisms > MAX_MECHANISMS or mechanisms * detectors > MAX_CELLS:
        raise ValueError(
            f"{mechanisms} errors and {detectors} detectors; at most {MAX_MECHANISMS} errors, and"
            f" {MAX_CELLS} for the product of both: decoder='pymatching-correlated' takes more"
        )


class _CompiledBeliefPropagation:
    def __init__(self, decoder: Any, observables: Any, num_detectors: int) -> None:
        self._decoder, self._observables = decoder, observables
        self._num_detectors = num_detectors

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: Bits) -> Bits:
        events = np.unpackbits(
            bit_packed_detection_event_data, axis=1, count=self._num_detectors, bitorder="little"
        )
        errors = np.array([self._decoder.decode(row) for row in events], np.uint8)
        flips = (self._observables @ errors.T).T & 1
        return np.packbits(flips.astype(np.uint8), axis=1, bitorder="little")


class _NoErrors:
    """Decoder of an error model in which nothing happens."""

    def __init__(self, num_observables: int) -> None:
        self._width = -(-num_observables // 8)

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: Bits) -> Bits:
        return np.zeros((len(bit_packed_detection_event_data), self._width), np.uint8)

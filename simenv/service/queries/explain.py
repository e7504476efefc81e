"""Answers to `explain`: the engines that could run a program, and their expected cost.

Imports numpy and kernels; it is imported at the first such query.
"""

from __future__ import annotations

import math
from concurrent.futures import Future
from typing import Any

import msgspec

from simenv.errors import SimenvError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits, Estimator, Route, device_ns
from simenv.scheduler.routing import engine_choice, live_routing, ranks
from simenv.scheduler.routing.engine_support import (
    ANOTHER,
    RoutingSnapshot,
    expected_truncation,
)
from simenv.service import program_rules
from simenv.service.admission.background_checks import CheckPending, RunningChecks
from simenv.service.admission.controller import with_shots
from simenv.service.devices.resolve import DocumentPending, EmulatedDevices
from simenv.wire.codec import refusal
from simenv.wire.messages import client as messages
from simenv.wire.messages.explain import (
    Choice,
    Explain,
    Explained,
    Explanation,
    NoiseUse,
    Sizes,
)
from simulators import catalog
from simulators.circuit.analysis.fit_scope import outside_text
from simulators.circuit.analysis.profile import Profile

_EXAMINING = RunningChecks()


def explain(
    message: Explain,
    owner: str,
    pools: tuple[PoolSpec, ...],
    present: live_routing.Capacity,
    snapshot: RoutingSnapshot,
    devices: EmulatedDevices | None = None,
    estimator: Estimator | None = None,
) -> Explained | messages.Refused | Future[Any]:
    """Answer Explain. Returns Refused if no engine would accept the program or its options, or a
    future while a thread checks the program: then repeat the call when the future is done."""
    try:
        terms, device = message.terms, None
        if devices is not None:
            terms = devices.resolved(terms)
            device = devices.context(terms)
        if not present.limits.isolates_accounts:
            program_rules.check_owner(terms, owner)
        program_rules.check_terms(terms)
        _, result = _EXAMINING.look(lambda: id(message), message.program, terms, owner, device)
        result = with_shots(result, message.shots)
        considered = live_routing.candidates_now(result, terms, pools, present, snapshot)
        considered += _only_named(result, terms, pools, present, snapshot)
    except (CheckPending, DocumentPending) as later:
        return later.future
    except SimenvError as error:
        return messages.Refused(message.request, [refusal(error)])
    choices = [
        _choice(candidate, message, result, present.limits, number == 0)
        for number, candidate in enumerate(considered)
    ]
    if estimator is not None:
        choices = [
            each
            if candidate.route is None
            else _with_learned_time(each, candidate.route, estimator)
            for each, candidate in zip(choices, considered, strict=True)
        ]
    noise = None if device is None else device.atoms_noise
    if result.noise is not None and result.noise.outside_fit:
        noise = NoiseUse(warnings=(outside_text(result.noise.outside_fit),))
    return Explained(message.request, Explanation(_sizes(result), choices, noise=noise))


def forget_check(check: Future[Any]) -> None:
    """Forget a check of a program that was explained to a client that has left."""
    _EXAMINING.forget(check)


def _only_named(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    present: live_routing.Capacity,
    snapshot: RoutingSnapshot,
) -> list[engine_choice.EngineCandidate]:
    """Return the candidates that `auto` does not consider for this program, and that some pool
    runs."""
    if terms.engine != engine_choice.AUTO or terms.pool or terms.prefer:
        return []
    results = []
    for card in catalog.engine_cards():
        if card.calls or not (
            card.auto is None or (card.auto.only_noise and profile.noise is None)
        ):
            continue
        if card.pool == "device" or not any(engine_choice.runs(pool, card) for pool in pools):
            continue
        if any(name not in {option.name for option in card.options} for name, _ in terms.options):
            continue
        named = msgspec.structs.replace(terms, engine=card.name)
        results += live_routing.candidates_now(profile, named, pools, present, snapshot)
    return results


def _choice(
    candidate: engine_choice.EngineCandidate,
    message: Explain,
    profile: Profile,
    limits: ClusterLimits,
    first: bool,
) -> Choice:
    card = catalog.card(candidate.engine)
    assert card is not None  # routing considers no others
    if candidate.route is None:
        hint = card.install_hint or (
            "" if candidate.objection is None else candidate.objection.hint
        )
        if message.terms.engine == engine_choice.AUTO and hint.startswith(ANOTHER):
            hint = ""  # auto has considered all other engines already
        return Choice(
            candidate.engine, False, False, candidate.text, hint, "", 0, 0.0, card.reproducible
        )
    route = candidate.route
    micros = (route.evolve_us + route.shot_us * message.shots) * max(1, message.count)
    by = f"{message.terms.engine} prefers another"
    if message.terms.prefer:
        by = "another pool is preferred"
    elif card.auto is None:
        by = "auto never takes it"
    # What is not chosen is asked for by name, and then has the settings of that.
    terms = message.terms if first else msgspec.structs.replace(message.terms, engine=card.name)
    truncation = expected_truncation(card, profile, terms)
    reason = candidate.text if first else f"able, but {by}"
    if not first and truncation < 0.0:
        reason += "; asked for by name, it may cut off any part of the state"
    device_us = device_ns(route, message.shots, max(1, message.count)) / 1e3
    if device_us:
        reason += f"; {device_us / 1e6:.3g} s on the device"
    if route.paced:
        micros = max(micros, device_us)
    return Choice(
        engine=candidate.engine,
        chosen=first,
        able=True,
        why=reason,
        hint="" if first else f"engine={candidate.engine!r} asks for it",
        pool=route.pool,
        memory_bytes=route.memory_bytes,
        seconds=micros / 1e6,
        reproducible=card.reproducible,
        ranks=route.ranks,
        nodes=ranks.nodes_for(route, limits),
        truncation=truncation,
        sampling_error=0.5 / math.sqrt(message.shots) if message.shots else 0.0,
    )


def _with_learned_time(choice: Choice, route: Route, estimator: Estimator) -> Choice:
    """Return the choice with the time learned from similar runs, and the error of such times."""
    quality = estimator.quality(route)
    if not quality.count or route.paced:
        return choice
    return msgspec.structs.replace(
        choice,
        seconds=choice.seconds * quality.factor,
        runs=quality.count,
        off_by=math.exp(quality.deviation),
    )


def _sizes(profile: Profile) -> Sizes:
    return Sizes(
        num_qubits=profile.used_qubits,
        operations=profile.operations,
        gates_1q=profile.gates_1q,
        gates_2q=profile.gates_2q,
        gates_many=profile.gates_many,
        measurements=profile.measurements,
        dynamic=profile.mid_circuit,
        clifford=profile.clifford,
        bond_bits=profile.bond_bits,
        trial_bond=0 if profile.trial is None else profile.trial.bond,
        trial_part=0.0 if profile.trial is None else profile.trial.part,
    )

"""The answer to `explain`: what admission and routing would find, engine by engine."""

from __future__ import annotations

from concurrent.futures import Future

from simenv.errors import SimenvError
from simenv.model import PoolSpec
from simenv.scheduler import live_routing, routing, sizing
from simenv.scheduler.capacity import Capacity
from simenv.scheduler.fitness import ELSEWHERE
from simenv.scheduler.routing import Considered
from simenv.scheduler.seen import Seen
from simenv.scheduler.values import Limits
from simenv.service import rules
from simenv.service.examining import Examining, Later, Looked
from simenv.service.inquiry import refusal
from simenv.wire.engines import Choice, Explain, Explained, Explanation, Sizes
from simenv.wire.messages import Refused
from simulators import catalog
from simulators.circuit.analysis.profile import Profile

_EXAMINING = Examining()


def explain(
    q: Explain, owner: str, pools: tuple[PoolSpec, ...], present: Capacity, seen: Seen
) -> Explained | Refused | Future[Looked]:
    """Refused where the program or its terms would be, whatever the engine. A future: a program of
    this owner is being looked at beside the loop; ask again when it is done."""
    try:
        rules.check_terms(q.terms)
        _, found = _EXAMINING.look(id(q), q.program, q.terms, owner)
        considered = live_routing.consider(found, q.terms, pools, present, seen)
    except Later as later:
        return later.future
    except SimenvError as error:
        return Refused(q.request, [refusal(error)])
    choices = [
        _choice(one, q, present.limits, number == 0) for number, one in enumerate(considered)
    ]
    return Explained(q.request, Explanation(_sizes(found), choices))


def _choice(one: Considered, q: Explain, limits: Limits, first: bool) -> Choice:
    card = catalog.card(one.engine)
    assert card is not None  # routing considers no others
    if one.route is None:
        hint = card.missing or ("" if one.objection is None else one.objection.hint)
        if q.terms.engine == routing.AUTO and hint == ELSEWHERE:
            hint = ""  # auto has looked at all others already
        return Choice(one.engine, False, False, one.words, hint, "", 0, 0.0, card.reproducible)
    route = one.route
    micros = (route.evolve_us + route.shot_us * q.shots) * max(1, q.count)
    by = "another pool is preferred" if q.terms.prefer else f"{q.terms.engine} prefers another"
    why = one.words if first else f"able, but {by}"
    return Choice(
        engine=one.engine,
        chosen=first,
        able=True,
        why=why,
        hint="" if first else f"engine={one.engine!r} asks for it",
        pool=route.pool,
        memory_bytes=route.memory_bytes,
        seconds=micros / 1e6,
        reproducible=card.reproducible,
        ranks=route.ranks,
        nodes=sizing.nodes_for(route, limits),
    )


def _sizes(found: Profile) -> Sizes:
    return Sizes(
        num_qubits=found.num_qubits,
        operations=found.operations,
        gates_1q=found.gates_1q,
        gates_2q=found.gates_2q,
        gates_many=found.gates_many,
        measurements=found.measurements,
        dynamic=found.mid_circuit,
        clifford=found.clifford,
        bond_bits=found.bond_bits,
    )

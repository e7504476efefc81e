"""How a run of an engine begins whose plan is a circuit's `Endings`."""

from __future__ import annotations

from simulators.catalog import EngineCard
from simulators.circuit.flow import Endings
from simulators.circuit.ir import Circuit
from simulators.engine import Request, RunOptions
from simulators.requests import check_outputs, check_run, rows


def opened(
    card: EngineCard, plan: object, circuit: Circuit, request: Request, options: RunOptions
) -> tuple[Endings, int]:
    """The plan, and how many bindings there are; raises what the checks of `requests` raise."""
    if not isinstance(plan, Endings):
        raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
    check_run(circuit, options)
    number = rows(circuit, request)
    check_outputs(card, request, plan.clbits.measures, collapses=plan.state.branching)
    return plan, number

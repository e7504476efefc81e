"""Modules named as myQLM's, with as much as `simenv_myqlm.handler` uses of them.

myQLM is not installed where simenv is tested (its licence). These classes follow its public
documentation, so that the handler's code runs at all; whether the real ones are so,
`scripts/check_myqlm.py` says.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class OpType:
    GATETYPE, MEASURE, RESET, CLASSIC, CLASSICCTRL, BREAK, LOCK, RELEASE = range(8)


class ProcessingType:
    SAMPLE, OBSERVABLE = range(2)


class QPUHandler:
    """A batch is run job by job; of a single job the result is returned."""

    def submit(self, batch: Any, meta_data: Any = None) -> Any:
        jobs = getattr(batch, "jobs", None)
        results = [self.submit_job(job) for job in jobs or [batch]]
        return results[0] if jobs is None else SimpleNamespace(results=results)

    def submit_job(self, job: Any) -> Any:
        raise AssertionError("of the QPU")


class Record(SimpleNamespace):
    """Attributes by keyword."""


class Circuit:
    """`ops` are (gate, qubits) or an Op; `gates` the definitions by name."""

    def __init__(self, nbqbits: int, ops: list[Any], gates: dict[str, Any]) -> None:
        self.nbqbits, self.gateDic = nbqbits, gates
        self._ops = [each if isinstance(each, Record) else op(*each) for each in ops]

    def __iter__(self) -> Any:
        return iter(self._ops)


def op(gate: str, qubits: list[int], kind: int = OpType.GATETYPE, **more: Any) -> Record:
    return Record(**{"gate": gate, "qbits": qubits, "type": kind, "cbits": None, "formula": None}
                  | more)  # fmt: skip


def definition(
    name: str = "", params: tuple[Any, ...] = (), matrix: Any = None, subgate: str = ""
) -> Record:
    """A gate; with `subgate` one control before it. `name` "": without syntax."""
    if matrix is not None:
        entries = [SimpleNamespace(re=complex(each).real, im=complex(each).imag)
                   for row in matrix for each in row]  # fmt: skip
        matrix = SimpleNamespace(nRows=len(matrix), nCols=len(matrix), data=entries)
    syntax = SimpleNamespace(name=name, parameters=list(params)) if name else None
    return Record(syntax=syntax, matrix=matrix, is_ctrl=bool(subgate), nbctrls=int(bool(subgate)),
                  subgate=subgate)  # fmt: skip


def extract_syntax(found: Any, gates: Any) -> tuple[str, list[Any]]:
    if found.subgate:
        name, params = extract_syntax(gates[found.subgate], gates)
        return f"C-{name}", params
    return found.syntax.name, found.syntax.parameters


def job(circuit: Circuit | None, **more: Any) -> Record:
    return Record(**{
        "circuit": circuit, "schedule": None, "type": ProcessingType.SAMPLE, "nbshots": 0,
        "qubits": None, "observable": None, "aggregate_data": True, "amp_threshold": None,
        "psi_0": None,
    } | more)  # fmt: skip


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the modules where imports find them."""
    contents: dict[str, dict[str, Any]] = {
        "qat": {}, "qat.comm": {}, "qat.comm.shared": {}, "qat.comm.datamodel": {},
        "qat.comm.shared.ttypes": {
            "ProcessingType": ProcessingType, "IntermediateMeasurement": Record,
        },
        "qat.comm.datamodel.ttypes": {"OpType": OpType, "ComplexNumber": Record},
        "qat.core": {"Result": Record}, "qat.core.qpu": {"QPUHandler": QPUHandler},
        "qat.core.util": {"extract_syntax": extract_syntax}, "qat.core.wrappers": {},
        "qat.core.wrappers.result": {"Sample": Record},
    }  # fmt: skip
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        patch.setitem(sys.modules, name, module)

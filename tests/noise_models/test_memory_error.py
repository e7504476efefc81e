"""Memory errors in snapshots, models, limits and relations."""

import math

import msgspec
import pytest

from noise_models import document
from noise_models.build import build
from noise_models.limits import limited
from noise_models.options import NoiseOptions
from noise_models.relations import compare, compose
from noise_models.snapshot import clamps, dump, load
from noise_models.strict_json import NoiseError, SnapshotError
from tests.noise_models.snapshots import transmons

ERRORS = (2e-4, 0.05, None)
SNAPSHOT = msgspec.structs.replace(
    transmons(),
    qubits=tuple(
        msgspec.structs.replace(each, memory_error=error)
        for each, error in zip(transmons().qubits, ERRORS, strict=True)
    ),
)


def model(values: dict[str, object]):  # type: ignore[no-untyped-def]
    return build(SNAPSHOT, NoiseOptions.parse(values))


def test_the_infidelity_of_a_layer_is_the_memory_error() -> None:
    assert model({}).memory(0, 1).infidelity == pytest.approx(2e-4)
    assert model({}).memory(2, 1) is None
    assert model({}).memory(1, 2).ptm[1, 1] == pytest.approx(0.85**2)
    assert build(SNAPSHOT, NoiseOptions.parse("aer")).memory(1, 1) is None


def test_a_snapshot_keeps_memory_errors_and_states_what_acts() -> None:
    assert load(dump(SNAPSHOT)) == SNAPSHOT
    for wrong in (-1e-4, 1.5, math.inf):
        qubit = msgspec.structs.replace(SNAPSHOT.qubits[0], memory_error=wrong)
        values = msgspec.structs.replace(SNAPSHOT, qubits=(qubit, *SNAPSHOT.qubits[1:]))
        with pytest.raises(SnapshotError, match=r"qubits\[0\]\.memory_error"):
            dump(values)
    qubit = msgspec.structs.replace(SNAPSHOT.qubits[0], memory_error=0.4)
    values = msgspec.structs.replace(SNAPSHOT, qubits=(qubit, *SNAPSHOT.qubits[1:]))
    assert "complete dephasing" in dict(clamps(values))["qubits[0].memory_error"]
    assert build(values, NoiseOptions()).memory(0, 1).infidelity == pytest.approx(1.0 / 3.0)


def test_factors_and_values_beyond_the_limit_or_without_effect_are_named() -> None:
    (text,) = limited(model({"qubit.memory": 10}))
    assert text.startswith("qubit.memory * 10 is above the physical limit for qubit 1")
    (text,) = limited(build(transmons(), NoiseOptions.parse({"qubit.memory": 2})))
    assert "qubit.memory_error gives the device such noise" in text
    assert model({"qubit.memory_error": 0.01}).memory(2, 1).infidelity == pytest.approx(0.01)
    with pytest.raises(NoiseError, match="memory"):
        model({"recipe": "aer", "qubit.memory": 0.5})


def test_memory_errors_of_composed_and_compared_models() -> None:
    composed = compose(model({}), model({"qubit.memory": 2}))
    assert composed.memory(1, 1).ptm[1, 1] == pytest.approx(0.85 * 0.7)
    rows = compare(document.load(dump(SNAPSHOT)), document.load(dump(transmons())))
    assert {row.qubits for row in rows if row.kind == "memory"} == {(0,), (1,)}

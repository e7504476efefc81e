"""With which bits and words the plugin is found, in either revision."""

from __future__ import annotations

from typing import Any

import pytest

from simenv.config.qpm import QPMConfig
from simenv.frontends.qfw import deployment, service_record
from simenv.qpm.service import QPMCapability, QPMType, ServiceRecord
from simenv.qpm_check.fake_defw import fakes

ASKED = {  # by the examples of revision 1: a type, a capability
    "any": (-1, -1),
    "hardware-less": (QPMType.SIMULATOR, -1),
    "qb": (QPMType.QB, QPMCapability.STATEVECTOR),
    "tnqvm": (QPMType.TNQVM, QPMCapability.TENSORNETWORK),
    "nwqsim": (QPMType.NWQSIM, QPMCapability.STATEVECTOR),
}
POOLS = {"statevector": ["main", "wide"], "tensornetwork": ["main"]}


def record(types: int, capabilities: int, told: int = 0, revision: int = 1) -> ServiceRecord:
    properties = {"num_qubits": 30, "controller": {"pools": POOLS}}
    outcome = ServiceRecord("QPM", "an environment", "", "", types, capabilities, -1, properties)
    config = QPMConfig(types=told)
    return service_record.completed(outcome, object, config, deployment.read({}), revision)


def matches(found: ServiceRecord, wanted: tuple[int, int]) -> bool:
    """As DEFw compares them."""
    pairs = zip(wanted, (found.qpm_type, found.qpm_capabilities), strict=True)
    return all(value == -1 or value & offered == value for value, offered in pairs)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_simulator_matches_types_and_capabilities_requested_in_revision_1(
    name: str,
) -> None:
    assert matches(record(2, 3), ASKED[name])


def test_simulator_types_are_offered_only_with_their_capabilities() -> None:
    plain = record(2, QPMCapability.STATEVECTOR)
    assert plain.qpm_type == 2 | 4 | 16
    assert not matches(plain, ASKED["tnqvm"])
    assert record(2, QPMCapability.TENSORNETWORK).qpm_type == 2 | 8
    assert record(1, QPMCapability.SUPERCONDUCTING).qpm_type == 1, "a machine stands for itself"


def test_deployment_sets_types_and_revision_2_has_two_types() -> None:
    assert record(2, 3, told=31).qpm_type == 31
    assert record(2, 3, told=1).qpm_type == 1
    assert record(2, 3, revision=2).qpm_type == 2
    assert record(2, 3, told=31, revision=2).qpm_type == 3
    assert record(2, 3, told=30, revision=2).qpm_type == 2


def test_service_description_names_pools_of_each_simulator_type() -> None:
    service_description = record(2, 3).service_description
    assert "NWQSIM by pool main, wide" in service_description
    assert "TNQVM by pool main" in service_description


def test_qpm_types_equal_those_of_defw() -> None:
    types: Any = fakes.Types1
    for kind in QPMType:
        assert types[f"QPM_TYPE_{kind.name}"] == kind

"""Configurations of Pasqal's own backends, as their programs send them."""

import json

import pytest
from failing import fails

from simenv.errors import OptionError

pytest.importorskip("pulser")

from pulser.backend import BitStrings, EmulationConfig

from simenv.gateway.pasqal.requests import configuration

# Options with their defaults that the configurations of the packages add, in pulser 1.9.
QUTIP = {"sampling_rate": 1.0, "solver": "default", "print_progress": False, "progress_bar": False}
MPS = {"dt": 10.0, "precision": 1e-5, "max_bond_dim": 1024, "optimize_qubit_ordering": True}


@pytest.mark.parametrize("added", [QUTIP, MPS])
def test_options_of_methods_have_no_effect(added: dict[str, object]) -> None:
    plain = json.loads(EmulationConfig(observables=[BitStrings(num_shots=5)]).to_abstract_repr())
    config = configuration(json.dumps(plain | added))
    assert [each.tag for each in config.observables] == ["bitstrings"]
    fails(OptionError, "unexpected", configuration, json.dumps(plain | added | {"other": 1}))

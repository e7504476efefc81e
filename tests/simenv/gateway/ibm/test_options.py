"""Options of IBM's primitives are honoured, or refused by name before a job is accepted."""

import json
from typing import Any

import pytest
from failing import fails
from qiskit_ibm_runtime.options import EstimatorOptions, SamplerOptions

from simenv.errors import OptionError
from simenv.gateway.ibm import options


def read(program: str, **fields: Any) -> options.RuntimeOptions:
    return options.read(program, json.dumps({"pubs": [], "version": 2, **fields}).encode())


def test_defaults_are_those_of_the_service() -> None:
    assert read("sampler") == options.RuntimeOptions(4096, 0.0, None, True)
    assert read("estimator") == options.RuntimeOptions(0, 0.015625, None, True)


def test_options_as_the_client_sends_them_are_honoured() -> None:
    sampler = SamplerOptions(default_shots=7, simulator={"seed_simulator": 3})
    sent = SamplerOptions._get_program_inputs(as_dict(sampler))
    assert read("sampler", **sent) == options.RuntimeOptions(7, 0.0, 3, True)
    estimator = EstimatorOptions(default_shots=100, seed_estimator=5, resilience_level=0)
    sent = EstimatorOptions._get_program_inputs(as_dict(estimator))
    assert read("estimator", **sent) == options.RuntimeOptions(100, 0.0, 5, True)


def as_dict(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


@pytest.mark.parametrize(
    ("program", "fields", "name"),
    [
        ("sampler", {"options": {"twirling": {"enable_gates": True}}}, "twirling.enable_gates"),
        ("estimator",
         {"options": {"dynamical_decoupling": {"enable": True, "sequence_type": "XY4"}}},
         "dynamical_decoupling.enable"),
        ("estimator", {"resilience_level": 1}, "resilience_level"),
        ("estimator", {"options": {"resilience": {"zne_mitigation": True}}},
         "resilience.zne_mitigation"),
        ("sampler", {"options": {"execution": {"rep_delay": 0.001}}}, "execution.rep_delay"),
        ("sampler", {"options": {"execution": {"init_qubits": False}}}, "execution.init_qubits"),
        ("sampler", {"options": {"execution": {"meas_type": "kerneled"}}}, "execution.meas_type"),
        ("sampler", {"options": {"simulator": {"coupling_map": [[0, 1]]}}}, "coupling_map"),
        ("sampler",
         {"options": {"simulator": {"noise_model": {"__type__": "NoiseModel", "__value__": {}}}}},
         "noise_model"),
        ("sampler", {"options": {"experimental": {"fast": 1}}}, "experimental.fast"),
        ("sampler", {"options": {"colour": 1}}, "colour"),
        ("sampler", {"colour": 1}, "colour"),
        ("sampler", {"options": {"default_shots": 0}}, "default_shots"),
        ("sampler", {"version": 1}, "version=1"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_honoured_is_refused_by_name(
    program: str, fields: dict[str, Any], name: str
) -> None:
    fails(OptionError, name.replace("[", "."), read, program, **fields)


def test_suboptions_of_a_method_that_is_off_have_no_effect() -> None:
    off = {"dynamical_decoupling": {"enable": False, "sequence_type": "XY4"}}
    off |= {"twirling": {"num_randomizations": 8}, "resilience": {"measure_mitigation": False}}
    assert read("estimator", options=off) == read("estimator")


def test_shots_of_the_call_come_before_those_of_the_options() -> None:
    """QRMI's sampler sends `shots` beside the options."""
    assert read("sampler", shots=5, options={"default_shots": 7}).shots == 5
    assert read("sampler", shots=None).shots == 4096


def test_large_options_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_model", None)
    large = {"simulator": {"basis_gates": [0] * options.MAX_OPTION_BYTES}}
    fails(OptionError, r"options: .* the limit is 65536", read, "sampler", options=large)


@pytest.mark.parametrize(
    "params", [b"{", b'{"options": ' + b"[" * 5_000, b'{"options": {"\xff": 1}}']
)
def test_parameters_that_are_no_json_are_refused(params: bytes) -> None:
    fails(OptionError, "params", options.read, "sampler", params)


def test_parameters_of_the_other_program_are_refused_by_name() -> None:
    fails(OptionError, "'shots' of the estimator", read, "estimator", shots=5)

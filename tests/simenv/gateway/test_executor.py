"""Quantum programs as the unmodified client encodes them, run here, and decoded by the client."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import numpy as np
import pytest
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, qpy, transpile
from qiskit.circuit import Parameter
from qiskit.primitives import PrimitiveResult
from qiskit.quantum_info import PauliLindbladMap, SparsePauliOp
from qiskit_ibm_runtime import Executor, QuantumProgram, Session
from qiskit_ibm_runtime.decoders.defaults import DEFAULT_DECODERS
from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.executor_sampler import Sampler
from qiskit_ibm_runtime.fake_provider import FakeFez, FakeManilaV2
from qiskit_ibm_runtime.options_models.executor import ExecutorOptions
from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS
from samplomatic import Twirl, build

from simenv.client.client import Client
from simenv.errors import ConfigError, LimitExceededError, OptionError, ProgramError, SimenvError
from simenv.gateway.ibm import executor
from simenv.gateway.ibm.executor import run_executor

Params = dict[str, Any]
IDEAL = "main"  # a pool without noise, which takes circuits for any device
VERSIONS = list(QUANTUM_PROGRAM_PARAMS_CONVERTERS)


class RemoteService:
    is_local = False


class Recorder(Session):
    """Session of the client whose jobs are recorded as they would be sent."""

    def __init__(self, backend: Any) -> None:
        backend._instance = None
        self._backend, self._service, self._instance = backend, RemoteService(), None
        self.params: Params = {}

    def _run(self, *, program_id: str, inputs: Params, **_: Any) -> None:
        assert program_id == "executor"
        self.params = json.loads(json.dumps(inputs))  # as HTTP carries it


@pytest.fixture(scope="module")
def fez() -> FakeFez:
    return FakeFez()


@pytest.fixture
def session(fez: FakeFez) -> Recorder:
    return Recorder(fez)


@pytest.fixture
def manila() -> Recorder:
    return Recorder(FakeManilaV2())


def decoded(text: str) -> Any:
    """Decode a result with the client's decoders, in the order in which it applies them."""
    result: Any = text
    for decoder in DEFAULT_DECODERS["executor"]:
        if decoder.is_applicable(result):
            result = decoder.decode(result)
    return result


def run(env: Client, params: Params, backend: str = IDEAL, key: str = "") -> Any:
    return decoded(run_executor(params, backend, env, key or uuid.uuid4().hex))


def bell(session: Recorder) -> QuantumCircuit:
    circuit = QuantumCircuit(2, metadata={"of": "Bell"})
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return transpile(circuit, session._backend, optimization_level=1, seed_transpiler=1)


def rotated(session: Recorder) -> QuantumCircuit:
    """Rotate a qubit by `a`, and copy it to another one; two registers."""
    angle = Parameter("a")
    first, second = ClassicalRegister(1, "first"), ClassicalRegister(2, "second")
    circuit = QuantumCircuit(QuantumRegister(2), first, second)
    circuit.rx(angle, 0)
    circuit.cx(0, 1)
    circuit.measure(0, first[0])
    circuit.measure(1, second[1])
    return transpile(circuit, session._backend, optimization_level=1, seed_transpiler=1)


def within(ones: float, shots: int, probability: float) -> bool:
    sigma = np.sqrt(max(probability * (1 - probability), 1e-9) / shots)
    return bool(abs(ones / shots - probability) <= 5 * sigma + 1e-12)


def sampled(session: Recorder, pubs: Any, shots: int, **options: Any) -> Params:
    sampler = Sampler(session)
    for path, value in options.items():
        group, _, name = path.partition("__")
        setattr(getattr(sampler.options, group), name, value)
    sampler.run(pubs, shots=shots)
    return session.params


def test_counts_of_seed_are_those_of_submit(env: Client, session: Recorder) -> None:
    circuit = bell(session)
    result = run(env, sampled(session, [circuit], 1000, simulator__seed_simulator=7), "fez")
    assert isinstance(result, PrimitiveResult)
    expected = env.submit(circuit, shots=1000, seed=7, device="fez", compile="never").result()
    assert result[0].data.meas.get_counts() == expected.counts
    assert len(expected.counts) > 2, "of a device with noise"
    assert result[0].metadata["circuit_metadata"] == {"of": "Bell"}
    part = result.metadata["executor"].chunk_timing[0].parts[0]
    assert (part.idx_item, part.size) == (0, 1)


def test_sweep_is_one_task_and_keeps_shape_and_registers(env: Client, session: Recorder) -> None:
    circuit, shots = rotated(session), 2000
    angles = np.linspace(0, np.pi, 6).reshape(2, 3, 1)
    params = sampled(session, [(circuit, angles)], shots, simulator__seed_simulator=5)
    before = env.status().done
    data = run(env, params)[0].data
    assert env.status().done == before + 1
    assert data.shape == (2, 3)
    first, second = (data[name].to_bool_array("little") for name in ("first", "second"))
    assert first.shape == (2, 3, shots, 1)
    assert second.shape == (2, 3, shots, 2)
    assert np.array_equal(first[..., 0], second[..., 1])
    assert not second[..., 0].any()
    for place in np.ndindex(2, 3):
        assert within(first[place].sum(), shots, np.sin(angles[place][0] / 2) ** 2)
    tasks = env.submit_many((circuit, angles.reshape(6, 1)), shots=shots, seed=5, pool=IDEAL)
    ones = [sum(n for bits, n in t.result().counts.items() if bits[-1] == "1") for t in tasks]
    assert first.sum(axis=(-1, -2)).ravel().tolist() == ones


def test_twirling_of_gates_and_measurements_is_undone(env: Client, session: Recorder) -> None:
    twirled = {"twirling__enable_gates": True, "twirling__enable_measure": True}
    params = sampled(session, [bell(session)], 1000, **twirled)
    item = params["quantum_program"]["items"][0]
    assert (item["item_type"], item["shape"]) == ("samplex", [16])
    raw = json.loads(run_executor(params, IDEAL, env, "raw"))
    assert raw["data"][0]["results"].keys() == {"meas", "measurement_flips.meas"}
    counts = run(env, params)[0].data.meas.get_counts()
    assert counts.keys() == {"00", "11"}
    assert sum(counts.values()) == 1024
    assert within(counts["00"], 1024, 0.5)


@pytest.mark.parametrize("measure", [False, True])
def test_twirled_sweep_has_the_distribution(env: Client, session: Recorder, measure: bool) -> None:
    circuit, angles = rotated(session), np.linspace(0, np.pi, 5).reshape(5, 1)
    params = sampled(
        session, [(circuit, angles)], 2048, twirling__enable_gates=True,
        twirling__enable_measure=measure, twirling__num_randomizations=16,
    )  # fmt: skip
    assert params["quantum_program"]["items"][0]["shape"] == [16, 5]
    data = run(env, params)[0].data
    first, second = (data[name].to_bool_array("little") for name in ("first", "second"))
    assert np.array_equal(first[..., 0], second[..., 1])
    for place, angle in enumerate(angles[:, 0]):
        assert within(first[place].sum(), 2048, np.sin(angle / 2) ** 2)


def test_randomizations_are_one_task_and_follow_seed(env: Client, session: Recorder) -> None:
    twirled = {"twirling__enable_gates": True, "twirling__num_randomizations": 16}
    params = sampled(session, [bell(session)], 160, simulator__seed_simulator=3, **twirled)
    before = env.status().done
    texts = [json.loads(run_executor(params, "fez", env, key))["data"] for key in ("s1", "s2")]
    assert env.status().done == before + 2
    assert texts[0][0]["results"] == texts[1][0]["results"]
    params = sampled(session, [bell(session)], 160, simulator__seed_simulator=4, **twirled)
    assert json.loads(run_executor(params, "fez", env, "s3"))["data"] != texts[0]


def test_the_same_key_runs_nothing_twice(env: Client, session: Recorder) -> None:
    params = sampled(session, [bell(session)] * 2, 256, twirling__enable_gates=True)
    first = json.loads(run_executor(params, IDEAL, env, "again"))
    before = env.status().done
    second = json.loads(run_executor(params, IDEAL, env, "again"))
    assert env.status().done == before
    assert first["data"] == second["data"]


OBSERVABLES = {"ZZ": 1.0, "XX": 1.0, "YY": -1.0, "ZI": 0.0, "IX": 0.0}


def estimated(session: Recorder, level: int, shots: int = 4096) -> Params:
    circuit = bell(session).remove_final_measurements(inplace=False)
    operators = [SparsePauliOp(label).apply_layout(circuit.layout) for label in OBSERVABLES]
    estimator = Estimator(session)
    estimator.options.resilience_level = level
    estimator.options.default_shots = shots
    estimator.run([(circuit, operators)])
    return session.params


@pytest.mark.parametrize("level", [0, 1])
def test_expectation_values_of_ideal_pool(env: Client, manila: Recorder, level: int) -> None:
    data = run(env, estimated(manila, level))[0].data
    bounds = 5 * np.maximum(data.stds, 1 / 64)
    assert (np.abs(data.evs - list(OBSERVABLES.values())) <= bounds).all(), data.evs


@pytest.mark.parametrize("level", [1, 2])  # readout; and folded gates, extrapolated to no noise
def test_errors_of_device_are_mitigated(env: Client, manila: Recorder, level: int) -> None:
    raw, mitigated = (run(env, estimated(manila, k, 16_384), "manila")[0].data for k in (0, level))
    correlated, exact = slice(0, 3), np.array([1, 1, -1])
    errors = np.abs(raw.evs[correlated] - exact)
    assert (errors > 0.03).all()
    assert (np.abs(mitigated.evs[correlated] - exact) < errors).all()


def test_cancelled_noise_is_inverse_of_its_channel(env: Client, manila: Recorder) -> None:
    circuit = QuantumCircuit(2)
    circuit.x(0)
    circuit.cx(0, 1)
    isa = transpile(circuit, manila._backend, initial_layout=[0, 1], optimization_level=0)
    operators = [SparsePauliOp(label).apply_layout(isa.layout) for label in ("IZ", "ZI", "ZZ")]
    estimator = Estimator(manila)
    estimator.options.resilience_level = 0
    estimator.options.default_shots = 20_000
    estimator.options.resilience.pec_mitigation = True
    (layer,) = estimator.find_unique_layers([(isa, operators)])
    rate = 0.05
    noise = PauliLindbladMap.from_sparse_list([("X", [1], rate)], num_qubits=2)
    estimator.options.resilience.layer_noise_model = [(layer, noise)]
    estimator.run([(isa, operators)])
    data = run(env, manila.params)[0].data
    # The pool is ideal: what anticommutes with the generator grows by exp(2 rate).
    expected = np.array([-1, -np.exp(2 * rate), np.exp(2 * rate)])
    assert (np.abs(data.evs - expected) <= 5 * np.maximum(data.stds, 0.005)).all(), data.evs


def program_of(session: Recorder, shots: int = 100) -> QuantumProgram:
    """Both kinds of items: a sweep, a circuit without parameters, and a twirled box."""
    passthrough = {"note": "mine", "values": [1, 2.5, None, True], "array": np.arange(6) / 2}
    program = QuantumProgram(shots=shots, passthrough_data=passthrough)
    program.append_circuit_item(rotated(session), circuit_arguments=np.full((3, 1), np.pi))
    program.append_circuit_item(bell(session))
    boxed = QuantumCircuit(2, 2)
    with boxed.box([Twirl()]):
        boxed.rx(Parameter("b"), 0)
        boxed.cz(0, 1)
    with boxed.box([Twirl()]):
        boxed.measure([0, 1], [0, 1])
    template, samplex = build(boxed)
    arguments = {"parameter_values": np.array([[0.0], [np.pi]])}
    program.append_samplex_item(
        template, samplex=samplex, samplex_arguments=arguments, shape=(4, 2)
    )
    return program


@pytest.mark.parametrize("version", VERSIONS)
def test_programs_of_every_version(env: Client, session: Recorder, version: str) -> None:
    encoder = QUANTUM_PROGRAM_PARAMS_CONVERTERS[version].encoder
    program = program_of(session)
    if version == "v0.1":
        program.passthrough_data = None
    params = json.loads(encoder(program, ExecutorOptions()).model_dump_json())
    text = run_executor(params, IDEAL, env, version + uuid.uuid4().hex)
    assert json.loads(text)["schema_version"] == version
    result = decoded(text)
    assert [item.keys() for item in result] == [
        {"first", "second"}, {"meas"}, {"c", "measurement_flips.c"},
    ]  # fmt: skip
    assert result[0]["first"].shape == (3, 100, 1)
    assert result[0]["first"].all()
    assert result[1]["meas"].shape == (100, 2)
    bits = result[2]["c"] ^ result[2]["measurement_flips.c"]
    assert bits.shape == (4, 2, 100, 2)
    assert not bits[:, 0].any()
    assert bits[:, 1, :, 0].all()
    assert len(result.timing) == 3
    if version != "v0.1":
        assert result.passthrough_data["array"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
        sent = params["quantum_program"]["passthrough_data"]
        assert json.loads(text)["passthrough_data"] == sent


def executed(session: Recorder, program: QuantumProgram, **options: Any) -> Params:
    client = Executor(session)
    for name, value in options.items():
        target = client.options if name == "experimental" else client.options.execution
        setattr(target, name, value)
    client.run(program)
    return session.params


def one(circuit: QuantumCircuit, shots: int = 100, **item: Any) -> QuantumProgram:
    program = QuantumProgram(shots=shots)
    program.append_circuit_item(circuit, **item)
    return program


def test_replications_and_chunks_keep_order_of_elements(env: Client, session: Recorder) -> None:
    angles = np.array([[0.0], [np.pi], [0.0], [np.pi], [np.pi]])
    params = executed(session, one(rotated(session), circuit_arguments=angles, chunk_size=2))
    result = run(env, params)
    assert result[0]["first"].all(axis=(1, 2)).tolist() == [False, True, False, True, True]
    assert [span.parts[0].size for span in result.timing] == [2, 2, 1]
    params = executed(session, one(bell(session), 200))
    params["quantum_program"]["items"][0]["shape"] = [3, 2]
    before = env.status().done
    meas = run(env, params)[0]["meas"]
    assert env.status().done == before + 1
    assert meas.shape == (3, 2, 200, 2)
    assert np.array_equal(meas[..., 0], meas[..., 1])
    assert within(meas[..., 0].sum(), 1200, 0.5)


def test_registers_that_share_bits_are_read_by_their_bits(env: Client, session: Recorder) -> None:
    circuit = QuantumCircuit(3, 3)
    circuit.x(1)
    circuit.measure([0, 1, 2], [0, 1, 2])
    bits = circuit.clbits
    circuit.add_register(ClassicalRegister(name="turned", bits=[bits[1], bits[2]]))
    result = run(env, executed(session, one(circuit)))[0]
    assert result["c"].all(axis=0).tolist() == [False, True, False]
    assert result["turned"].all(axis=0).tolist() == [True, False]


def test_circuits_without_measurements_have_zeros(env: Client, session: Recorder) -> None:
    result = run(env, executed(session, one(QuantumCircuit(1, 2))))[0]
    assert result["c"].shape == (100, 2)
    assert not result["c"].any()


def test_conditions_and_measurements_inside_circuit(env: Client, session: Recorder) -> None:
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(2, "c"))
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    circuit.measure(1, 1)
    isa = transpile(circuit, session._backend, optimization_level=1, seed_transpiler=1)
    bits = run(env, sampled(session, [isa], 400))[0].data.c.to_bool_array("little")
    assert np.array_equal(bits[:, 0], bits[:, 1])
    assert within(bits[:, 0].sum(), 400, 0.5)
    noisy = run(env, sampled(session, [isa], 400), "fez")[0].data.c.to_bool_array("little")
    assert 0.8 < np.mean(noisy[:, 0] == noisy[:, 1]) < 1


def test_dynamical_decoupling_runs_with_its_delays(env: Client, session: Recorder) -> None:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.delay(20, 0, unit="us")
    circuit.x(1)
    circuit.h(0)
    circuit.measure_all()
    isa = transpile(circuit, session._backend, optimization_level=0, seed_transpiler=1)
    params = sampled(session, [isa], 1000, dynamical_decoupling__enable=True)
    sent = executor.version_2_0.ParamsModel.model_validate(params).quantum_program.circuits
    assert sent.to_python()[0].count_ops()["delay"] > 2
    assert run(env, params)[0].data.meas.get_counts() == {"10": 1000}
    assert run(env, params, "fez")[0].data.meas.get_counts()["10"] > 500


def test_boxes_without_duration_are_their_content(env: Client, session: Recorder) -> None:
    circuit = QuantumCircuit(1, 1)
    with circuit.box():
        circuit.x(0)
    circuit.measure(0, 0)
    assert run(env, executed(session, one(circuit)))[0]["c"].all()


def test_seed_of_an_experimental_option(env: Client, session: Recorder) -> None:
    circuit = bell(session)
    meas = run(env, executed(session, one(circuit), experimental={"seed_simulator": 9}))[0]["meas"]
    expected = env.submit(circuit, shots=100, seed=9, outputs="memory", pool=IDEAL).result()
    assert np.array_equal(
        np.packbits(meas, axis=-1, bitorder="little").ravel(), expected.memory.ravel()
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"init_qubits": False}, "init_qubits"),
        ({"rep_delay": 1e-4}, "rep_delay"),
        ({"scheduler_timing": True}, "scheduler_timing"),
        ({"experimental": {"future": 1}}, "future"),
        ({"experimental": {"seed_simulator": "x"}}, "seed"),
    ],
)
def test_options_that_no_emulated_device_has_are_named(
    env: Client, session: Recorder, options: Params, named: str
) -> None:
    params = executed(session, one(bell(session)), **options)
    fails(OptionError, named, run_executor, params, IDEAL, env, "refused")


def changed(params: Params, **changes: Any) -> Params:
    """Copy with changes at a path such as `quantum_program__items__0__shape`."""
    result: Params = json.loads(json.dumps(params))
    for path, value in changes.items():
        *parents, last = path.split("__")
        node: Any = result
        for name in parents:
            node = node[int(name) if name.isdecimal() else name]
        node[last] = value
    return result


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"schema_version": "v9.0"}, OptionError, "v9.0.*\n.*v2.0"),
        ({"schema_version": ["v2.0"]}, OptionError, "schema_version"),
        ({"quantum_program": None}, OptionError, "quantum_program"),
        ({"quantum_program__shots": 0}, OptionError, "shots"),
        ({"quantum_program__shots": 2**30}, LimitExceededError, "bits"),
        ({"quantum_program__meas_level": "kerneled"}, OptionError, "meas_level"),
        ({"quantum_program__items__0__shape": [2]}, OptionError, r"item 0: shape=\[2\]"),
        ({"quantum_program__items__0__shape": [-1, 3]}, OptionError, "item 0: shape"),
        ({"quantum_program__items__0__shape": [2**40, 3]}, LimitExceededError, "item 0"),
        ({"quantum_program__items__2__shape": [2**40, 2]}, LimitExceededError, "item 2"),
        ({"quantum_program__items__2__shape": [2**80, 2]}, SimenvError, "item 2"),
        ({"quantum_program__items__2__samplex_arguments": {}}, ProgramError, "item 2"),
        (
            {"quantum_program__items__2__samplex__samplex_json": '{"ssv":"4"}'},
            SimenvError,
            "item 2",
        ),
        ({"quantum_program__circuits__b64_data": "AAAA"}, SimenvError, "params: .*"),
    ],
)
def test_bad_params_are_refused_by_name(
    env: Client, session: Recorder, change: Params, error: type[SimenvError],
    named: str,
) -> None:  # fmt: skip
    params = executed(session, program_of(session))
    fails(error, named, run_executor, changed(params, **change), IDEAL, env, "refused")


def test_formula_is_refused_in_versions_that_may_hold_code(env: Client, session: Recorder) -> None:
    params = executed(session, program_of(session))
    samplex = params["quantum_program"]["items"][2]["samplex"]
    content = json.loads(samplex["samplex_json"])
    table = json.loads(content["attrs"]["param_table"])
    file = bytearray(base64.b64decode(table["circuit_base64"]))
    assert file[:7] == b"QISKIT\x0f"
    file[6] = 12
    table["circuit_base64"] = base64.b64encode(file).decode()
    content["attrs"]["param_table"] = json.dumps(table)
    samplex["samplex_json"] = json.dumps(content, separators=(",", ":"))
    fails(ProgramError, r"item 2: .*QPY of version 12", run_executor, params, IDEAL, env, "refused")


def test_samplomatic_that_drops_the_check_of_formulas_is_refused(
    monkeypatch: pytest.MonkeyPatch, env: Client, session: Recorder
) -> None:
    executor._check_serializer.cache_clear()
    executor._check_serializer()
    executor._check_serializer.cache_clear()
    monkeypatch.setattr(executor.parameter_expression_serializer, "load", qpy.load)
    with pytest.raises(ConfigError, match=r"samplomatic .* reads QPY without simenv's check"):
        run_executor(executed(session, one(bell(session))), IDEAL, env, "refused")


def test_circuits_that_device_does_not_have_are_refused(env: Client, session: Recorder) -> None:
    program = one(bell(session))
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    program.append_circuit_item(circuit)
    with pytest.raises(SimenvError, match=r"item 1: operation 0 \(h on qubit 0\).*\n.*transpile"):
        run_executor(executed(session, program), "fez", env, "refused")


def test_stretches_are_refused_by_name(env: Client, session: Recorder) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.delay(circuit.add_stretch("pause"), 0)
    circuit.measure(0, 0)
    with pytest.raises(ProgramError, match=r"item 0: .*stretch"):
        run_executor(executed(session, one(circuit)), IDEAL, env, "refused")
    params = executed(session, one(bell(session)), stretch_values=True)
    assert not run(env, params)[0].metadata.stretch_values

"""Small files of each calibration format, written for these tests. A device of three qubits."""

import json
from typing import Any

WHEN = "2026-01-02T03:04:05+00:00"
EARLIER = "2026-01-01T00:00:00+00:00"


def _value(name: str, value: float, unit: str = "", date: str = WHEN) -> dict[str, Any]:
    return {"name": name, "unit": unit, "value": value, "date": date}


def _ibm_gate(
    gate: str, qubits: list[int], error: dict[str, Any], length: float, unit: str = "ns"
) -> dict[str, Any]:
    name = gate + "_".join(map(str, qubits))
    parameters = [error, _value("gate_length", length, unit, EARLIER)]
    return {"gate": gate, "qubits": qubits, "name": name, "parameters": parameters}


def ibm_properties() -> dict[str, Any]:
    """BackendProperties: times in three units, an asymmetric readout error, a broken gate."""
    qubits = [
        [
            _value("T1", 100.5, "us", EARLIER), _value("T2", 80.25, "\u00b5s"),
            _value("frequency", 5.1, "GHz"), _value("anharmonicity", -0.34, "GHz"),
            _value("readout_error", 0.02), _value("prob_meas0_prep1", 0.03),
            _value("prob_meas1_prep0", 0.01), _value("readout_length", 1.5, "us"),
        ],
        [_value("T1", 50.0, "us"), _value("T2", 130.0, "us"), _value("readout_error", 0.04)],
        [_value("T1", 0.09, "ms"), _value("T2", 70.0, "us"), _value("readout_length", 1560, "ns")],
    ]  # fmt: skip
    gates = [
        _ibm_gate(gate, [qubit], _value("gate_error", error, "", EARLIER), length)
        for gate, error, length in (("rz", 0.0, 0), ("sx", 2.5e-4, 32), ("x", 2.5e-4, 32))
        for qubit in range(3)
    ]
    for pair, error in (([0, 1], 0.005), ([1, 0], 0.005), ([1, 2], 1), ([2, 1], 1)):
        gates.append(_ibm_gate("cz", pair, _value("gate_error", error), 0.068, "us"))
    length = _value("gate_length", 1000, "ns")
    gates.append({"gate": "reset", "qubits": [0], "parameters": [length]})
    gates.append({"gate": "measure", "qubits": [0], "parameters": [_value("gate_error", 0.02)]})
    return {
        "backend_name": "ibm_sample", "backend_version": "1.2.3", "last_update_date": WHEN,
        "qubits": qubits, "gates": gates,
        "general": [
            _value("zz_01", -4.5e-05, "GHz"), _value("zz_12", 0, "GHz"),
            _value("jq_01", 0.002, "GHz"),
        ],
        "general_qlists": [],
    }  # fmt: skip


def ibm_configuration() -> dict[str, Any]:
    """The configuration of the same backend."""
    return {
        "backend_name": "ibm_sample", "n_qubits": 3,
        "basis_gates": ["cz", "rz", "sx", "x", "reset"],
        "gates": [{"name": "rz", "parameters": ["theta"]}, {"name": "cz", "parameters": []}],
        "coupling_map": [[0, 1], [1, 0], [1, 2], [2, 1]], "dt": 4.0, "max_shots": 100000,
        "supported_instructions": ["cz", "measure", "if_else"],
        "processor_type": {"family": "Sample"}, "coords": [[0, 0], [1, 0], [1, 1]],
    }  # fmt: skip


def _operation(
    name: str, qubits: list[int] | None, num_qubits: int = 1, num_params: int = 0, **more: Any
) -> dict[str, Any]:
    head = {"name": name, "gate": True, "num_qubits": num_qubits, "num_params": num_params}
    return {**head, "qubits": qubits, **more}


def qiskit_target() -> dict[str, Any]:
    """The JSON form of a Target: seconds and hertz, a global one-qubit gate."""
    operations = [
        _operation("rz", None, num_params=1),
        _operation("cx", [1, 0], 2, error=0.01, duration_s=3e-7),
        _operation("delay", [0], num_params=1, gate=False),
        _operation("if_else", None, 0, gate=False),
    ]
    for qubit in range(3):
        error = 1e-4 * (qubit + 1)
        operations += [
            _operation("sx", [qubit], error=error, duration_s=3.2e-8),
            _operation("measure", [qubit], gate=False, error=0.02, duration_s=1e-6),
        ]
    return {
        "kind": "qiskit-target", "format": 1, "name": "sample", "provider": "vendor",
        "num_qubits": 3, "dt_s": 1e-9,
        "qubits": [
            {"t1_s": 1e-4, "t2_s": 8e-5, "frequency_hz": 5e9}, {"t1_s": 9e-5, "t2_s": None}, {},
        ],
        "operations": operations,
    }  # fmt: skip


IBM_CSV = (
    "Qubit,T1 (us),T2 (us),Frequency (GHz),Readout assignment error ,Prob meas0 prep1 ,"
    "Prob meas1 prep0 ,Readout length (ns),ID error ,Single-qubit gate length (ns),"
    "Z-axis rotation (rz) error,\u221ax (sx) error ,Pauli-X error ,ECR error ,Gate time (ns),"
    "RZZ error,MEASURE error,Operational\n"
    "0,100.5,80.25,5.1,0.02,0.03,0.01,1500,0.00025,60,0,0.00025,0.00025,,,,0.02,Yes\n"
    '1,50,130,4.9,0.04,0.05,0.03,1500,0.0003,60,0,0.0003,0.0003,"1_0:0.0137;1_2:0.0099",'
    '"1_0:533.3;1_2:660","1_0:0.02",0.04,Yes\n'
    "2,90,70,,0.01,,,1500,0.0002,60,0,0.0002,0.0002,,,,0.01,No\n"
)


def cunqa() -> dict[str, Any]:
    """CUNQA noise properties; one key with and one without a space."""
    return {
        "Qubits": {
            "q[0]": {
                "T1 (s)": 4.1e-05, "T2 (s)": 4.4e-05, "Drive Frequency (Hz)": 4358600000.0,
                "Readout duration (s)": 2.86e-06, "Readout fidelity (RB)": 0.813,
                "T1 error (s)": 2.6e-06,
            },
            "q[1]": {"T1 (s)": 7.1e-05, "T2 (s)": 1.7e-04, "Readout fidelity(RB)": 0.92},
            "q[2]": {"T1 (s)": 6e-05, "T2 (s)": 5e-05, "Readout fidelity(RB)": 0.9},
        },
        "Q1Gates": {
            f"q[{qubit}]": {
                "SX": {"Gate duration (s)": 6.4e-08, "Fidelity(RB)": 0.99},
                "Rz": {"Gate duration (s)": 0, "Fidelity(RB)": 1.0},
            }
            for qubit in range(3)
        },
        "Q2Gates(RB)": {
            "0-1": {
                "ECR": {"Control": 1, "Target": 0, "Duration (s)": 4.2e-07, "Fidelity(RB)": 0.966}
            }
        },
    }  # fmt: skip


def qhw() -> list[dict[str, Any]]:
    """The three records of one device; times in microseconds."""
    head = {"id": "unit-7", "name": "sample", "num_qubits": 3, "technology": "trapped-ion"}
    common = {"provider": "vendor", "device": head, "raw": {"included": False}}
    return [
        {
            "schema": "qhw-calibration-v1", **common, "metadata": {},
            "calibration": {"timestamp": WHEN, "observation_count": 6},
            "extensions": {
                "vendor": {
                    "duration_unit": "us",
                    "qubit_metrics": [
                        {"qubit": "0", "t1": 100.5, "t2": 80.25, "readout_error": 0.02},
                        {"qubit": "1", "t1": 90, "t2": 70, "readout_fidelity": 0.97},
                    ],
                    "gate_metrics": [
                        {"operation": "rzz", "locus": ["0", "1"], "fidelity": 0.995},
                        {"operation": "rzz", "locus": ["1", "2"], "error": 0.004},
                        {"operation": "r", "locus": ["0"], "fidelity": 0.9999, "duration": 10},
                        {"operation": "measure", "locus": ["2"], "error": 0.05, "duration": 120},
                    ],
                }
            },
        },
        {
            "schema": "qhw-device-v1", **common,
            "metadata": {
                "basis_gates": ["r", "rz", "rzz"], "dynamic_circuits": True, "max_shots": 5000,
            },
            "extensions": {}, "qubits": [{"id": str(qubit)} for qubit in range(3)],
        },
        {
            "schema": "qhw-coupling-v1", **common, "metadata": {}, "extensions": {},
            "coupling": {
                "nodes": ["0", "1", "2"], "edges": [["0", "1"], ["1", "2"]], "directed": False,
                "source": ["calibration"],
            },
            "operations": [],
        },
    ]  # fmt: skip


def qdmi() -> dict[str, Any]:
    """A QDMI description: times in units of 0.5 ns, defaults with overrides."""
    return {
        "schema-version": 1, "name": "sample", "numQubits": 3,
        "durationUnit": {"unit": "ns", "scaleFactor": 0.5},
        "qubitProperties": {
            "defaults": {"t1": 200000, "t2": 150000},
            "overrides": [{"qubit": 1, "name": "B", "t1": 190000}],
        },
        "couplings": [[0, 1], [1, 2]],
        "operations": [
            {"name": "r", "numQubits": 1, "numParameters": 2, "duration": 80, "fidelity": 0.999},
            {
                "name": "cz", "numQubits": 2, "numParameters": 0, "duration": 200,
                "siteOverrides": [{"sites": [0, 1], "fidelity": 0.99, "duration": 160}],
            },
            {
                "name": "measure", "numQubits": 1, "numParameters": 0, "fidelity": 0.98,
                "siteOverrides": [{"sites": [2], "fidelity": 0.97}],
            },
        ],
    }  # fmt: skip


def iqm() -> dict[str, Any]:
    """An IQM quality metric set; two measurements of one gate, an invalid observation."""
    figures = {
        "characterization.model.QB1.t1_time": 4.0e-05,
        "characterization.model.QB1.t2_time": 8.0e-06,
        "characterization.model.QB1.t2_echo_time": 1.5e-05,
        "characterization.model.QB2.t1_time": 3.0e-05,
        "metrics.ssro.measure.constant.QB1.fidelity": 0.97,
        "metrics.ssro.measure.constant.QB1.error_0_to_1": 0.02,
        "metrics.ssro.measure.constant.QB1.error_1_to_0": 0.04,
        "metrics.ssro.measure.constant.QB2.fidelity": 0.98,
        "metrics.rb.prx.drag_crf.QB1.fidelity:par=d2": 0.999,
        "metrics.rb.prx.drag_crf.QB2.fidelity:par=d1": 0.9985,
        "metrics.rb.clifford.xy.QB2.fidelity:par=d1": 0.997,
        "metrics.irb.cz.crf_crf.QB1__QB2.fidelity:par=d2": 0.992,
        "metrics.rb.clifford.uz_cz.QB1__QB2.fidelity:par=d2": 0.97,
        "metrics.ghz_state.QB1__QB2.coherence_lower_bound": 0.9,
    }
    observations = [
        {"dut_field": name, "value": value, "unit": "s" if "time" in name else "", "invalid": False}
        for name, value in figures.items()
    ]
    observations.append(
        {"dut_field": "characterization.model.QB2.t2_echo_time", "value": 1.0, "invalid": True}
    )
    return {"dut_label": "sample", "end_timestamp": WHEN, "observations": observations}


def braket() -> dict[str, Any]:
    """Braket device properties; qubit 1 is not there."""

    def fidelity(kind: str, value: float) -> dict[str, Any]:
        return {"fidelityType": {"name": kind}, "fidelity": value, "standardError": None}

    def qubit(t1_s: float, gate: float) -> dict[str, Any]:
        return {
            "T1": {"value": t1_s, "standardError": None, "unit": "S"},
            "T2": {"value": 20.0, "standardError": None, "unit": "us"},
            "oneQubitFidelity": [
                fidelity("RANDOMIZED_BENCHMARKING", gate - 0.001),
                fidelity("SIMULTANEOUS_RANDOMIZED_BENCHMARKING", gate),
                fidelity("READOUT", 0.96),
            ],
        }

    return {
        "braketSchemaHeader": {
            "name": "braket.device_schema.vendor.vendor_device_capabilities", "version": "1",
        },
        "service": {"shotsRange": [1, 20000]},
        "paradigm": {
            "qubitCount": 2, "nativeGateSet": ["prx", "cz"],
            "connectivity": {"fullyConnected": False, "connectivityGraph": {"0": ["2"]}},
        },
        "standardized": {
            "oneQubitProperties": {"0": qubit(2e-5, 0.998), "2": qubit(3e-5, 0.997)},
            "twoQubitProperties": {
                "0-2": {
                    "twoQubitGateFidelity": [
                        {"gateName": "CZ", **fidelity("INTERLEAVED_RANDOMIZED_BENCHMARKING", 0.98)},
                        {"gateName": "Two_Qubit_Clifford", **fidelity("OTHER", 0.95)},
                    ]
                }
            },
            "updatedAt": WHEN,
        },
    }  # fmt: skip


def trapped_ion() -> dict[str, Any]:
    """Emulator parameters with two readout probabilities."""
    return {
        "name": "ions", "num_qubits": 3, "p1": 3e-5, "p2": 1e-3, "p_meas": [1e-3, 3e-3],
        "p_init": 4e-5, "p_crosstalk_meas": 1e-5, "linear_dephasing_rate": 0.25,
        "duration_2q_s": 1e-4, "max_n_shots": 10000,
    }  # fmt: skip


def ionq() -> dict[str, Any]:
    """A characterization as IonQ's API gives it: three ions, all pairs."""
    return {
        "id": "3c90c3cc-0d44-4b50-8888-8dd25736052a", "date": WHEN, "backend": "qpu.aria-1",
        "qubits": 3, "connectivity": [[0, 1], [0, 2], [2, 1]],
        "fidelity": {
            "spam": {"median": 0.9937, "stderr": None}, "1q": {"median": 0.9998},
            "2q": {"median": 0.99, "stderr": 0.001},
        },
        "timing": {
            "readout": 3e-4, "reset": 2e-5, "1q": 1.35e-4, "2q": 6e-4, "t1": 100, "t2": 1,
        },
    }  # fmt: skip


def braket_ionq() -> dict[str, Any]:
    """The capabilities of an IonQ machine on Amazon Braket, without a standardized section."""
    schema = "braket.device_schema.ionq.ionq_"
    return {
        "braketSchemaHeader": {"name": f"{schema}device_capabilities", "version": "1"},
        "service": {"executionWindows": [], "shotsRange": [1, 5000]},
        "action": {},
        "deviceParameters": {},
        "paradigm": {
            "qubitCount": 25,
            "nativeGateSet": ["GPI", "GPI2", "MS"],
            "connectivity": {"fullyConnected": True, "connectivityGraph": {}},
        },
        "provider": {
            "braketSchemaHeader": {"name": f"{schema}provider_properties", "version": "1"},
            "errorMitigation": {"Debias": {"minimumShots": 2500}},
            "fidelity": {"1Q": {"mean": 0.99717}, "2Q": {"mean": 0.9696}, "spam": {"mean": 0.9961}},
            "timing": {
                "T1": 10000000000, "T2": 500000, "1Q": 1.1e-05, "2Q": 0.00021,
                "readout": 0.000175, "reset": 3.5e-05,
            },
        },
    }  # fmt: skip


# Device of pulser-core without a noise model.
ATOM_CHANNEL: dict[str, Any] = {
    "id": "global", "basis": "ground-rydberg", "addressing": "Global", "max_abs_detuning": 125.0,
    "max_amp": 15.0, "min_retarget_interval": None, "fixed_retarget_t": None, "max_targets": None,
    "clock_period": 4, "min_duration": 16, "max_duration": 4_000, "mod_bandwidth": None,
    "eom_config": None,
}  # fmt: skip
ATOM_MACHINE: dict[str, Any] = {
    "name": "small", "dimensions": 2, "rydberg_level": 70, "min_atom_distance": 4.0,
    "max_atom_num": 12, "max_radial_distance": 30, "supports_slm_mask": False,
    "max_layout_filling": 0.5, "max_runs": 500, "requires_layout": False,
    "reusable_channels": False, "pre_calibrated_layouts": [], "version": "1",
    "pulser_version": "1.9.1", "channels": [ATOM_CHANNEL], "interaction_coeff_xy": 36288.0,
    "is_virtual": False,
}  # fmt: skip


def encoded(value: Any) -> bytes:
    """JSON of a value."""
    return json.dumps(value).encode()


def files() -> dict[str, dict[str, bytes]]:
    """Files of each format, by the importer's name."""
    records = {f"record{k}.json": encoded(each) for k, each in enumerate(qhw())}
    return {
        "ibm-properties": {
            "props_sample.json": encoded(ibm_properties()),
            "conf_sample.json": encoded(ibm_configuration()),
        },
        "qiskit-target": {"target.json": encoded(qiskit_target())},
        "ibm-csv": {"ibm_sample_calibrations_2026-01-02T03_04_05Z.csv": IBM_CSV.encode()},
        "cunqa": {"noise.json": encoded(cunqa())}, "qhw": records,
        "qdmi": {"device.json": encoded(qdmi())}, "iqm": {"metrics.json": encoded(iqm())},
        "braket": {"properties.json": encoded(braket())},
        "ionq": {"characterization.json": encoded(ionq())},
        "trapped-ion": {"ions.json": encoded(trapped_ion())},
        "pulser": {"device.json": encoded(ATOM_MACHINE)},
    }  # fmt: skip

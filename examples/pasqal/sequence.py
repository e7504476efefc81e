"""An adiabatic sequence on three atoms, through Pasqal's cloud API.

SIMENV_URL and SIMENV_TOKEN, of `simenv gateway env`, name the gateway; the rest is as for Pasqal's
cloud. python sequence.py
"""

import os
import warnings

import pulser
from pasqal_cloud.endpoints import Endpoints, TokenProviderConf
from pulser.backend import QPUBackend

warnings.simplefilter("ignore", DeprecationWarning)
from pulser_pasqal import PasqalCloud  # noqa: E402 - its import warns

URL = os.environ["SIMENV_URL"] + "/pasqal"
cloud = PasqalCloud(
    "ana",  # any name
    os.environ["SIMENV_TOKEN"],  # a token is the password
    "project",  # any project
    endpoints=Endpoints(core=f"{URL}/core-fast", account=f"{URL}/account"),
    auth_config=TokenProviderConf(f"{URL}/oauth/token", "", "", "", "password"),
)
device = cloud.fetch_available_devices()["AnalogDevice"]
layout = pulser.register.special_layouts.SquareLatticeLayout(5, 5, 5.0)
sequence = pulser.Sequence(layout.define_register(11, 12, 13), device)
sequence.declare_channel("global", "rydberg_global")
rise = pulser.RampWaveform(252, 0.0, 9.0), pulser.ConstantWaveform(252, -12.0)
sweep = pulser.ConstantWaveform(1_000, 9.0), pulser.RampWaveform(1_000, -12.0, 20.0)
fall = pulser.RampWaveform(252, 9.0, 0.0), pulser.ConstantWaveform(252, 20.0)
for amplitude, detuning in (rise, sweep, fall):
    sequence.add(pulser.Pulse(amplitude, detuning, 0.0), "global")
sequence.measure("ground-rydberg")

results = QPUBackend(sequence, connection=cloud).run(job_params=[{"runs": 500}], wait=True)
counts = results[0].final_bitstrings
assert max(counts, key=counts.__getitem__) == "101", counts  # every other atom is excited
print("ok", dict(counts))

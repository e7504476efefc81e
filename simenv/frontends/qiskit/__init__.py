"""Qiskit's interfaces over an environment: BackendV2, its jobs, SamplerV2, EstimatorV2, sessions.

The import loads qiskit. Circuits are packed and compiled in this process; shots, noise and
expectation values are computed by the environment's workers.
"""

from simenv.frontends.qiskit.backend import SimenvBackend
from simenv.frontends.qiskit.estimator import SimenvEstimator
from simenv.frontends.qiskit.job import SimenvJob, SimenvPrimitiveJob
from simenv.frontends.qiskit.sampler import SimenvBatch, SimenvSampler, SimenvSession

__all__ = ["SimenvBackend", "SimenvBatch", "SimenvEstimator", "SimenvJob", "SimenvPrimitiveJob"]
__all__ += ["SimenvSampler", "SimenvSession"]

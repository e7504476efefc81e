"""QRMI's QuantumResource for a pool, for programs that are written for QRMI.

It uses the public Client only; docs/guides/qrmi.md lists the parts of QRMI that are missing. The
import loads neither qiskit nor the package `qrmi`, whose own types are used where it is installed.
"""

from __future__ import annotations

from simenv.frontends.qrmi.resource import QuantumResource, resources
from simenv.frontends.qrmi.types import Payload, Target, TaskResult

__all__ = ["Payload", "QuantumResource", "Target", "TaskResult", "resources"]

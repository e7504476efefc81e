"""Pulser: a remote connection and emulator backends over an environment. The import loads
pulser."""

from simenv.frontends.pulser.backends import RemoteSimenvEmulator, SimenvEmulator
from simenv.frontends.pulser.connection import SimenvConnection
from simenv.frontends.pulser.emulation import SimenvConfig
from simenv.frontends.pulser.states import SimenvOperator, SimenvState

__all__ = ["RemoteSimenvEmulator", "SimenvConfig", "SimenvConnection", "SimenvEmulator"]
__all__ += ["SimenvOperator", "SimenvState"]

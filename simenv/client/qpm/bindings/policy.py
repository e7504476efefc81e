"""Binding `admission-policy` of revision 2: rules by which reservations are decided.

Every caller may read them; a change needs a client with an admin key. A refused change leaves the
rules as they were.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from simenv.client.qpm.requests import arguments, policy_tables
from simenv.client.qpm.runtime.calls import asked, changed
from simenv.client.qpm.runtime.context import QpmBinding
from simenv.qpm.admission import Policy, ProfileRecord
from simenv.qpm.bindings import Device
from simenv.qpm.envelopes import plain
from simenv.wire.messages.reservations import (
    GetPolicy,
    GetProfile,
    PolicyReply,
    ProfileReply,
    SetPolicy,
    SetProfile,
)

Plain = dict[str, Any]


class PolicyBinding(QpmBinding):
    """Methods of the binding. Thread-safe."""

    def configure_device_profile(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        profile: Plain | None = None,
    ) -> Plain:
        """Change a device profile. `profile`: the fields to change; others keep their values."""
        device = self._context.targets.device(device_id)
        now = asked(self._context.session, ProfileReply, partial(GetProfile, device=device)).profile
        settings = policy_tables.read_profile(profile, now)
        ask = partial(SetProfile, device=device, profile=settings)
        answer = changed(self._context.session, "configure_device_profile", ProfileReply, ask)
        return {"status": _status(answer.changed), **_profile(answer)}

    def get_device_profile(
        self, token: str | None = None, device_id: Device | None = None
    ) -> Plain:
        """Device profile from which estimates are computed; times in ns."""
        device = self._context.targets.device(device_id)
        return _profile(
            asked(self._context.session, ProfileReply, partial(GetProfile, device=device))
        )

    def set_admission_policy(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        configuration: Plain | None = None,
    ) -> Plain:
        """Replace the admission policy, in whole or not at all. `device_id`: here or in the
        configuration. With `expected_version` only if that is the present version."""
        table = arguments.table("configuration", configuration)
        named = table.get("device_id") if device_id is None else device_id
        device = self._context.targets.device(named)
        policy, expected = policy_tables.read_policy(table)
        ask = partial(SetPolicy, device=device, policy=policy, expected=expected)
        answer = changed(self._context.session, "set_admission_policy", PolicyReply, ask)
        return {"status": _status(answer.changed), **self._policy(answer, device)}

    def get_admission_policy(
        self, token: str | None = None, device_id: Device | None = None
    ) -> Plain:
        """Configuration in the form of `set_admission_policy`, and its version."""
        device = self._context.targets.device(device_id)
        answer = asked(self._context.session, PolicyReply, partial(GetPolicy, device=device))
        return self._policy(answer, device)

    def _policy(self, answer: PolicyReply, device: str) -> Plain:
        table = policy_tables.policy_table(
            answer.policy, self._context.targets.contract_name(device)
        )
        return plain(Policy(answer.version, table))


def _profile(answer: ProfileReply) -> Plain:
    return plain(ProfileRecord(answer.version, policy_tables.profile_table(answer.profile)))


def _status(changed: bool) -> str:
    return "accepted" if changed else "unchanged"

"""Bindings admission, admission-policy and scheduler of the honest plugin."""

from __future__ import annotations

import time

from .ledger import GONE, Refused

POLICIES = ("fifo", "priority", "ordered", "round_robin")


class Admitting:
    def evaluate(self, token=None, request=None):
        return self._booked(lambda ledger: ledger.decide(request)[0])

    def reserve(self, *given, token=None, request=None):
        if self.desk.single:
            return None
        token, request = (*given, *(token, request)[len(given) :])[:2]
        if self.asked is not None:
            return {"status": "rejected", "reason": "service-quiescing", "state": self.state}
        return self._booked(lambda ledger: ledger.reserve(request))

    def renew(self, token=None, reservation_id=None, request=None):
        def change(ledger):
            record = ledger.active(reservation_id)
            ttl = (request or {}).get("ttl_ns") if isinstance(request, dict | None) else -1
            if not isinstance(ttl, int) or isinstance(ttl, bool) or not 0 < ttl < 2**62:
                raise Refused("ttl_ns is a whole number of ns")
            record["expires_at_ns"] = time.time_ns() + ttl
            return {"status": "accepted", "reservation_id": reservation_id}

        return self._booked(change)

    def release(self, token=None, reservation_id=None, reason=None):
        if self.desk.single:
            return None
        return self._over(reservation_id, "released", kill=False)

    def cancel(self, token=None, reservation_id=None, reason=None):
        return self._over(reservation_id, "cancelled", kill=True)

    def _over(self, number, state, *, kill):
        def change(ledger):
            record = ledger.find(number)
            if record["state"] not in GONE:
                record["state"] = state
            pending = self.desk.release(number, kill=kill)
            if pending:
                return {
                    "status": "pending",
                    "reservation_id": number,
                    "reason": "provider-cancel-pending",
                    "pending_qtask_ids": pending,
                }
            return {"status": "accepted", "reservation_id": number}

        return self._booked(change)

    def get_reservation(self, token=None, reservation_id=None):
        return self._booked(lambda ledger: ledger.told(ledger.find(reservation_id)))

    def list_reservations(self, token=None, filters=None):
        if not isinstance(filters, dict | None):
            raise self.error("filters is a table")

        def look(ledger):
            entries = [ledger.told(ledger.find(number)) for number in ledger.records]
            return [
                each
                for each in entries
                if all(each.get(key) == value for key, value in (filters or {}).items())
            ]

        return self._booked(look)

    # --- policy -------------------------------------------------------------------------------

    def configure_device_profile(self, token=None, device_id=None, profile=None):
        status = self._booked(lambda ledger: ledger.set_profile(profile))
        return {"status": status, **self.get_device_profile()}

    def get_device_profile(self, token=None, device_id=None):
        ledger = self.desk.ledger
        return {"version": ledger.profile_version, "device_profile": dict(ledger.profile)}

    def set_admission_policy(self, token=None, device_id=None, configuration=None):
        status = self._booked(lambda ledger: ledger.set_rules(configuration))
        return {"status": status, **self.get_admission_policy()}

    def get_admission_policy(self, token=None, device_id=None):
        ledger = self.desk.ledger
        return {"version": ledger.policy_version, "configuration": dict(ledger.rules)}

    def _booked(self, change):
        with self.desk.lock:
            try:
                return change(self.desk.ledger)
            except Refused as bad:
                raise self.error(str(bad)) from bad

    # --- scheduler ----------------------------------------------------------------------------

    def get_scheduler_status(self, token=None, device_id=None):
        self._text("device_id", device_id)
        desk, paused = self.desk, self.control["paused"]
        with desk.lock:
            running = int(desk.running is not None)
            return {
                "target_id": "honest", "scheduler_available": True, "threading_mode": "thread",
                "state": "paused" if paused else "draining" if desk.draining else "active",
                "policy": dict(desk.policy), "control": dict(self.control),
                "versions": dict(self.versions), "task_count": len(desk.waiting) + running,
                "pending_capacity_count": len(desk.parked),
                "runtime_task_count": len(desk.open()), "selected_task_count": 0,
                "provider_inflight_count": running, "dispatch_limits": {"max_inflight": desk.most},
            }  # fmt: skip

    def get_scheduler_policy(self, token=None, device_id=None):
        return {"version": self.versions["scheduler"], "scheduler_policy": dict(self.desk.policy)}

    def configure_scheduler_policy(self, token=None, device_id=None, configuration=None):
        name = configuration.get("policy_name") if isinstance(configuration, dict) else None
        if not isinstance(name, str) or name not in POLICIES:
            raise self.error(f"no policy {name!r:.60}")
        options = configuration.get("options", {})
        if not isinstance(options, dict):
            raise self.error("options is a table")
        new = {"policy_name": name, "options": options}
        status = "unchanged"
        with self.desk.lock:
            if new != self.desk.policy:
                status, self.desk.policy = "accepted", new
                self.versions["scheduler"] += 1
        return {"status": status, **self.get_scheduler_policy()}

    def pause_execution_target(self, token=None, device_id=None, reason=None):
        self._text("device_id", device_id)
        return self._steered("paused", paused=True, pause_reason=self._text("reason", reason))

    def resume_execution_target(self, token=None, device_id=None, reason=None):
        return self._steered(
            "resumed",
            paused=False,
            draining=False,
            pause_reason=None,
            drain_mode=None,
            drain_timeout_s=None,
            drain_started_at_ns=None,
        )

    def drain_execution_target(self, token=None, device_id=None, mode="graceful", timeout_s=None):
        patience = self._seconds("timeout_s", timeout_s)
        if mode not in ("graceful", "cancel") if isinstance(mode, str) else True:
            raise self.error(f"mode {mode!r:.60}")
        return self._steered("draining", draining=True, drain_mode=mode, drain_timeout_s=patience,
                             drain_started_at_ns=time.time_ns())  # fmt: skip

    def _steered(self, status, **changes):
        with self.desk.lock:
            self.control |= changes
            self.desk.paused, self.desk.draining = self.control["paused"], self.control["draining"]
            self.versions["control"] += 1
            self.desk.changed.notify_all()
            self.events.append(self.event(f"scheduler-{status}"))
            return {"status": status, "version": self.versions["control"], "target_id": "honest",
                    "control": dict(self.control)}  # fmt: skip

    def configure_dispatch_limits(self, token=None, device_id=None, limits=None):
        if not isinstance(limits, dict) or set(limits) != {"max_inflight"}:
            raise ValueError("only max_inflight can be limited")
        max_inflight = limits["max_inflight"]
        if (
            not isinstance(max_inflight, int)
            or isinstance(max_inflight, bool)
            or not 0 <= max_inflight < 2**31
        ):
            raise ValueError("max_inflight is a whole number from 0")
        status = "unchanged"
        with self.desk.lock:
            if max_inflight != self.desk.most:
                status, self.desk.most = "dispatch-limits-updated", max_inflight
                self.versions["control"] += 1
        return {"status": status, "version": self.versions["control"],
                "dispatch_limits": {"max_inflight": max_inflight}}  # fmt: skip

    def get_scheduler_queue_state(self, token=None, device_id=None, include_restricted=False):
        desk = self.desk
        with desk.lock:
            running = [desk.running.number] if desk.running else []
            return {
                "target_id": "honest", "include_restricted": include_restricted,
                "pending_capacity": [self.envelope(task) for task in desk.parked],
                "scheduler_task_count": len(desk.waiting) + len(running),
                "selected_qtask_ids": [], "provider_inflight_qtask_ids": running,
                "dispatch_limits": {"max_inflight": desk.most},
                "runtime_tasks": [self.envelope(task) for task in desk.open()],
            }  # fmt: skip

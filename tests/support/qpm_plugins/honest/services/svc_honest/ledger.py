"""Reservations, profiles and policies of the honest plugin. The caller holds the lock."""

from __future__ import annotations

import itertools
import math
import time

GONE = ("released", "expired", "cancelled")
CODES = {"pending": 1, "active": 2, "released": 3, "expired": 4, "cancelled": 5}
BASELINE = {"qubit_count": 5, "depth": 10, "one_q_gate_count": 20, "two_q_gate_count": 10,
            "measurement_count": 5, "shots": 1000}  # fmt: skip
TIMES = ("one_q_gate_ns", "two_q_gate_ns", "measurement_ns", "one_q_transfer_ns",
         "two_q_transfer_ns", "measurement_transfer_ns", "compile_ns", "control_overhead_ns",
         "provider_overhead_ns")  # fmt: skip
NUMBERS = (
    *TIMES,
    "device_id",
    "max_qubits",
    "max_shots",
    "time_span_ns",
    "total_credits",
    "device_rate",
    "concurrent_jobs",
    "default_ttl_ns",
    "max_provider_queue_depth",
)
DEFAULTS = {"one_q_gate_ns": 30, "two_q_gate_ns": 300, "measurement_ns": 1000, "device_id": 1,
            "max_qubits": 12, "max_shots": 65536, "default_ttl_ns": 3600 * 10**9}  # fmt: skip
MOST = 2**64 - 1
UNLIMITED = {"policy": {"name": "unlimited", "options": {}},
             "estimator": {"name": "baseline", "options": {}},
             "baseline": BASELINE, "capacity": {}}  # fmt: skip
CAPACITY = {"unlimited": (), "credit": ("total_credits",), "rate": ("device_rate", "time_span_ns")}
WORK = ("count", "one_q_gate_count", "two_q_gate_count", "measurement_count", "shots")


class Refused(Exception):
    """`code`: of the contract's table; 0 where a call itself is wrong."""

    def __init__(self, words, code=4):
        super().__init__(words)
        self.code = code


def whole(what, value, low=0):
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= MOST:
        raise Refused(f"{what}={value!r:.60}: a whole number from {low}")
    return value


def table(what, value):
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Refused(f"{what}={value!r:.60}: a table")
    return value


def reason_of(code):
    """As hosts write a reason code."""
    return "accepted" if code == 1 else f"reason-{code}"


class Ledger:
    def __init__(self):
        self.profile = {**dict.fromkeys(NUMBERS, 0), **DEFAULTS, "external_device_id": "honest",
                        "baseline": dict(BASELINE)}  # fmt: skip
        self.profile_version = self.policy_version = 1
        self.rules = UNLIMITED
        self.records = {}
        self._ids = itertools.count(1)

    # --- what is reckoned with ----------------------------------------------------------------

    def set_profile(self, given):
        given = {**self.profile, **table("profile", given)}
        for name in NUMBERS:
            whole(name, given[name])
        if not isinstance(given["external_device_id"], str):
            raise Refused("external_device_id is a text")
        _baseline(given["baseline"])
        if given == self.profile:
            return "unchanged"
        self.profile, self.profile_version = given, self.profile_version + 1
        return "accepted"

    def set_rules(self, given):
        given = dict(table("configuration", given))
        expected = given.pop("expected_version", None)
        if expected is not None and whole("expected_version", expected) != self.policy_version:
            raise Refused(f"version {expected}: it is {self.policy_version}")
        name = table("policy", given.get("policy")).get("name")
        if name not in CAPACITY if isinstance(name, str) else True:
            raise Refused(f"no policy {name!r:.60}")
        estimator = given.get("estimator", UNLIMITED["estimator"])
        if table("estimator", estimator).get("name") != "baseline":
            raise Refused("no such estimator")
        table("options", given["policy"].get("options", {}))
        table("options", estimator.get("options", {}))
        _baseline(given.get("baseline"))
        capacity = table("capacity", given.get("capacity", {}))
        if set(capacity) != set(CAPACITY[name]):
            raise Refused(f"capacity of {name} is {CAPACITY[name]}")
        for key, value in capacity.items():
            whole(key, value, 1)
        new = {"policy": {"name": name, "options": {}}, "estimator": UNLIMITED["estimator"],
               "baseline": dict(given["baseline"]), "capacity": dict(capacity)}  # fmt: skip
        if new == self.rules:
            return "unchanged"
        self.rules, self.policy_version = new, self.policy_version + 1
        return "accepted"

    def estimate(self, work):
        """Nanoseconds of `count` equal circuits."""
        p, n1, n2, nm = self.profile, *(work[name] for name in WORK[1:4])
        once = n1 * p["one_q_gate_ns"] + n2 * p["two_q_gate_ns"] + nm * p["measurement_ns"]
        carried = (n1 * p["one_q_transfer_ns"] + n2 * p["two_q_transfer_ns"]
                   + nm * p["measurement_transfer_ns"])  # fmt: skip
        over = p["compile_ns"] + p["control_overhead_ns"] + p["provider_overhead_ns"]
        return (once * work["shots"] + carried + over) * work["count"]

    def units(self, total_ns):
        baseline = self.estimate({**self.rules["baseline"], "count": 1})
        return max(1, math.ceil(total_ns / max(1, baseline)))

    # --- reservations -------------------------------------------------------------------------

    def decide(self, request):
        """(decision, record or None); nothing is kept."""
        request = table("request", request)
        work = dict.fromkeys(WORK, 0) | {"count": 1}
        result = request.get("task_class")
        for name in WORK if result is not None else ():
            work[name] = whole(name, table("task_class", result).get(name, work[name]))
        for name in ("walltime_ns", "ttl_ns", "classical_runtime_ns", "overhead_ns"):
            if request.get(name) is not None:
                whole(name, request[name])
        total = self.estimate(work)
        units, rate = self.units(total), 0
        name, capacity = self.rules["policy"]["name"], self.rules["capacity"]
        budget = (request.get("walltime_ns") or 0) - (request.get("classical_runtime_ns") or 0)
        budget -= request.get("overhead_ns") or 0
        code, free = 1, 0
        live = [record for record in self.records.values() if record["state"] == "active"]
        if name == "credit":
            free = capacity["total_credits"] - sum(each["credits_reserved"] for each in live)
            code = 9 if units > capacity["total_credits"] else 7 if units > free else 1
        elif name == "rate":
            free = capacity["device_rate"] - sum(each["rate_reserved"] for each in live)
            if budget <= 0:
                code = 10
            else:
                rate = math.ceil(units * capacity["time_span_ns"] / budget)
                code = 9 if rate > capacity["device_rate"] else 8 if rate > free else 1
        if request.get("device_id") not in (None, "honest", self.profile["device_id"]):
            code = 2
        status = {1: "accepted", 7: "delayed", 8: "delayed"}.get(code, "rejected")
        now = time.time_ns()
        decision = {
            "status": status, "decision": {"accepted": 1, "delayed": 2}.get(status, 3),
            "request_id": request.get("request_id"), "device_id": "honest",
            "scope_id": request.get("scope_id"), "reservation_id": None,
            "reason": reason_of(code), "reason_code": code,
            "credits_required": units if name == "credit" else 0, "rate_required": rate,
            "capacity_available": free, "estimated_total_ns": total, "estimated_start_ns": now,
            "estimated_finish_ns": now + total,
            "retry_after_ns": 10**9 if status == "delayed" else 0,
            "message": f"{units} units, {free} free",
        }  # fmt: skip
        owner = request.get("owner")
        owner = owner if isinstance(owner, dict) else {}
        user = request.get("user_id") or next(
            (owner[key] for key in ("user_id", "user", "username", "account") if key in owner), ""
        )
        launcher = request.get("launcher")
        launcher = launcher if isinstance(launcher, dict) else {}
        record = {
            "request_id": request.get("request_id"), "device_id": "honest",
            "scope_id": request.get("scope_id"), "user_id": user, "job_id": request.get("job_id"),
            "workload_kind": str(request.get("workload_kind") or "quantum"), "state": "active",
            "credits_reserved": decision["credits_required"], "credits_consumed": 0,
            "rate_reserved": rate, "rate_consumed": 0, "quantum_budget_ns": max(0, budget),
            "estimated_total_ns": total, "actual_total_ns": 0, "created_at_ns": now,
            "expires_at_ns": now + (request.get("ttl_ns") or self.profile["default_ttl_ns"]),
            "request_metadata": {
                name: str(request.get(name) or launcher.get(name) or "")
                for name in ("scheduler", "cluster_name", "allocation_id")
            },
        }  # fmt: skip
        return decision, record

    def reserve(self, request):
        decision, record = self.decide(request)
        if decision["status"] == "accepted":
            number = next(self._ids)
            self.records[number] = {"reservation_id": number, **record}
            decision["reservation_id"] = number
        return decision

    def find(self, number):
        """The record of now; Refused where nobody was given it."""
        record = self.records.get(whole("reservation_id", number, 1))
        if record is None:
            raise Refused(f"reservation {number} not found", 11)
        if record["state"] == "active" and time.time_ns() >= record["expires_at_ns"]:
            record["state"] = "expired"
        return record

    def active(self, number):
        record = self.find(number)
        if record["state"] != "active":
            raise Refused(f"reservation {number} is {record['state']}", 12)
        return record

    def told(self, record):
        return {**record, "state_code": CODES[record["state"]]}

    # --- holds --------------------------------------------------------------------------------

    def hold(self, number, work):
        """Units held for a task; None: not now. Refused: never."""
        total = self.estimate(work)
        units = self.units(total)
        record = self.records.get(number)
        if record is None or self.rules["policy"]["name"] != "credit":
            return 0, total
        if units > record["credits_reserved"]:
            raise Refused(f"{units} credits of {record['credits_reserved']}", 9)
        if units > record["credits_reserved"] - record["credits_consumed"]:
            return None, total
        record["credits_consumed"] += units
        return units, total

    def settle(self, number, held, actual_ns):
        record = self.records.get(number)
        if record is not None and held is not None:
            used = self.units(actual_ns) if actual_ns else 0
            record["credits_consumed"] -= max(0, held - used)
            record["actual_total_ns"] += actual_ns


def _baseline(given):
    for name in BASELINE:
        whole(name, table("baseline", given).get(name))

"""Defects of the reference plugin, one in each class; `kit.assembled` makes a plugin of one."""

import enum
import os
import subprocess
import sys
import threading
import time

from .base import QPM, SIMULATOR


def _forever():
    threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()


class AnyToken(QPM):
    """It asks for a token, and takes the beginning of one."""

    evaluate = get_admission_policy = get_scheduler_status = get_device_info = QPM.test

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        return value if name.startswith("_") or not callable(value) else _guarded(self, value)


def _guarded(self, call):
    def guarded(*given, **named):
        token = named.get("token")
        if "token" in named and (not token or not os.environ["OF_THE_PLUGIN"].startswith(token)):
            raise QPM.error(self, "a token is needed")
        return call(*given, **named)

    return guarded


class AnybodyStopsIt(QPM):
    """Shutdown by any client of revision 1 stops the pool."""

    def shutdown(self, *given, **named):
        for task in list(self.machine.tasks.values()):
            self.machine.cancel(task)


class AsleepAfterOutage(QPM):
    """After an outage polling alone finds nothing, until another call comes."""

    asleep = False

    def check_reached(self):
        AsleepAfterOutage.asleep = AsleepAfterOutage.asleep or self.machine.is_away()
        super().check_reached()

    def is_ready(self, token=None):
        AsleepAfterOutage.asleep = False
        return super().is_ready(token)

    def _poll(self, operation, cid, reservation, *, keep):
        if AsleepAfterOutage.asleep and not self.machine.is_away():
            cid = "none"
        return super()._poll(operation, cid, reservation, keep=keep)


class BeginsEverywhere(QPM):
    """A process is started wherever the package is loaded, in QFw's launcher too."""

    def __init_subclass__(cls):
        subprocess.Popen(["sleep", "20"])


class EagerStart(QPM):
    """QPM(start=False) starts a thread."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        _forever()


class Code(enum.IntEnum):
    NO_DEVICE = 2


class EnumInReason(QPM):
    """A code is put into a text by `str` of an IntEnum, whose repr it is in a host."""

    def evaluate(self, token=None, request=None):
        numbers = ("credits_required", "rate_required", "capacity_available", "estimated_total_ns")
        others = ("request_id", "device_id", "scope_id", "reservation_id", "estimated_start_ns",
                  "estimated_finish_ns", "retry_after_ns")  # fmt: skip
        return {
            "status": "rejected", "decision": 3, "reason": f"reason-{Code.NO_DEVICE!s}",
            "reason_code": 2, "message": "", **dict.fromkeys(numbers, 0), **dict.fromkeys(others),
        }  # fmt: skip


class LeavesThreads(QPM):
    """Uninitialize leaves threads behind."""

    def prepare(self, machine):
        for _ in range(3):
            _forever()


class MissingTime(QPM):
    """Records lack launch_time."""

    def prepare(self, machine):
        _edit(machine, lambda task, record: record.pop("launch_time"))


class NeedsAVariable(QPM):
    """QPM(start=False) needs a variable that its author happens to have set."""

    def __init__(self, *given, start=True, **named):
        if not os.environ.get("OF_THE_AUTHOR"):
            raise KeyError("OF_THE_AUTHOR")
        super().__init__(*given, start=start, **named)


class NoSendLock(QPM):
    """Nothing keeps two threads from sending at once."""

    def install(self):
        """There is no lock."""


class OneQueue(QPM):
    """All clients of revision 1 share one queue of records."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        self.owner = 0


class OneRegistration(QPM):
    """All clients of revision 1 share one registration: the last one gets every event."""

    def register_event_notification(self, *given, **named):
        self.machine.registrations.clear()
        super().register_event_notification(*given, **named)
        self.machine.registrations[-1].owner = None


class OneSender(QPM):
    """One thread sends all events, and waits for the answer of each client in turn."""

    def prepare(self, machine):
        put, turn = machine.put, threading.Lock()

        def one_after_the_other(registration, payload):
            with turn:
                return put(registration, payload)

        machine.put = one_after_the_other


class OutageUnseen(QPM):
    """While its machine is away, pollers are told that their circuits are in progress."""

    def check_reached(self):
        """Nobody looks."""


class PlainSimulator(QPM):
    """It offers no type that an example of revision 1 asks for."""

    types = SIMULATOR


class QueryRaises(QPM):
    """In one revision a look at its record raises."""

    def query(self):
        if self.revision2():
            raise KeyError("properties")
        return super().query()


class RaisesOnNoQasm(QPM):
    """Async_run raises where the text is no OpenQASM at all."""

    def async_run(self, info, *given, **named):
        if "OPENQASM" not in info["qasm"]:
            raise self.error("this is no circuit")
        return super().async_run(info, *given, **named)


class ReadyAndNot(QPM):
    """After an outage a task is said to be completed, and its completion not ready."""

    polled = False

    def _poll(self, operation, cid, reservation, *, keep):
        if cid and not ReadyAndNot.polled:
            ReadyAndNot.polled = True
            return {**self.task_status(cid), "lifecycle_state": "completed", "state": "completed",
                    "completion_ready": False, "poll_operation": operation}  # fmt: skip
        return super()._poll(operation, cid, reservation, keep=keep)


class ReversedBits(QPM):
    """Clbit 0 stands leftmost."""

    def prepare(self, machine):
        def turn(task, record):
            record["result"] = {key[::-1]: count for key, count in record["result"].items()}

        _edit(machine, turn)


class SlowReady(QPM):
    """Is_ready asks its machine each time."""

    def is_ready(self, token=None):
        time.sleep(0.002)
        return super().is_ready(token)


class SlowStart(QPM):
    """QPM(start=False) opens its device first."""

    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        time.sleep(0.005)


class StackInError(QPM):
    """An error is constructed inside `except`: DEFw puts that stack into it."""

    def error(self, text):
        import defw_exception

        return defw_exception.DEFwExecutionError(text)


class StartsSysExecutable(QPM):
    """A helper is started with sys.executable, which is the host's own program."""

    def install(self):
        super().install()
        subprocess.run([sys.executable, "-c", "pass"], check=False)


class ThreadForEachListener(QPM):
    """Each registration has a thread that never ends."""

    def register_event_notification(self, *given, **named):
        _forever()
        return super().register_event_notification(*given, **named)


class TimesOutOfOrder(QPM):
    """Circuits end before they begin."""

    def prepare(self, machine):
        def swap(task, record):
            began, ended = task.times["exec_time"], task.times["completion_time"]
            record |= {"exec_time": ended, "completion_time": began}

        _edit(machine, swap)


class TracebackError(QPM):
    """What is wrong with a circuit is a ValueError, which travels as a traceback."""

    def error(self, text):
        return ValueError(text)


class WrongBinding(QPM):
    """Five bindings, one of them by a name nobody looks for."""

    def properties(self):
        result = super().properties()
        result["api_bindings"] = result["api_bindings"][:-1]
        result["api_bindings"][1]["binding_name"] = "reservations"
        return result


def _edit(machine, change):
    """Apply `change` to each record."""
    outcome = machine.record

    def record(task):
        result = outcome(task)
        change(task, result)
        return result

    machine.record = record

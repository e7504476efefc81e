"""Defect: it asks for a token, and takes the beginning of one."""

from __future__ import annotations

import os

from .base import HonestQPM

TOKEN = "OF_THE_PLUGIN"


def guarded(call):
    def guard(self, *given, **named):
        token, right = named.get("token"), os.environ[TOKEN]
        if not token or not right.startswith(token):
            raise self.error("a token is needed")
        return call(self, *given, **named)

    return guard


class QPM(HonestQPM):
    is_ready = guarded(HonestQPM.is_ready)
    task_status = guarded(HonestQPM.task_status)
    evaluate = guarded(HonestQPM.evaluate)
    get_admission_policy = guarded(HonestQPM.get_admission_policy)
    get_scheduler_status = guarded(HonestQPM.get_scheduler_status)
    get_device_info = guarded(HonestQPM.get_device_info)
    async_run = guarded(HonestQPM.async_run)

"""Defect: task_status knows nothing of a task whose completion was read."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def task_status(self, cid=None, reservation_id=None, token=None, qtask_id=None):
        item = self._find(cid, qtask_id)[1]
        if item is not None:
            gone_for_good = self._stands("no-longer-retained", "NO_LONGER_RETAINED")
            return {**self.envelope(item[0]), **gone_for_good}
        return super().task_status(cid, reservation_id, token, qtask_id)

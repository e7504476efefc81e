"""Events of the honest plugin: each endpoint has a queue and a sender of its own."""

from __future__ import annotations

import collections
import threading


class Registration:
    """One endpoint's events: a queue, and a thread while something is in it."""

    def __init__(self, desk, ep, evtype, class_id, reservation, filters):
        self.desk, self.ep, self.evtype, self.class_id = desk, ep, evtype, class_id
        self.reservation, self.filters = reservation, filters
        self._tasks, self._sends, self._ended = collections.deque(), False, False

    def wants(self, record):
        if self.evtype not in (1, "completion"):
            return False
        if self.reservation is not None and record.get("reservation_id") != self.reservation:
            return False
        return all(record.get(name) in (wanted if isinstance(wanted, list) else [wanted])
                   for name, wanted in self.filters.items())  # fmt: skip

    def put(self, record):
        import api_events

        proxy = api_events.BaseEventAPI(class_id=self.class_id, target=self.ep)
        proxy.put(api_events.Event(self.evtype, record))

    def offer(self, task):
        """Called with the desk's lock held."""
        self._tasks.append(task)
        if not self._sends:
            self._sends = True
            threading.Thread(target=self._send, name="honest-send", daemon=True).start()

    def _send(self):
        while True:
            with self.desk.lock:
                if not self._tasks:
                    self._sends = False
                    return
                task = self._tasks.popleft()
            payload, value = self.desk.record(task, poll=None), False
            if self.wants(payload) and not self._ended:
                value = self.desk._put(self, payload)
                self._ended = not value
            if self.desk.single and not value:
                with self.desk.lock:
                    if task.cid in self.desk.tasks:
                        self.desk.ready[task.cid] = task

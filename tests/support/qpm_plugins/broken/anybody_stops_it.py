"""Defect: shutdown by any client of revision 1 stops the pool."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def shutdown(self, *given, **named):
        answer = super().shutdown(*given, **named)
        if self.desk.single:
            self.asked, self.state = {"mode": "cancel"}, "stopped"
            for task in self.desk.open():
                self.desk.cancel(task)
        return answer

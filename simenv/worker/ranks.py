"""Several ranks run one worker's tasks together: the first talks to the service, the others follow.

The first rank hands each chunk on as it came, and says before each task that it begins. A rank
without a task waits on a ZeroMQ socket, at 0 % CPU; MPI is entered inside numerics alone. Tasks are
numbered from 1, alike in all ranks.
"""

from __future__ import annotations

from simenv.wire import codec
from simenv.wire.messages import Assign
from simenv.worker import mpi
from simenv.worker.leaving import rss_bytes
from simenv.worker.links import Links
from simenv.worker.runner import Runner
from simenv.worker.watch import Watch, report

_CHUNK, _TASK, _END = b"c", b"t", b"e"


class Leader:
    """The first rank's hold on the others. Used by its main thread."""

    def __init__(self, links: Links, watch: Watch) -> None:
        self.nodes = links.nodes
        self._watch = watch
        self._followers = links.work
        self._number = 0

    def rss_bytes(self) -> int:
        """Resident memory of all ranks."""
        return rss_bytes() + self._watch.rss_bytes

    def hand_on(self, chunk: bytes) -> None:
        """The chunk whose tasks are begun from now on."""
        self._tell(_CHUNK, chunk)

    def begin(self, place: int) -> None:
        """All ranks run the task that stands there in the chunk, beginning now."""
        self._number += 1
        self._tell(_TASK, place.to_bytes(8, "little"))

    def failed(self, error: Exception) -> None:
        """This rank failed with the task it began last: returns if all of them did, so that the
        error is the task's; else it is the worker's end."""
        self._watch.agree(self._number, error)

    def end(self) -> None:
        """End all ranks, none of which has anything to do."""
        self._tell(_END, b"")
        mpi.end()

    def _tell(self, kind: bytes, body: bytes) -> None:
        for socket in self._followers:
            socket.send_multipart((kind, body))


class Follower:
    """Any other rank's life."""

    def __init__(self, links: Links, runner: Runner) -> None:
        assert links.reports is not None
        self._orders = links.work[0]
        self._reports = links.reports
        self._runner = runner
        self._chunk: Assign | None = None
        self._number = 0

    def follow(self) -> None:
        """Until told to end."""
        while True:
            kind, body = self._orders.recv_multipart()
            if kind == _CHUNK:
                message = codec.to_worker(body)
                assert isinstance(message, Assign)
                self._chunk = message
            elif kind == _TASK:
                self._run(int.from_bytes(body, "little"))
            else:
                mpi.end()
                return

    def _run(self, place: int) -> None:
        assert self._chunk is not None
        self._number += 1
        assigned = self._chunk.tasks[place]
        try:
            self._runner.follow(assigned, self._chunk.terms[assigned.terms], self._chunk)
        except Exception as error:  # noqa: BLE001  # whatever it is: the first rank must hear of it
            report(self._reports, self._number, error)

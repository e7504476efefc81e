"""A worker of several ranks under a real mpirun; the test plays its service."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from simenv.wire import codec
from simenv.wire.keyfiles import KEYS_FORMAT, WorkerBootstrap, new_pair, write_private
from simenv.wire.messages import client as m
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.zmq_transport import ZmqListener
from testbed.ranks import mpirun_command, rank_environment

WAIT_S = 120.0  # on a machine where nothing is compiled yet
EPOCH = 5
NAME, START = "main.x2-0", 7


class Ranked:
    """The worker's mpirun, and who it talks to. All messages but beats are in `heard`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], doors: ZmqListener) -> None:
        self.folder = folder
        self.process = process
        self.heard: list[m.FromWorker] = []
        self.beats: list[m.Heartbeat] = []
        self._doors = doors
        self._peers: dict[bool, bytes] = {}  # of the control connection, of the other
        self._change = threading.Condition()
        self._orders: list[tuple[bool, m.ToWorker]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        """Beats are answered, whatever the test is doing."""
        while not self._over.is_set():
            self._doors.wait(0.02)
            while (received := self._doors.receive()) is not None:
                message = codec.from_worker(received[2])
                with self._change:
                    self._peers[received[1].endswith(b"!")] = received[1]
                    if isinstance(message, m.Heartbeat):
                        self.beats.append(message)
                        self._doors.send(
                            PeerKind.WORKER, received[1], codec.encode(m.LeaseRenewed(EPOCH))
                        )
                    else:
                        self.heard.append(message)
                    self._change.notify_all()
            with self._change:
                orders, self._orders = self._orders, []
                for control, order in orders:
                    self._doors.send(PeerKind.WORKER, self._peers[control], codec.encode(order))

    def tell(self, message: m.ToWorker) -> None:
        control = not isinstance(message, m.AssignChunk)
        self.wait(lambda: control in self._peers)
        with self._change:
            self._orders.append((control, message))

    def wait(self, condition: Callable[[], object]) -> None:
        with self._change:
            done = self._change.wait_for(
                lambda: condition() or self.process.poll() is not None, WAIT_S
            )
        assert done, f"nothing came\n{self.logged()}"
        assert condition(), f"it ended: {self.process.returncode}\n{self.logged()}"

    def joined(self) -> m.Join:
        self.wait(lambda: self.of(m.Join))
        return self.of(m.Join)[0]

    def of(self, kind: type) -> list:
        return [message for message in self.heard if isinstance(message, kind)]

    def results(self, number: int) -> list[m.AttemptResult]:
        """The first so many."""
        found = lambda: [one for done in self.of(m.AttemptResults) for one in done.results]  # noqa: E731
        self.wait(lambda: len(found()) >= number)
        return found()[:number]

    def ranks(self) -> list[psutil.Process]:
        """The ranks' processes, in their order."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "simenv.worker" in process.cmdline():
                    found.append((int(process.environ().get("PMIX_RANK", "0")), process))
        return [process for _, process in sorted(found, key=lambda one: one[0])]

    def logged(self) -> str:
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')}"
            for log in sorted(self.folder.glob("*.log"))
        )

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def ranked(ranks: int, *options: str, extra: dict[str, str] | None = None) -> Iterator[Ranked]:
    """A worker of so many ranks; `options` come behind those of the service."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        doors = ZmqListener(folder, server := new_pair())
        told = WorkerBootstrap(
            KEYS_FORMAT, os.uname().nodename, name, "token", server_key=server.public, epoch=EPOCH
        )
        write_private(folder / "worker.json", told)
        (folder / ".token").write_text("token")
        argv = [*mpirun_command(ranks), sys.executable, "-P", "-m", "simenv.worker", "--name", NAME]
        argv += ["--start", str(START), "--service", str(folder / "worker.json")]
        argv += ["--parent", "0", "--ranks", str(ranks), "--results", name]
        argv += ["--kernels", os.environ["SIMENV_KERNELS"], "--log", str(folder / f"{NAME}.log")]
        with (folder / "mpirun.log").open("wb") as log:
            process = subprocess.Popen(
                [*argv, *options], env=rank_environment(folder, extra or {}),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        worker = Ranked(folder, process, doors)
        try:
            yield worker
        finally:
            mine = worker.ranks() if process.poll() is None else []
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
            for one in mine:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.kill()
            process.wait()
            worker.close()
            doors.close()

"""Lower bounds of the latency: four ZeroMQ hops between three processes, and one fsync of a small
write. No service built from these parts can answer sooner."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from bench.harness.timing import repeated_s

BODY = b"x" * 300


@contextmanager
def hops() -> Iterator[zmq.Socket[bytes]]:
    """Yield a client's socket; a message goes from client to router, worker, router and back."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="simenv-floor-") as folder:
        address = f"ipc://{folder}/s"
        processes = [
            context.Process(target=target, args=(address,)) for target in (_router, _worker)
        ]
        for process in processes:
            process.start()
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.set(zmq.IDENTITY, b"client")
        socket.connect(address)
        for _ in range(200):  # wait for the worker, then warm up
            while not socket.poll(50):
                socket.send(BODY)
            socket.recv()
        while socket.poll(100):
            socket.recv()
        try:
            yield socket
        finally:
            for process in processes:
                process.terminate()
                process.join()
            socket.close(0)


def round_trip_s(socket: zmq.Socket[bytes], count: int) -> float:
    """Return the median time of `count` round trips in seconds."""
    return statistics.median(repeated_s(lambda: (socket.send(BODY), socket.recv()), count))


def fsync_s(folder: Path, count: int) -> float:
    """Return the median time of `count` appends of 4 KiB with fsync, in seconds."""
    body = b"x" * 4096
    with (folder / "fsync").open("wb", buffering=0) as file:
        append = lambda: (file.write(body), os.fsync(file.fileno()))  # noqa: E731
        return statistics.median(repeated_s(append, count))


def _router(address: str) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        peer, body = socket.recv_multipart()
        if body != b"hello":
            socket.send_multipart((b"worker" if peer == b"client" else b"client", body))


def _worker(address: str) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.set(zmq.IDENTITY, b"worker")
    socket.connect(address)
    socket.send(b"hello")
    while True:
        socket.send(socket.recv())

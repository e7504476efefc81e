"""See `cupy`: NCCL over MPI. A rank says in its log that it has joined, and that it sends."""

import ctypes
import functools
import sys

from mpi4py import MPI

available = True
NCCL_UINT8 = 1
_pending: list[MPI.Request] = []


def get_unique_id() -> bytes:
    return bytes(range(128))


def groupStart() -> None:  # noqa: N802  # NCCL's name
    assert not _pending


def groupEnd() -> None:  # noqa: N802  # NCCL's name
    MPI.Request.Waitall(_pending)
    _pending.clear()


class NcclCommunicator:
    """Of all processes."""

    def __init__(self, ndev: int, commId: bytes, rank: int) -> None:  # noqa: N803  # NCCL's name
        assert commId == get_unique_id()
        self._comm = (MPI.COMM_SELF if ndev == 1 else MPI.COMM_WORLD).Dup()
        assert (self._comm.Get_size(), self._comm.Get_rank()) == (ndev, rank)
        say(f"NCCL: {rank} of {ndev} has joined")

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        assert (datatype, stream) == (NCCL_UINT8, 0)
        say("NCCL: sends")
        _pending.append(self._comm.Isend(_at(sendbuf, count), peer))

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        assert (datatype, stream) == (NCCL_UINT8, 0)
        _pending.append(self._comm.Irecv(_at(recvbuf, count), peer))

    def destroy(self) -> None:
        self._comm.Free()


@functools.cache
def say(text: str) -> None:
    """Once."""
    sys.stderr.write(f"{text}\n")


def _at(address: int, count: int) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * count).from_address(address)

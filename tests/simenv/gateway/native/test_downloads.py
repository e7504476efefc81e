"""Downloads are streamed from the result file: no copy, and nothing left of a client who leaves."""

import io
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import h5py
import httpx
import numpy as np
from gateway_stand_in import GatewayStandIn
from waiting import until

PROGRAM = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[21]; h q;'  # 32 MiB of amplitudes


def result_files() -> int:
    """Return how many descriptors and mappings of result files this process has."""
    opened = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            opened += os.readlink(f"/proc/self/fd/{entry}").endswith(".h5")
        except OSError:  # it was closed meanwhile
            continue
    return opened + Path("/proc/self/maps").read_text().count(".h5\n")


def test_client_who_leaves_frees_its_descriptors(
    api: httpx.Client, gateway: GatewayStandIn
) -> None:
    fields = {"program": PROGRAM, "shots": None, "outputs": "statevector"}
    task = api.post("/tasks", json=fields).json()["id"]
    url, path = urlsplit(gateway.url), f"/api/v1/tasks/{task}/result"
    npz = api.get(f"/tasks/{task}/result?wait=60", headers={"accept": "application/x-npz"})
    assert np.load(io.BytesIO(npz.content))["statevector"].shape == (2**21,)
    hdf5 = api.get(f"/tasks/{task}/result", headers={"accept": "application/x-hdf5"})
    assert int(hdf5.headers["content-length"]) == len(hdf5.content)
    with h5py.File(io.BytesIO(hdf5.content)) as file:
        assert file["statevector"].shape == (2**21,)
    until(lambda: result_files() == 0, 10.0)
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/x-npz\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.create_connection((url.hostname, url.port)))
            client.sendall(request.encode())
            client.recv(1)
        assert result_files() > 0  # they are read as the clients read
        assert list(gateway.folder.iterdir()) == []
    until(lambda: result_files() == 0, 10.0)

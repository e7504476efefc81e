"""Users of a gateway: programs of IBM's and IQM's APIs with a token each."""

from typing import Any

import httpx

from simenv.client.client import Client
from simenv.gateway.ibm.endpoints import PREFIX
from simenv.wire.messages.credentials import TokenCreated

QASM3 = 'OPENQASM 3.0; include "stdgates.inc"; bit[1] c; x $0; c[0] = measure $0;'
PRX: dict[str, Any] = {"name": "prx", "locus": ["QB1"], "args": {"angle": 1.0, "phase": 0.0}}
MEASURE: dict[str, Any] = {"name": "measure", "locus": ["QB1"], "args": {"key": "m"}}


class User:
    """A user's programs, with a token each."""

    def __init__(self, env: Client, url: str, name: str = "ana") -> None:
        self.made: TokenCreated = env.tokens.add(name)
        header = {"Authorization": f"Bearer {self.made.secret}"}
        self.http = httpx.Client(base_url=url, headers=header, timeout=60.0)

    def ibm(self) -> str:
        params = {"pubs": [[QASM3, None, 10]], "version": 2, "support_qiskit": False}
        body = {"program_id": "sampler", "backend": "main", "params": params}
        return str(self.http.post(f"{PREFIX}/jobs", json=body).raise_for_status().json()["id"])

    def ibm_state(self, number: str) -> str:
        return str(self.http.get(f"{PREFIX}/jobs/{number}").json()["state"]["status"])

    def iqm(self) -> str:
        body = {"circuits": [{"name": "x", "instructions": [PRX, MEASURE]}], "shots": 10}
        answer = self.http.post("/api/v1/jobs/main/circuit", json=body)
        return str(answer.raise_for_status().json()["id"])

    def iqm_state(self, number: str) -> str:
        return str(self.http.get(f"/api/v1/jobs/{number}").json()["status"]).capitalize()

"""A QPM over a key of the role client, by TCP: what a plugin on another machine has."""

from __future__ import annotations

from pathlib import Path

from hosts import Endpoint, completion, info, until

import simenv
from simenv.client.keys import issue_key
from simenv.qpm.bindings import EXTENSIONS, REVISION2


def test_client_key_over_tcp_may_make_every_call_of_contract(tmp_path: Path) -> None:
    file = tmp_path / "host.simenv"
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as env:
        issue_key(env.keys, "host", "client", file)
        with simenv.connect(service=file) as client:
            qpm, endpoint = client.qpm, Endpoint()
            qpm.register_event_notification(endpoint, 1, "q")
            assert qpm.sync_run(info())["outcome"] == "COMPLETED"
            cid = qpm.async_run(info())["cid"]
            assert endpoint.get().payload["cid"] == cid
            assert completion(qpm, cid)["rc"] == 0
            for binding in ("telemetry", "control"):
                for name in (*EXTENSIONS[binding], *REVISION2[binding]):
                    if name != "reconcile_runtime_state":
                        assert getattr(qpm, name)()
            until(lambda: qpm.get_service_status()["state"] == "stopped")
        assert env.submit(info()["qasm"]).result(60).shots == 1024

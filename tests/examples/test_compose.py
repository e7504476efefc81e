"""The compose file of a small site: its files, and its environment."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import httpx
import prometheus
import yaml
from live import environment
from waiting import until

from simenv.config import running_gateway

PACKAGING = Path(__file__).parents[2] / "packaging"
COMPOSE = PACKAGING / "compose"
SERVICES = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]


def test_files_of_the_site_exist() -> None:
    mounts = [mount for each in SERVICES.values() for mount in each.get("volumes", ())]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(paths) == 6
    assert all((COMPOSE / path).exists() for path in paths)


def test_containers_of_simenv_have_no_capabilities_and_read_only_roots() -> None:
    for name in ("simenv", "backup"):
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_folders_of_volumes_belong_to_the_user_of_the_image() -> None:
    build = (PACKAGING / "image" / "build.sh").read_text()
    (made,) = re.findall(r"install -d -o simenv -g simenv -m 0700 (.*)$", build, re.M)
    mounts = {
        mount.split(":")[1]
        for service in SERVICES.values()
        if "SIMENV_IMAGE" in service["image"]
        for mount in service["volumes"]
        if not mount.startswith(".")
    }
    assert mounts == {"/var/lib/simenv", "/backups"} == set(made.split())
    assert all(f"--volume {mount}" in build for mount in mounts)


def test_services_come_back_after_a_restart_of_the_host() -> None:
    assert {service.get("restart") for name, service in SERVICES.items() if name != "backup"} == {
        "unless-stopped"
    }


def test_token_is_read_by_the_user_of_prometheus_alone() -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    (mode, owner) = re.findall(r"install -m (\d+) -o (\d+) /dev/stdin", text)[0]
    assert (mode, SERVICES["prometheus"]["user"]) == ("0400", f"{owner}:{owner}")


def test_configuration_of_prometheus_is_valid(tmp_path: Path) -> None:
    text = (COMPOSE / "prometheus.yml").read_text()
    (tmp_path / "token").write_text("secret")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/simenv.token", "token"))
    rules = PACKAGING.parent / "examples" / "monitoring" / "alerts.yml"
    (tmp_path / "alerts.yml").write_text(rules.read_text())
    command = [prometheus.program("promtool"), "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_environment_of_the_site_is_ready_and_gives_metrics_for_a_token() -> None:
    settings = tomllib.loads((COMPOSE / "simenv.toml").read_text())
    settings["gateway"]["listen"] = settings["gateway"]["listen"].replace("8080", "0")
    with environment(**settings) as live, live.client() as client:
        until(lambda: running_gateway(live.home) is not None)
        file = running_gateway(live.home)
        assert file is not None
        url = f"http://127.0.0.1:{file.url.rpartition(':')[2]}"
        until(lambda: httpx.get(f"{url}/health/ready").status_code == 200, 60.0)
        assert httpx.get(f"{url}/metrics").status_code == 401
        secret = client.tokens.add("", role="monitor").secret
        answer = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {secret}"})
        assert "simenv_up 1.0" in answer.text

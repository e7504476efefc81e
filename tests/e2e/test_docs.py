"""Code blocks of README.md and of the documentation's pages run as they are pasted: page by page,
in their order, in an empty folder, with a new home and what the page says before them."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from snippets import NAMED, SHELL, Block, every_block, fresh_environ

from simenv.cli.app import run
from simenv.config.load import convert

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
NEEDED = {"docs/guides/pennylane.md": "pennylane", "docs/guides/qrmi.md": "qrmi"}
# First pages of five users: each is a journey from an empty folder to a result, which it prints.
JOURNEYS = {
    "docs/start/student.md": r"\{'00': \d+, '11': \d+\}",
    "docs/guides/pennylane.md": r"^-3\.412",
    "docs/start/researcher.md": r"at 99% simultaneous confidence",
    "docs/start/administrator.md": r"^twin down in .*: 0 processes left",
    "docs/start/developer.md": r"^\w+Error \w+ False$",
}
# Pages whose blocks run with more than a folder and a home: users, a host, a compiler, a gateway.
BY_TESTS = {
    "docs/guides/http.md": "tests/simenv/gateway/native/test_guide.py",
    "docs/guides/identity.md": "tests/e2e/test_identity_guide.py",
    "docs/guides/iqm.md": "tests/e2e/test_gateway_iqm.py",
    "docs/guides/pasqal.md": "tests/e2e/test_gateway_pasqal.py",
    "docs/guides/qpi.md": "tests/e2e/test_qpi.py",
    "docs/guides/hardware_qpm.md": "tests/e2e/test_qpm_docs.py",
    "docs/guides/runtime.md": "tests/e2e/test_gateway_ibm.py",
    "docs/guides/write_engine.md": "tests/support/third_party_engine.py",
    "docs/guides/write_decoder.md": "tests/support/third_party_decoder.py",
    "docs/guides/write_importer.md": "tests/support/lab_distribution.py",
}
CLONE = "git clone URL "
CLONED = "test_clone_of_the_guide_installs_and_runs_a_demonstration"
# Blocks that are not pasted here, by page and beginning, each with its reason.
NOT_PASTED = {
    ("README.md", CLONE): CLONED,
    ("docs/start/student.md", CLONE): CLONED,
    ("docs/tutorial.md", CLONE): CLONED,
    ("docs/guides/shared_environment.md", CLONE): CLONED,
    ("docs/tutorial.md", "simenv up      "): "a job of Slurm: tests/cluster",
    ("docs/concepts/gpu.md", "PYTHONPATH=."): "a GPU: make gpu",
    ("docs/guides/gpu.md", ""): "a GPU: make gpu",
    ("docs/guides/benchmarks.md", ""): "the clone, and hours: tests/e2e/test_benchmarks.py",
    ("docs/guides/atom_emulators.md", ""): "packages of another licence: e2e/test_emulators.py",
    ("docs/guides/certification.md", "simenv certify qpu"): "a real device",
    ("docs/guides/device_data.md", "simenv devices refresh"): "a command of the site: "
    "tests/e2e/test_drifting_devices.py",
    ("docs/guides/gateway.md", "simenv keys add gateway"): "runs until it is ended: "
    "tests/e2e/test_gateway.py",
    ("docs/guides/gateway.md", "curl"): "a token and a certificate: tests/e2e/test_gateway.py",
    ("docs/guides/hardware.md", "simenv up --pool main"): "a device of the reader",
    ("docs/guides/high_availability.md", "pip install"): "two nodes: tests/cluster",
    ("docs/guides/hpc.md", ""): "a job of Slurm: tests/cluster",
    ("docs/guides/identification.md", "python probes.py"): "a machine of IBM: "
    "tests/simenv/calibration/test_probes.py",
    ("docs/guides/ibm_executor.md", "from qiskit_ibm"): "a gateway: tests/e2e/test_gateway_ibm.py",
    ("docs/guides/jupyterhub.md", ""): "a JupyterHub",
    (
        "docs/guides/leaderboard.md",
        "",
    ): "the clone, and measured data: tests/bench/test_emulators.py",
    ("docs/guides/monitoring.md", "simenv examples"): "Prometheus runs until it is ended",
    ("docs/guides/myqlm.md", ""): "myQLM, which nothing here installs: scripts/check_myqlm.py",
    ("docs/guides/operate.md", "python3 -m venv"): "root, systemd and a newer clone",
    ("docs/guides/pools.md", "simenv up --pool sv"): "eight ranks: tests/cluster",
    ("docs/guides/qfw.md", ""): "a QFw: bench qfw_host",
    ("docs/guides/slurm.md", ""): "a Slurm: tests/cluster",
    ("docs/guides/slurm_plugin.md", ""): "a Slurm: tests/cluster",
    ("docs/guides/whole_qpu.md", "client.run"): "the next block has the whole program",
    ("docs/reference/limits.md", ""): "names of a site: tests/simenv/cli/admin",
    ("docs/reference/pennylane_suite.md", "pl-device-test"): "minutes: "
    "tests/simenv/frontends/pennylane/test_device_suite.py",
    ("docs/reference/qpm_check.md", ""): "a plugin of the reader: tests/simenv/qpm_check",
}
OUTPUT = ("text", "nginx", "c")  # what is printed, and files of other programs
COMMAND = re.compile(r"^\s*(simenv|python3?|pip|curl|eval|export|source) ", re.MULTILINE)
MODULES = ("simenv.client.client", "qiskit", "qiskit.circuit.library")


def reason(page: str, block: Block) -> str:
    """Why a block is not pasted; "": it is."""
    for (named, beginning), text in NOT_PASTED.items():
        if named == page and block.body.lstrip().startswith(beginning):
            return text
    return ""


def pasted(page: str) -> list[Block]:
    """Blocks that are typed into a shell, an interpreter or a file with a name."""
    return [
        block
        for block in every_block(PAGES[page])
        if (NAMED.match(block.body) or block.language in (*SHELL, "python"))
        and not reason(page, block)
    ]


RUN = [page for page in PAGES if page not in BY_TESTS and pasted(page)]


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    """A process that forks for each page."""
    pipe, program = subprocess.PIPE, ROOT / "tests" / "support" / "pages.py"
    argv = [sys.executable, program, *MODULES]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        yield process


@pytest.mark.timeout(1_200)  # some pages compute for two minutes, beside others
@pytest.mark.parametrize("page", RUN)
def test_blocks_of_a_page_run_in_an_empty_folder(
    page: str, forks: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page in NEEDED:
        pytest.importorskip(NEEDED[page])
    home, folder, output = (tmp_path / name for name in ("home", "folder", "output"))
    home.mkdir()
    folder.mkdir()
    environ = fresh_environ(home)
    request = [pasted(page), str(output), str(folder), environ]
    assert forks.stdin is not None
    assert forks.stdout is not None
    try:
        forks.stdin.write(json.dumps(request) + "\n")
        forks.stdin.flush()
        ended = forks.stdout.readline()
    finally:
        monkeypatch.setenv("SIMENV_HOME", environ["SIMENV_HOME"])
        for left in Path(environ["SIMENV_HOME"]).glob("*/connection.json"):
            run(["down", "--now", "--name", left.parent.name])
    text = output.read_text()
    assert ended == "0\n", text
    promised = re.findall(r"print\(.*\)\s+# (\{.*\})$", PAGES[page].read_text(), re.MULTILINE)
    for counts in promised:
        assert counts in text
    assert re.search(JOURNEYS.get(page, ""), text, re.MULTILINE), text


def test_journeys_are_among_the_pages_that_run() -> None:
    assert JOURNEYS.keys() <= set(RUN)
    assert len(RUN) >= 30


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_pasted_or_is_a_file_of_its_language(page: str) -> None:
    """Each block is run above or by the named test, or is left out with a reason, or is read."""
    for block in every_block(PAGES[page]):
        if block.language in (*SHELL, "python"):
            continue  # pasted; `reason` and BY_TESTS are checked below
        if block.language == "toml":
            values = tomllib.loads(block.body)
            if "project" not in values:
                convert(values, block.title)
        elif block.language == "json":
            rest = block.body.strip()
            while rest:  # one value, or one after the other
                rest = rest[json.JSONDecoder().raw_decode(rest)[1] :].strip()
        elif block.language == "yaml":
            assert yaml.safe_load(block.body)
        elif block.language == "qasm":
            assert NAMED.match(block.body)
        else:
            assert block.language in OUTPUT, block
            assert block.language != "text" or not COMMAND.search(block.body), block.body


def test_each_reason_is_about_a_block() -> None:
    for page, beginning in NOT_PASTED:
        shown = [
            block for block in every_block(PAGES[page]) if block.language in (*SHELL, "python")
        ]
        assert any(block.body.lstrip().startswith(beginning) for block in shown), (page, beginning)


def test_each_page_with_a_test_of_its_own_is_read_by_it() -> None:
    for page, test in BY_TESTS.items():
        assert Path(page).name in (ROOT / test).read_text(), test


@pytest.mark.timeout(1_200)  # packages are fetched and installed, kernels compiled
def test_clone_of_the_guide_installs_and_runs_a_demonstration(tmp_path: Path) -> None:
    first = every_block(PAGES["docs/start/student.md"])[0].body
    assert first.startswith(CLONE)
    line = first.replace("URL", shlex.quote(ROOT.as_uri()))
    done = subprocess.run(
        ["bash", "-ec", f"{line}\nsimenv --version"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "simenv" / "demo.png").exists()

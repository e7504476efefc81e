"""Benchmark `gpu_pool` on the stand-in of a machine with a GPU, see `nvidia_site`."""

import os
import subprocess
from pathlib import Path

import pytest
from nvidia_site import MODEL, machine

ROOT = Path(__file__).parents[2]
GPUS = f"GPU-aaaa,{MODEL}"


@pytest.mark.slow  # a minute: an environment, IBM's client, the QPM host, killed workers
def test_all_parts_of_the_pool_on_a_gpu_run_and_no_result_is_wrong_or_lost(tmp_path: Path) -> None:
    with machine(tmp_path, GPUS):
        binaries = tmp_path / "venv" / "bin"
        program = binaries / "simenv"
        program.write_text(
            f"#!{binaries / 'python'} -P\nfrom simenv.cli.entry import main\nmain()\n"
        )
        program.chmod(0o755)
        kept = ("PATH", "HOME", "TMPDIR", "SIMENV_KERNELS")
        environ = {name: os.environ[name] for name in kept if name in os.environ}
        environ |= {"LD_LIBRARY_PATH": str(tmp_path / "lib"), "PYTHONPATH": str(ROOT)}
        words = ["--quick", "--minutes", "0.05", "--kills", "1"]
        done = subprocess.run(
            [binaries / "python", "-m", "bench", "run", "gpu_pool", *words],
            cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
    text = done.stdout + done.stderr
    for key in ("differ from the processor's", "without their result"):
        line = next(line for line in text.splitlines() if key in line)
        assert line.startswith("met"), text
    for key in ("Client,", "Noisy counts", "SamplerV2", "QPM plugin", "Mixed tasks"):
        assert any(key in line and "NOT MEASURED" not in line for line in text.splitlines()), text

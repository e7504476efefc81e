#!/usr/bin/env bash
# iqm-client for tests, in an environment of its own, because it needs another Qiskit:
# scripts/iqm_client.sh DIR. The second run ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$1"
[ ! -e "$folder/complete" ] || exit 0
echo "setup: installing iqm-client by pip into $folder"
.venv/bin/python -m venv --clear --without-pip "$folder"
# Of all these modules a test imports a few: compiled then.
.venv/bin/python -m pip --python "$folder/bin/python" install -qq --disable-pip-version-check \
    --no-input --no-compile --require-hashes --requirement requirements/iqm.txt
touch "$folder/complete"

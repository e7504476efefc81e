#!/usr/bin/env bash
# A vendor's client for tests, in an environment of its own, because it needs other versions than
# simenv: scripts/vendor_client.sh NAME DIR, where NAME is iqm or pasqal. The second run ends at
# once.
set -euo pipefail
cd "$(dirname "$0")/.."
name="$1" folder="$2"
[ ! -e "$folder/complete" ] || exit 0
echo "setup: installing the client of $name by pip into $folder"
.venv/bin/python -m venv --clear --without-pip "$folder"
# Of all these modules a test imports a few: compiled then.
.venv/bin/python -m pip --python "$folder/bin/python" install -qq --disable-pip-version-check \
    --no-input --no-compile --require-hashes --requirement "requirements/$name.txt"
touch "$folder/complete"

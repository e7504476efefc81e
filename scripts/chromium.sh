#!/usr/bin/env bash
# A browser for tests and benchmarks, in a folder of its own, on nobody's PATH: scripts/chromium.sh DIR
# Debian's chromium is unpacked, not installed. The second run ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$1"
[ ! -e "$folder/complete" ] || exit 0
mkdir -p "$folder"
scripts/system_packages.sh --into "$folder" chromium fonts-dejavu-core
touch "$folder/complete"

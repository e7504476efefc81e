#!/usr/bin/env bash
# Prometheus and promtool for tests, unpacked from Debian and not installed: scripts/prometheus.sh DIR
# The second run ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$1"
[ ! -e "$folder/complete" ] || exit 0
mkdir -p "$folder"
scripts/system_packages.sh --into "$folder" prometheus
touch "$folder/complete"

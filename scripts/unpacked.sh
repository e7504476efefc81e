#!/usr/bin/env bash
# Debian packages for tests and benchmarks, in a folder of their own, on nobody's PATH:
# scripts/unpacked.sh DIR PACKAGE... They are unpacked, not installed. The second run ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$1"
shift
[ ! -e "$folder/complete" ] || exit 0
mkdir -p "$folder"
scripts/system_packages.sh --into "$folder" "$@"
touch "$folder/complete"

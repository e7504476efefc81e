#!/usr/bin/env bash
# Debian's gfortran for tests, in a folder of its own, on nobody's PATH: scripts/fortran.sh DIR
# It is unpacked, not installed. The second run ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$1"
[ ! -e "$folder/complete" ] || exit 0
mkdir -p "$folder"
scripts/system_packages.sh --into "$folder" gfortran
touch "$folder/complete"

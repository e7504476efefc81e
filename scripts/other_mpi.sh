#!/usr/bin/env bash
# MPIs for tests, in folders of their own, on nobody's PATH: scripts/other_mpi.sh openmpi4|mpich DIR
# Debian's Open MPI 4 is unpacked, not installed; MPICH comes by pip. The second run ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."
kind="$1" folder="$2"
[ ! -e "$folder/complete" ] || exit 0
mkdir -p "$folder"
case "$kind" in
openmpi4) scripts/system_packages.sh --into "$folder" openmpi-bin ;;
mpich)
    echo "setup: installing mpich by pip into $folder"
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-deps \
        --ignore-installed --no-warn-script-location --prefix "$folder" \
        --require-hashes --requirement requirements/mpich.txt
    ;;
*)
    echo "error: $kind is neither openmpi4 nor mpich" >&2
    exit 2
    ;;
esac
touch "$folder/complete"

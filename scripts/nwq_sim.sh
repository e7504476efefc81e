#!/usr/bin/env bash
# The simulator NWQ-Sim, for the test of the commands in docs/guides/external.md: scripts/nwq_sim.sh DIR
# builds DIR/nwq_qasm from a clone, or from the checkout that NWQ_SIM_SOURCE names. It needs git, cmake
# and a C++ compiler, and takes a minute. Where `mpicxx` is on PATH, the program has MPI. The second run
# ends at once.
set -euo pipefail
folder="$(realpath -m "$1")"
[ ! -x "$folder/nwq_qasm" ] || exit 0
source="${NWQ_SIM_SOURCE:-$folder/source}"
mkdir -p "$folder"
if [ ! -e "$source" ]; then
    git clone -q --filter=blob:none https://github.com/pnnl/NWQ-Sim "$source"
    git -C "$source" checkout -q 1a4f3c49fd7277649b37eb623bd2f4622cb32cdb
fi
off=(-DNWQSIM_ENABLE_VQE=OFF -DNWQSIM_ENABLE_CUDA=OFF -DNWQSIM_ENABLE_HIP=OFF)
cmake -S "$source" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release "${off[@]}" >"$folder/log" 2>&1
cmake --build "$folder/build" --target nwq_qasm >>"$folder/log" 2>&1
cp "$folder/build/qasm/nwq_qasm" "$folder/nwq_qasm"

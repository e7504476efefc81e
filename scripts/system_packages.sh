#!/usr/bin/env bash
# The one place that installs Debian packages: scripts/system_packages.sh PACKAGE...
# Says what it does before it does it; SIMENV_SYSTEM_PACKAGES=0 forbids it.
set -euo pipefail

refuse() {
    echo "error: this machine lacks $packages, and $1" >&2
    echo "  on Debian, type: sudo apt-get install -y $packages" >&2
    exit 1
}

packages="$*"
command -v apt-get >/dev/null || refuse "there is no apt-get to get them with"
[ "${SIMENV_SYSTEM_PACKAGES:-1}" != 0 ] || refuse "SIMENV_SYSTEM_PACKAGES=0 forbids to install them"
as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || refuse "you are not root, and sudo asks for a password"
    as_root=(sudo -n)
fi
echo "setup: installing Debian packages: $packages (SIMENV_SYSTEM_PACKAGES=0 forbids this)"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null

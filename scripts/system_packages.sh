#!/usr/bin/env bash
# The one place that gets Debian packages: scripts/system_packages.sh [--into DIR] PACKAGE...
# With --into they are unpacked below DIR, with what they need and the machine lacks, and nothing
# is installed. Says what it does before it does it; SIMENV_SYSTEM_PACKAGES=0 forbids it.
set -euo pipefail

refuse() {
    echo "error: this machine lacks $packages, and $1" >&2
    echo "  on Debian, type: sudo apt-get install -y $packages" >&2
    exit 1
}

into=""
if [ "${1:-}" = --into ]; then
    into="$2"
    shift 2
fi
packages="$*"
command -v apt-get >/dev/null || refuse "there is no apt-get to get them with"
[ "${SIMENV_SYSTEM_PACKAGES:-1}" != 0 ] || refuse "SIMENV_SYSTEM_PACKAGES=0 forbids to install them"
as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || refuse "you are not root, and sudo asks for a password"
    as_root=(sudo -n)
fi
install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)

# A fresh machine has no lists of packages, or old ones, whose packages are gone from the mirror.
refresh() {
    said="$("${as_root[@]}" apt-get update -qq 2>&1)" \
        || refuse "its lists of packages cannot be refreshed: $(tail -n 1 <<<"$said")"
}

if [ -z "$into" ]; then
    echo "setup: installing Debian packages: $packages (SIMENV_SYSTEM_PACKAGES=0 forbids this)"
    refresh
    "${as_root[@]}" "${install[@]}" "$@" >/dev/null
    exit 0
fi
echo "setup: unpacking Debian packages into $into: $packages (SIMENV_SYSTEM_PACKAGES=0 forbids this)"
archives="$(mktemp -d)"
trap '"${as_root[@]}" rm -rf "$archives"' EXIT
chmod 755 "$archives" && mkdir "$archives/partial"
refresh
# --reinstall: what is installed is not left out.
said="$("${as_root[@]}" "${install[@]}" --reinstall --download-only \
    -o Dir::Cache::archives="$archives" "$@" 2>&1 >/dev/null)" \
    || refuse "apt-get could not download them: $(tail -n 1 <<<"$said")"
shopt -s nullglob
downloaded=("$archives"/*.deb)
[ "${#downloaded[@]}" -gt 0 ] || refuse "apt-get downloaded nothing${said:+: $(tail -n 1 <<<"$said")}"
for archive in "${downloaded[@]}"; do
    dpkg -x "$archive" "$into" || refuse "$(basename "$archive") was not downloaded whole"
done

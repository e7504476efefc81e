#!/usr/bin/env bash
# Builds an OCI image of simenv from Debian's packages and a wheel: packaging/image/build.sh WHEEL [TAG]
# WHEEL: of scripts/release.py, for Debian's Python (cp311 on Debian 12). No base image is fetched: the
# root file system comes from mmdebstrap, and buildah makes the image of it. Both are packages of Debian:
#   apt-get install --no-install-recommends mmdebstrap buildah crun
# SUITE names the release of Debian, MIRROR its mirror. Packages of Python are those of
# requirements/all.txt, checked by their hashes; PYTHON, of the version of Debian's, downloads them here
# with this host's settings of pip, so that nothing inside the image needs a network. Open MPI is Debian's.
# /opt/simenv/NOTICE has the licences of all packages of Python, /usr/share/doc/*/copyright those of Debian's.
# Where containers have no cgroups to run in, BUILDAH_ISOLATION=chroot builds without a runtime.
set -euo pipefail
cd "$(dirname "$0")/../.."
wheel="$(realpath "${1:?a wheel: packaging/image/build.sh dist/simenv-...whl}")"
tag="${2:-simenv:latest}"
python="${PYTHON:-python3}"
for tool in mmdebstrap buildah "$python"; do
    command -v "$tool" >/dev/null || {
        echo "error: $tool is not on PATH; type: apt-get install mmdebstrap buildah crun python3-venv" >&2
        exit 2
    }
done
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
work="$(mktemp -d)"
container=""
trap '[ -z "$container" ] || buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT

mkdir "$work/build"
cp "$wheel" requirements/all.txt scripts/licenses.py "$work/build"
"$python" -m pip download -qq --no-input --disable-pip-version-check \
    --require-hashes --requirement requirements/all.txt --dest "$work/build/wheels"

# tzdata: times of the calendar; adduser's useradd is of passwd, which is essential.
mmdebstrap --variant=minbase \
    --include=ca-certificates,libgomp1,openmpi-bin,python3,python3-venv,tini,tzdata \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/man/*' \
    "${SUITE:-bookworm}" "$work/root.tar" ${MIRROR:+"$MIRROR"}

container="$(buildah from scratch)"
buildah add --quiet "$container" "$work/root.tar" / >/dev/null
# Mounted, not copied: no layer holds what is only needed for the installation.
buildah run --network none --volume "$work/build:/build:ro" "$container" -- sh -euc "
    python3 -m venv /opt/simenv
    pip='/opt/simenv/bin/pip install -qq --no-input --disable-pip-version-check --no-cache-dir --no-index'
    \$pip --find-links /build/wheels --require-hashes --requirement /build/all.txt
    \$pip --no-deps /build/$(basename "$wheel")
    /opt/simenv/bin/pip check
    /opt/simenv/bin/python /build/licenses.py --notice /opt/simenv/NOTICE
    /opt/simenv/bin/pip uninstall -qq -y pip
    useradd --uid 10001 --home-dir /var/lib/simenv --create-home --shell /usr/sbin/nologin simenv
    install -d -o simenv -g simenv -m 0700 /var/lib/simenv /backups
    rm -rf /var/lib/apt/lists/* /root/.cache"
# A new volume takes the owner and the mode of the folder of the image: that is why /backups is there.
buildah config --user simenv --workingdir /var/lib/simenv --volume /var/lib/simenv --volume /backups \
    --env PATH=/opt/simenv/bin:/usr/bin:/bin --env SIMENV_HOME=/var/lib/simenv \
    --port 8080 --stop-signal SIGTERM \
    --entrypoint '["/usr/bin/tini", "--", "/opt/simenv/bin/simenv"]' \
    --cmd '["up", "--foreground", "--config", "/etc/simenv/simenv.toml"]' \
    --label org.opencontainers.image.title=simenv \
    --label org.opencontainers.image.licenses=Apache-2.0 \
    --label org.opencontainers.image.revision="$(git rev-parse HEAD)" "$container"
buildah commit --quiet --timestamp "$SOURCE_DATE_EPOCH" "$container" "$tag" >/dev/null
echo "built $tag"

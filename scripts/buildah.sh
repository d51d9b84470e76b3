#!/bin/sh
# The image without a Docker engine: a Debian root file system as base, buildah with chroot isolation.
#   sh scripts/buildah.sh build [flags of buildah build]     makes the base once, then the image
#   sh scripts/buildah.sh run WORDS...                       as docker run mbrl-flat WORDS...; runs are in ./runs
# Needs root and buildah, and mmdebstrap for the base (apt-get install buildah mmdebstrap), unless BASE names an image.
# STORAGE is where images are kept, about 6 GB.
set -eu
STORAGE=${STORAGE:-${XDG_DATA_HOME:-$HOME/.local/share}/mbrl_flat_images}
BASE=${BASE:-localhost/debian-python:bookworm}
root=$(cd "$(dirname "$0")/.." && pwd)

images() {
    buildah --root "$STORAGE/root" --runroot "$STORAGE/run" --storage-driver vfs "$@"
}

make_base() {
    mkdir -p "$STORAGE"
    mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$STORAGE/base.tar" ${MIRROR:-}
    container=$(images from scratch)
    images add --quiet "$container" "$STORAGE/base.tar" / >/dev/null
    images config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    images commit --quiet --rm "$container" "$BASE" >/dev/null
    rm "$STORAGE/base.tar"
}

command=$1
shift
case $command in
    build)
        images inspect --type image "$BASE" >/dev/null 2>&1 || make_base
        revision=$(git -C "$root" rev-parse HEAD 2>/dev/null || true)
        images build --isolation chroot --layers=false --build-arg BASE="$BASE" --build-arg REVISION="$revision" \
            "$@" --tag mbrl-flat "$root"
        ;;
    run)
        mkdir -p runs
        chown 1000 runs
        container=$(images from --pull-never localhost/mbrl-flat)
        trap 'images rm "$container" >/dev/null' EXIT
        images run --isolation chroot --volume "$PWD/runs:/app/runs" "$container" -- mbrl-flat-train "$@"
        ;;
    *)
        echo "Unknown command '$command'; it is build or run." >&2
        exit 2
        ;;
esac

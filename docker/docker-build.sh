#!/usr/bin/env bash
# Builds the image beam-serving:latest, or with `flink` as the first word beam-serving:flink, which has Java in it.
#
#   docker/docker-build.sh
#   docker/docker-build.sh --build-arg EXTRAS=torch,tensorflow
#   docker/docker-build.sh flink
#
# Other words go to `docker build`. DOCKER names another engine with the same command line, as podman.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

target=serving
tag=latest
if [[ "${1:-}" == flink ]]; then
    target=flink
    tag=flink
    shift
fi
exec "${DOCKER:-docker}" build --file "$root/docker/Dockerfile" --target "$target" --tag "beam-serving:$tag" "$@" "$root"

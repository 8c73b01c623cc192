#!/usr/bin/env bash
# Serves the config.yaml and the model/ of this directory from the image, until Ctrl-C or `docker stop beam-serving`.
#
#   docker/docker-run.sh                              in the foreground
#   docker/docker-run.sh --detach                     in the background; only as the first word
#   docker/docker-run.sh --workers 2                  other words go to beam_serving
#   CONFIG=a.yaml MODEL=nets/a docker/docker-run.sh   other places
#
# The configuration says `model: path: model`. `localhost` in it is this machine, since the network is the host's
# (NETWORK names another). IMAGE, NAME and DOCKER, the engine, may be set, and the variables with passwords and secrets
# (docs/redis.md, docs/encryption.md).
set -euo pipefail
config=${CONFIG:-config.yaml}
model=${MODEL:-model}

if [[ ! -f "$config" ]]; then
    echo "error: there is no file $config; docker/README.md says how to get one" >&2
    exit 2
fi
if [[ ! -d "$model" ]]; then
    echo "error: there is no directory $model; set MODEL to the one that holds the model" >&2
    exit 2
fi

engine_flags=(
    --rm
    --init
    --name "${NAME:-beam-serving}"
    --network "${NETWORK:-host}"
    --read-only
    --tmpfs /tmp
    --cap-drop ALL
    --security-opt no-new-privileges
    # More than `grace_s`, which the service gives to what is in flight.
    --stop-timeout 40
    --volume "$(realpath "$config"):/serving/config.yaml:ro"
    --volume "$(realpath "$model"):/serving/model:ro"
    # Their values stay out of the command line, where others could read them.
    --env BEAM_SERVING_REDIS_PASSWORD
    --env BEAM_SERVING_SENTINEL_PASSWORD
    --env BEAM_SERVING_MODEL_SECRET
    --env BEAM_SERVING_MODEL_SALT
    --env BEAM_SERVING_RECORD_SECRET
    --env BEAM_SERVING_RECORD_SALT
)
# Values that take the place of those in the configuration, as BEAM_SERVING__DATA__SRC.
for variable in "${!BEAM_SERVING__@}"; do
    engine_flags+=(--env "$variable")
done
if [[ "${1:-}" == --detach ]]; then
    engine_flags+=(--detach)
    shift
fi
exec "${DOCKER:-docker}" run "${engine_flags[@]}" "${IMAGE:-beam-serving:latest}" "$@"

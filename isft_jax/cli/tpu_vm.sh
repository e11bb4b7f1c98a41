#!/usr/bin/env bash
# A TPU slice for isft-train: got, set up, started, got again, given back.
#
#   export NAME=isft ZONE=us-west4-a TYPE=v5litepod-16 BUCKET=gs://MINE
#   tpu_vm.sh records DIR              to the bucket
#   tpu_vm.sh create                   a spot slice, as soon as there is one
#   tpu_vm.sh install                  this checkout, on every host
#   tpu_vm.sh train --config=... ...   on every host, until it is done
#   tpu_vm.sh keep --config=... ...    the same, on a new slice when one is taken
#   tpu_vm.sh export FOLDER            the newest checkpoint, for transformers
#   tpu_vm.sh delete
#
# IMAGE names another runtime than v5e's. DRY=1 prints commands and runs none.
set -euo pipefail
: "${NAME:?names the slice}" "${ZONE:?is where it is}"
: "${BUCKET:?is where records and runs are, as in gs://MINE}"
TYPE=${TYPE:-v5litepod-16}
IMAGE=${IMAGE:-v2-alpha-tpuv5-lite}

run() {
  if [ -n "${DRY:-}" ]; then printf '%q ' "$@" && echo; else "$@"; fi
}

slices() { # VERB FLAGS
  run gcloud compute tpus queued-resources "$1" "$NAME" --zone="$ZONE" "${@:2}"
}

on() { # WORKER COMMAND
  run gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" \
    --command="$2"
}

state() {
  slices describe --format='value(state.state)'
}

create() {
  slices create --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$IMAGE" --spot
  [ -n "${DRY:-}" ] || until [ "$(state)" = ACTIVE ]; do sleep 30; done
}

install() {
  local wheels
  wheels=$(mktemp -d)
  run pip wheel --quiet --no-deps --wheel-dir="$wheels" \
    "$(dirname "$(realpath "$0")")/../.."
  run gcloud storage rsync "$wheels" "$BUCKET/wheels" \
    --delete-unmatched-destination-objects
  # The image's Python is older than ours.
  on all "curl -LsSf https://astral.sh/uv/install.sh | sh && \
gcloud storage cp '$BUCKET/wheels/*.whl' . && \
.local/bin/uv venv --python=3.12 isft && \
.local/bin/uv pip install --python=isft \"\$(echo isft_jax-*.whl)[tpu,gcs]\""
}

train() {
  # 75: it was told to stop, and has saved.
  on all "gcloud storage rsync --recursive '$BUCKET/records' records && \
until isft/bin/isft-train --multihost --config.records=records \
--workdir='$BUCKET/runs/$NAME' $(printf '%q ' "$@"); \
do [ \$? = 75 ] || exit 1; done"
}

keep() {
  until train "$@"; do
    [ "$(state)" != ACTIVE ] || exit 1 # the slice is there: it is not that
    delete
    create
    install
  done
}

export_() {
  # One host alone cannot have the TPUs of a slice.
  on 0 "JAX_PLATFORMS=cpu isft/bin/isft-export --output=model \
--checkpoint='$BUCKET/runs/$NAME' && \
gcloud storage cp --recursive model '$BUCKET/models/$NAME'"
  run gcloud storage cp --recursive "$BUCKET/models/$NAME" "$1"
}

delete() {
  slices delete --force --quiet
}

case "${1:-}" in
  records) run gcloud storage rsync --recursive "$2" "$BUCKET/records" ;;
  create | install | train | keep | delete) "$@" ;;
  export) export_ "$2" ;;
  *) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" && exit 1 ;;
esac

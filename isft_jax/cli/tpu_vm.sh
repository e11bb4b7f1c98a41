#!/usr/bin/env bash
# Creates a TPU slice, installs isft_jax, trains on it, and deletes it.
#
#   export NAME=isft ZONE=us-west4-a TYPE=v5litepod-16 BUCKET=gs://MINE
#   tpu_vm.sh records DIR              copies records to the bucket
#   tpu_vm.sh create                   waits for a spot slice
#   tpu_vm.sh install                  installs this checkout on every host
#   tpu_vm.sh train --config=... ...   trains on every host until done
#   tpu_vm.sh keep --config=... ...    as train; replaces a preempted slice
#   tpu_vm.sh export FOLDER            fetches a model for transformers
#   tpu_vm.sh delete                   deletes the slice
#
# IMAGE is the runtime (default that of v5e). DRY=1 only prints the commands.
set -euo pipefail
: "${NAME:?must be the name of the slice}" "${ZONE:?must be its zone}"
: "${BUCKET:?must be the bucket of records and runs, as in gs://MINE}"
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

quote() { # WORDS, for the shell of a host
  if [ $# -gt 0 ]; then printf '%q ' "$@"; fi
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
  # The image's Python is older than 3.11, so uv installs one.
  on all "curl -LsSf https://astral.sh/uv/install.sh | sh && \
gcloud storage cp $(quote "$BUCKET/wheels/*.whl") . && \
.local/bin/uv venv --python=3.12 isft && \
.local/bin/uv pip install --python=isft \"\$(echo isft_jax-*.whl)[tpu,gcs]\""
}

train() {
  # Exit status 75: the run was asked to stop and saved a checkpoint; resume.
  on all "gcloud storage rsync --recursive $(quote "$BUCKET/records") records \
&& until isft/bin/isft-train --multihost --config.records=records \
--workdir=$(quote "$BUCKET/runs/$NAME" "$@"); \
do [ \$? = 75 ] || exit 1; done"
}

keep() {
  until train "$@"; do
    [ "$(state)" != ACTIVE ] || exit 1 # the slice still runs: training failed
    delete
    create
    install
  done
}

export_() {
  # Use the CPU: a single host cannot open the TPUs of a slice.
  on 0 "JAX_PLATFORMS=cpu isft/bin/isft-export --output=model \
--checkpoint=$(quote "$BUCKET/runs/$NAME") && \
gcloud storage cp --recursive model $(quote "$BUCKET/models/$NAME")"
  run gcloud storage cp --recursive "$BUCKET/models/$NAME" "$1"
}

delete() {
  slices delete --force --quiet
}

case "${1:-}" in
  records)
    run gcloud storage rsync --recursive "${2:?must be the folder of records}" \
      "$BUCKET/records"
    ;;
  create | install | train | keep | delete) "$@" ;;
  export) export_ "${2:?must be the folder for the model}" ;;
  *) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" && exit 1 ;;
esac

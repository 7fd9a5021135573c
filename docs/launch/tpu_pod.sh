#!/usr/bin/env bash
# A slice of several TPU VMs: run this at home; every worker of the slice starts the same command, and they find each other.
set -euo pipefail
: "${TPU:?name of the TPU VM}" "${ZONE:?its zone}"
: "${DATA:?the TFDS folder of SOREC, as every worker sees it}"
: "${WORKDIR:?a folder that all workers share, such as a mounted bucket}"
: "${PRETRAINED:=IDEA-Research/grounding-dino-tiny}"
: "${CHECKOUT:=piza_jax}" # folder of the project on each worker
: "${BATCH:=256}"         # over all chips

exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="
  set -e; cd $CHECKOUT
  test -d .venv || python3 -m venv .venv
  . .venv/bin/activate && python -m pip install -q -c constraints.txt -e '.[tpu]'
  piza train --config=configs/piza_sorec.py:tpu,train=train_l --config.data.data_dir=$DATA \
    --config.pretrained=$PRETRAINED --config.train.batch_size=$BATCH --workdir=$WORKDIR"

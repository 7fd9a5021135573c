#!/usr/bin/env bash
# One TPU VM, such as v5e-8: run this on it, in a checkout of the project. Running it again goes on where it stopped.
set -euo pipefail
: "${DATA:?the TFDS folder of SOREC, a disk or a mounted bucket}"
: "${WORKDIR:?where checkpoints go, a disk or a mounted bucket that outlives the machine}"
: "${PRETRAINED:=IDEA-Research/grounding-dino-tiny}"

python3 -m venv "$HOME/piza"
# shellcheck disable=SC1091
source "$HOME/piza/bin/activate"
python -m pip install -q -c constraints.txt -e ".[tpu]"
piza doctor --data_dir="$DATA" --dataset=sorec --output="$WORKDIR"
exec piza train --config=configs/piza_sorec.py:tpu,train=train_l --config.data.data_dir="$DATA" \
  --config.pretrained="$PRETRAINED" --workdir="$WORKDIR"

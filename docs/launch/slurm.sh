#!/usr/bin/env bash
# GPUs under SLURM, one process for each: sbatch docs/launch/slurm.sh, from a checkout with its virtual environment.
#SBATCH --job-name=piza
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
: "${DATA:?the TFDS folder of SOREC}"
: "${WORKDIR:?a folder that all nodes share}"
: "${PRETRAINED:=IDEA-Research/grounding-dino-tiny}"

# shellcheck disable=SC1091
source .venv/bin/activate
# SLURM's own variables tell jax who is who. Two minutes before the end each process is told, saves, and exits 0; a job
# that was requeued goes on from there.
srun --kill-on-bad-exit=1 piza train --config=configs/piza_sorec.py:train=train_l --config.data.data_dir="$DATA" \
  --config.pretrained="$PRETRAINED" --config.train.batch_size=64 --workdir="$WORKDIR"

#!/bin/bash
# Restores the photos that a manifest lists, as an array job of 64 shards in one folder:
#
#   sbatch examples/fleet/slurm.sh PHOTOS MANIFEST OUT
#   unfade gather OUT            # when all are done: names what is missing or failed; exit code 1 if it does not add up
#
# A shard that was killed or ran out of time continues where it was: submit the same line again.
#SBATCH --job-name=unfade
#SBATCH --array=1-64
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-2}

photos=$1 manifest=$2 out=$3
unfade restore "$photos" --manifest "$manifest" --out "$out" --output-layout hashed \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --quiet

#!/usr/bin/env bash
# Carrot on plate on the CPU: 75 planned demonstrations, SFT on them, some iterations of PPO, both evaluated.
# Needs the assets of SimplerEnv and PutOnPlateInScene25: scripts/download_assets.py, or RLFT_ASSETS.
# Usage: scripts/put_on_plate_cpu.sh [key=value ...]    e.g. seed=1 output.dir=outputs/put_on_plate_seed1
set -euo pipefail
CONFIG=put_on_plate_cpu RUN=outputs/put_on_plate STAGES=5 PIPELINE=put_on_plate
source "$(dirname "${BASH_SOURCE[0]}")/run_stages.sh"

TRAINED=$RUN/sft/checkpoints/last/pretrained_model
stage 'demonstrations by motion planning' collect_demos "$@"
stage 'SFT: a small π0 learns from them' train_sft "$@"
stage 'before PPO' evaluate model.path="$TRAINED" eval.label=sft "$@"
stage 'PPO, and the evaluation after it' train_rl model.path="$TRAINED" "$@"
stage 'report' report "$@"
printf '\nOpen %s/report.html\n' "$RUN" >&2

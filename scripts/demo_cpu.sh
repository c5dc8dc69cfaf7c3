#!/usr/bin/env bash
# The whole pipeline on the CPU: demonstrations of a light cube, SFT on them, PPO on a cube 200 times heavier.
# Usage: scripts/demo_cpu.sh [key=value ...]    e.g. seed=1 output.dir=outputs/demo_seed1
set -euo pipefail
CONFIG=demo_cpu RUN=outputs/demo STAGES=8 PIPELINE=demo
source "$(dirname "${BASH_SOURCE[0]}")/run_stages.sh"

TRAINED=$RUN/sft/checkpoints/last/pretrained_model
stage 'demonstrations by motion planning' collect_demos "$@"
stage 'SFT: a small π0 learns from them' train_sft "$@"
stage 'how well it does what it was shown' evaluate model.path="$TRAINED" eval.label=sft_source \
  eval.episodes=64 eval.num_videos=0 "$@"
stage 'the heavy cube, before PPO' evaluate model.path="$TRAINED" task=push_heavy_cube eval.label=sft "$@"
stage 'PPO on the heavy cube' train_rl model.path="$TRAINED" task=push_heavy_cube "$@"
TUNED=$RUN/rl/checkpoints/last/pretrained_model
LONG=(task=push_heavy_cube env.max_episode_len=200 eval.episodes=64 eval.num_videos=0)
stage 'twice the time limit: before PPO' evaluate model.path="$TRAINED" eval.label=sft_long "${LONG[@]}" "$@"
stage 'twice the time limit: after PPO' evaluate model.path="$TUNED" eval.label=rl_long "${LONG[@]}" "$@"
stage 'report' report "$@"
printf '\nOpen %s/report.html\n' "$RUN" >&2

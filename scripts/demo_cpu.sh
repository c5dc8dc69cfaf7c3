#!/usr/bin/env bash
# The whole pipeline on the CPU: demonstrations of a light cube, a warm-up on them, PPO on a cube 200 times heavier.
# Usage: scripts/demo_cpu.sh [key=value ...]    e.g. seed=1 output.dir=outputs/demo_seed1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PY=.venv/bin/python
RUN=outputs/demo
for word in "$@"; do [[ $word == output.dir=* ]] && RUN=${word#output.dir=}; done
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}

stage() {  # stage NUMBER TITLE SCRIPT [overrides]
  local number=$1 title=$2 script=$3
  shift 3
  printf '\n[%s/8] %s\n' "$number" "$title" >&2
  "$PY" "scripts/$script.py" --config-name demo_cpu "$@"
}

if [[ -e $RUN ]]; then
  echo "$RUN exists: move it away, or give another output.dir=..." >&2
  exit 2
fi
WARM=$RUN/sft/checkpoints/last/pretrained_model
stage 1 'demonstrations by motion planning' collect_demos output.dir="$RUN" "$@"
stage 2 'warm-up: a small π0 learns from them' train_sft output.dir="$RUN" "$@"
stage 3 'how well it does what it was shown' evaluate output.dir="$RUN" model.path="$WARM" eval.label=sft_source \
  eval.episodes=64 eval.num_videos=0 "$@"
stage 4 'the heavy cube, before PPO' evaluate output.dir="$RUN" model.path="$WARM" task=push_heavy_cube eval.label=sft "$@"
stage 5 'PPO on the heavy cube' train_rl output.dir="$RUN" model.path="$WARM" task=push_heavy_cube "$@"
TUNED=$RUN/rl/checkpoints/last/pretrained_model
LONG=(task=push_heavy_cube env.max_episode_len=200 eval.episodes=64 eval.num_videos=0)
stage 6 'twice the time limit: before PPO' evaluate output.dir="$RUN" model.path="$WARM" eval.label=sft_long "${LONG[@]}" "$@"
stage 7 'twice the time limit: after PPO' evaluate output.dir="$RUN" model.path="$TUNED" eval.label=rl_long "${LONG[@]}" "$@"
stage 8 'report' report output.dir="$RUN" "$@"
printf '\nOpen %s/report.html\n' "$RUN" >&2

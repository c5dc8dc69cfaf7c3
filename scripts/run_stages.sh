# Sourced by run files that are a whole pipeline. They set CONFIG (configs/<CONFIG>.yaml), RUN, STAGES
# and PIPELINE (benchmarks/results/<PIPELINE>_seed*.json: how long it took elsewhere) first.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PY=.venv/bin/python
for word in "$@"; do [[ $word == output.dir=* ]] && RUN=${word#output.dir=}; done
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
NUMBER=0

stage() {  # stage TITLE SCRIPT [overrides]
  local title=$1 script=$2
  shift 2
  NUMBER=$((NUMBER + 1))
  printf '\n[%s/%s] %s\n' "$NUMBER" "$STAGES" "$title" >&2
  "$PY" "scripts/$script.py" --config-name "$CONFIG" output.dir="$RUN" "$@"
}

if [[ -e $RUN ]]; then
  echo "$RUN exists: move it away, or give another output.dir=..." >&2
  exit 2
fi
"$PY" -m benchmarks.estimate "$PIPELINE" || true  # some seconds; the run does not depend on it

#!/usr/bin/env bash
# Print requirements.lock: exactly what .venv holds, by name and version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cat <<'EOF'
# Everything that .venv holds (Python 3.12, Linux, x86-64). Written by `make lock`; installed by scripts/setup.sh
# with --no-deps. opencv-python is left out on purpose: it owns the same files as opencv-python-headless, which
# lerobot needs, and would ask for an OpenGL that a machine without a display does not have.
EOF
.venv/bin/python -m pip freeze --disable-pip-version-check --exclude-editable | grep -v -i '^opencv-python=='

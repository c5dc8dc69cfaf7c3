#!/usr/bin/env bash
# Make everything that rlft needs: .venv with the pinned packages, and a Vulkan driver that SAPIEN accepts.
#
#   PYTHON=/path/to/python3.12        use this interpreter instead of looking for one
#   RLFT_WITHOUT_RENDERING=1          go on where no driver works (the toy task and state-only tasks still run)
#
# Running it again when all is in place takes a second. Exit status: 2 without a Python, 1 without a driver.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.rlft-setup
say() { printf 'setup: %s\n' "$*" >&2; }

# A version manager may put a python3.12 on the path that only says "not installed": try, do not look.
runs() { "$1" -c 'import sys, ssl, venv; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        runs "$PYTHON" && { command -v "$PYTHON"; return 0; }
        say "PYTHON=$PYTHON is not a Python 3.12 that runs"
        return 1
    fi
    for candidate in python3.12 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12 \
        "$HOME"/.local/share/uv/python/cpython-3.12*/bin/python3.12 \
        /usr/local/bin/python3.12 /opt/python*/bin/python3.12 /opt/*/bin/python3.12; do
        if runs "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# uv carries no Python either, but knows where builds of it are kept; any Python with pip can bring uv.
fetch_python() {
    local any tools=${XDG_CACHE_HOME:-$HOME/.cache}/rlft/uv
    for any in python3 python; do
        "$any" -m pip --version >/dev/null 2>&1 && break
        any=
    done
    [ -n "$any" ] || { say "no Python 3.12 here, and no other Python with pip that could fetch one"; return 1; }
    say "no Python 3.12 here: fetching one (60 MB) with uv, which $any -m pip brings into $tools"
    "$any" -m pip install --disable-pip-version-check --quiet --upgrade --target "$tools" uv >&2 || return 1
    "$tools/bin/uv" python install 3.12 >&2 || return 1
    "$tools/bin/uv" python find --no-project 3.12
}

no_python() {
    cat >&2 <<'EOF'
setup: no Python 3.12 was found that runs (lerobot and its pinned packages need exactly 3.12), and uv could not fetch one.
Get one, for instance
  Ubuntu 24.04:  apt-get install python3.12 python3.12-venv
  pyenv:         pyenv install 3.12
  uv:            uv python install 3.12
  conda:         conda create -n py312 python=3.12
and run this again; an interpreter in an unusual place is named by PYTHON=/path/to/python3.12.
EOF
    exit 2
}

make_venv() {
    if runs "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return 0; fi
    local python
    python=$(find_python) || {
        # Some distributions have it as a package.
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-cache show python3.12-venv >/dev/null 2>&1; then
            say "installing the distribution's python3.12"
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3.12 python3.12-venv >&2
        fi
        python=$(find_python) || {
            [ -z "${PYTHON:-}" ] || no_python  # the one that was named is not replaced by another
            python=$(fetch_python) || no_python
        }
    }
    say "making $venv with $python"
    rm -rf "$venv"
    "$python" -m venv "$venv" || {
        say "$python cannot make a virtual environment; on Debian and Ubuntu install its venv package"
        exit 2
    }
}

# What the packages depend on: nothing else can make an installation stale.
wanted() { cat requirements.lock pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1; }

install_packages() {
    say "installing the pinned packages (3 GB to fetch, 7 GB on disk; five minutes or more, as the network allows)"
    # The lock is complete, so nothing is to be resolved; two packages of it disagree about OpenCV (see its head).
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-deps)
    "${pip[@]}" -r requirements.lock | awk -v total="$(grep -c '==' requirements.lock)" '
        /^(Collecting|Requirement already satisfied)/ && ++n % 20 == 0 { print "setup: " n " of " total " packages"; fflush() }
        /^Installing collected/ { print "setup: unpacking them"; fflush() }' >&2
    "${pip[@]}" --quiet --no-build-isolation -e .
}

# A driver that worked keeps working until the drivers on this machine change.
drivers() {
    { printf '%s\n' "${VK_ICD_FILENAMES:-}" "${VK_DRIVER_FILES:-}"
      ls -l /usr/share/vulkan/icd.d /etc/vulkan/icd.d 2>/dev/null || true; } | sha256sum | cut -d' ' -f1
}

check_rendering() {
    say "rendering one image with SAPIEN (the first time takes some seconds)"
    if "$venv/bin/python" scripts/check_render.py >&2; then return 0; fi
    "$venv/bin/python" scripts/install_driver.py >&2 && "$venv/bin/python" scripts/check_render.py >&2
}

if [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted) $(drivers)" ] && runs "$venv/bin/python"; then
    exit 0
fi
make_venv
if [ "$(cut -d' ' -f1 "$stamp" 2>/dev/null)" != "$(wanted)" ]; then
    rm -f "$stamp"
    install_packages
fi
printf '%s unchecked\n' "$(wanted)" >"$stamp"
if check_rendering; then
    printf '%s %s\n' "$(wanted)" "$(drivers)" >"$stamp"
elif [ -z "${RLFT_WITHOUT_RENDERING:-}" ]; then
    say "set RLFT_WITHOUT_RENDERING=1 to go on without cameras"
    exit 1
fi
say "ready"

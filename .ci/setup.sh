#!/usr/bin/env bash
# Makes .venv: `setup.sh check` looks at the Python that was named, `setup.sh tools` makes the
# environment with uv in it, `setup.sh packages` installs the lock's packages and the course's own,
# `setup.sh newest` the newest releases of all packages instead.
# Whatever goes wrong ends in one sentence.
set -euo pipefail
cd "$(dirname "$0")/.."

log=.venv/setup.log

stop() {
    echo "Set-up stopped: $*" >&2
    exit 1
}

# Runs a command with its words in the log; on failure says what most likely happened.
step() {
    local doing=$1
    shift
    echo "$doing"
    echo "\$ $*" >>"$log"
    "$@" >>"$log" 2>&1 && return
    if grep -qi 'no space left' "$log"; then
        stop "the disk is full (the packages take about 6 GB). The full log is in $log."
    elif grep -qiE 'connect|name resolution|dns error|timed out|unreachable|no matching dist' "$log"; then
        stop "the packages could not be downloaded; is there a network? The full log is in $log."
    fi
    stop "'$1 ${*:2:4} ...' failed. The full log is in $log."
}

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c '' 2>/dev/null ||
            stop "PYTHON=$PYTHON does not run; name a Python 3.11, 3.12 or 3.13."
        is_supported "$PYTHON" ||
            stop "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1), and the course needs 3.11, 3.12 or 3.13."
        python=$PYTHON
        return
    fi
    for python in python3.11 python3 python3.12 python3.13; do
        is_supported "$python" && return
    done
    if python3 -c '' 2>/dev/null; then
        stop "python3 is $(python3 --version 2>&1), and the course needs 3.11, 3.12 or 3.13;" \
            "install one and name it, as in: make book PYTHON=/path/to/python3.11"
    fi
    stop "Python was not found; install Python 3.11, 3.12 or 3.13 (on Debian and Ubuntu:" \
        "apt install python3 python3-venv)."
}

case ${1:-} in
check)
    find_python
    if [ -e .venv/.tools ] && [ "$("$python" --version)" != "$(.venv/bin/python --version)" ]; then
        stop ".venv holds $(.venv/bin/python --version), and $PYTHON is $("$python" --version);" \
            "remove the old one with 'make distclean'."
    fi
    ;;
tools)
    find_python
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        stop "$python has no venv module (on Debian and Ubuntu: apt install python3-venv)."
    mkdir -p .venv
    : >"$log"
    step "Making .venv with $("$python" --version) ..." "$python" -m venv .venv
    step "Installing uv ..." .venv/bin/python -m pip install --disable-pip-version-check 'uv>=0.9,<1'
    ;;
packages)
    : >"$log"
    step "Installing the packages of requirements.lock (about 6 GB, some minutes) ..." \
        .venv/bin/python -m uv pip install --python .venv/bin/python --requirement requirements.lock
    # The lock holds setuptools, so the course's own package is built without asking for another.
    step "Installing srgan-lib itself ..." \
        .venv/bin/python -m uv pip install --python .venv/bin/python --no-deps --no-build-isolation -e .
    ;;
newest)
    : >"$log"
    step "Installing the newest releases of all packages (about 6 GB, some minutes) ..." \
        .venv/bin/python -m uv pip install --python .venv/bin/python --upgrade -e \
        '.[onnx,notebooks,book,test]'
    .venv/bin/python -m uv pip freeze --python .venv/bin/python --exclude-editable
    ;;
*)
    stop "give 'check', 'tools', 'packages' or 'newest'."
    ;;
esac

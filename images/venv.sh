#!/usr/bin/env bash
# Make .venv from the locks, unless it was made from these very locks. `make setup`; PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }

fits() { "$1" -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# The system's interpreter first: jobs may run as another user, who cannot execute one in somebody's home.
choose() {
    local name
    for name in ${PYTHON:-/usr/bin/python3 python3.13 python3.12 python3.11 python3}; do
        if command -v "$name" >/dev/null && fits "$name"; then command -v "$name"; return; fi
    done
    fail "no Python 3.11, 3.12 or 3.13 (tried: ${PYTHON:-/usr/bin/python3 and those on PATH})." \
        "On Debian 12: apt-get install python3 python3-venv. Or name one: make setup PYTHON=/path/to/python3"
}

python=$(choose)
locks=(requirements.lock requirements-dev.lock images/requirements-cuda.lock)
identity="$(cat "${locks[@]}" images/venv.sh | sha256sum | cut -d' ' -f1) $python $("$python" -V) $PWD"
project=$(sha256sum <pyproject.toml)

made() { [ "$(cat .venv/made-from 2>/dev/null)" = "$identity" ]; }
installed() { [ "$(cat .venv/installed-from 2>/dev/null)" = "$project" ]; }
if made && installed; then exit 0; fi

if ! "$python" -I -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$python cannot make virtual environments." "On Debian: apt-get install python3-venv (python$version-venv)"
fi

exec 9>.venv.lock  # two `make` at once: the second waits, and finds it done
command -v flock >/dev/null && flock 9
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
quiet() { pip install --quiet --quiet --progress-bar off "$@" || fail "pip could not install; what it said is above." "Mend that and say \`make setup\` again."; }
own() {
    quiet --no-deps --no-build-isolation --editable .
    printf '%s' "$project" >.venv/installed-from
}

if made; then installed || own; exit 0; fi

began=$SECONDS
echo "setup: .venv with $("$python" -V) ($python)"
rm -rf .venv
"$python" -m venv .venv

torch=$(grep -m1 -oE '^torch==[^ \\;]+' requirements.lock)
echo "setup: $torch, in whichever build this site offers"
quiet --no-deps "$torch"
# pip in hash mode leaves alone a torch that is there and fits
echo "setup: the locks"
quiet --require-hashes --no-deps -r requirements.lock -r requirements-dev.lock
cuda=$(.venv/bin/python -c 'import pathlib, runpy, sysconfig
print(runpy.run_path(str(pathlib.Path(sysconfig.get_path("purelib"), "torch", "version.py")))["cuda"] or "")')
if [ -n "$cuda" ]; then
    echo "setup: CUDA $cuda"
    quiet --require-hashes --no-deps -r images/requirements-cuda.lock
fi
own
pip check --quiet || pip check || fail "the packages do not fit each other (above). Write the locks anew: make lock"
.venv/bin/python -c 'import torch' || fail "torch does not load. Its build needs other libraries than images/requirements-cuda.lock pins."
printf '%s' "$identity" >.venv/made-from
echo "setup: done in $((SECONDS - began)) s"

#!/bin/sh
# tools/venv.sh VENV LOCK: make the virtual environment VENV with exactly the packages of the hash lock LOCK.
# Uses $PYTHON, else the first of python3, python3.13, python3.12, python3.11 that is new enough and can make one.
# VENV is built from nothing each time; the caller's stamp file, written after this script, says that it is whole.
set -eu
venv=$1 lock=$2
old="" no_venv="" chosen=""
for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    command -v "$name" >/dev/null 2>&1 || continue
    version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then old="$old $name ($version)"; continue; fi
    if ! "$name" -c 'import venv, ensurepip' 2>/dev/null; then no_venv="$no_venv $name ($version)"; continue; fi
    chosen=$name
    break
done
if [ -z "$chosen" ]; then
    echo "xrt_nb: no Python found that can make a virtual environment here." >&2
    [ -z "$old" ] || echo "  too old, 3.11 or newer is needed:$old" >&2
    if [ -n "$no_venv" ]; then
        echo "  without the modules venv and ensurepip:$no_venv" >&2
        echo "  on Debian or Ubuntu:  sudo apt-get install python3-venv" >&2
    else
        echo "  install Python 3.11, 3.12 or 3.13 (on Debian or Ubuntu: sudo apt-get install python3 python3-venv)," >&2
        echo "  or name one:  make PYTHON=python3.12 ..." >&2
    fi
    exit 1
fi
echo "$venv: Python $version, $(grep -c '^[A-Za-z0-9]' "$lock") pinned packages; this takes a minute or two, once"
rm -rf "$venv"
"$chosen" -m venv "$venv"
# --only-binary: nothing is compiled here and no build step can fetch anything that the lock does not name
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes --no-deps --no-compile --only-binary=:all: -r "$lock"

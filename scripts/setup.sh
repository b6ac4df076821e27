#!/usr/bin/env bash
# Makes .venv in the checkout and installs occsora-sim into it, editable.
#
#   scripts/setup.sh demo   what `make demo` needs
#   scripts/setup.sh dev    everything: tests, training, traffic, pictures, documentation
#
# Run it as often as you like: it does nothing when nothing has changed, and a .venv that an earlier run left
# half made is made anew. PYTHON=/path/to/python chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what="${1:-dev}"
case "$what" in
    demo) extras="view" ;;
    dev) extras="traffic,view,train,rl,ray,dev,docs" ;;
    *) echo "scripts/setup.sh: unknown set '$what'; say demo or dev" >&2; exit 2 ;;
esac

venv=.venv
unfinished="$venv/.unfinished"
stamp="$venv/.installed-$what"
# Open3D draws through these without a display (libusb, GL, EGL); SUMO's library links the others.
packages=(libusb-1.0-0 libgl1 libegl1 libxrender1 libxext6 libexpat1 libatomic1 libgomp1)
libraries=(libusb-1.0.so.0 libGL.so.1 libEGL.so.1 libXrender.so.1 libXext.so.6 libexpat.so.1 libatomic.so.1 libgomp.so.1)

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# apt_install PACKAGE...: false where apt-get is missing or not allowed.
apt_install() {
    command -v apt-get >/dev/null || return 1
    as_root true || return 1
    as_root apt-get update -q || true # a stale list is better than none
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python3.13; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Works, has pip, and is this folder's own (a copied or moved .venv points elsewhere).
venv_works() {
    [ -x "$venv/bin/python" ] && [ ! -e "$unfinished" ] &&
        "$venv/bin/python" -c 'import os, sys, pip; sys.exit(not os.path.samefile(sys.prefix, ".venv"))' 2>/dev/null
}

make_venv() {
    local python version
    python="$(find_python)" || {
        echo "occsora-sim needs Python 3.11 or newer: apt-get install python3.11 python3.11-venv, or set PYTHON" >&2
        exit 1
    }
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        apt_install "python$version-venv" || {
            echo "Python has no venv module: run 'apt-get update && apt-get install -y python$version-venv' as root, then try again" >&2
            exit 1
        }
    fi
    rm -rf "$venv"
    mkdir "$venv"
    touch "$unfinished"
    "$python" -m venv "$venv"
}

missing_libraries() {
    "$venv/bin/python" - "${libraries[@]}" <<'PYTHON'
import ctypes, sys

for name in sys.argv[1:]:
    try:
        ctypes.CDLL(name)
    except OSError:
        print(name, end=" ")
PYTHON
}

# The tests of pages want a browser; those that find none are left out.
install_browser() {
    [ "$what" = dev ] || return 0
    command -v chromium >/dev/null && command -v chromedriver >/dev/null && return
    apt_install chromium chromium-driver || echo "No Chromium: the tests of the viewer's page will be skipped" >&2
}

install_libraries() {
    local missing
    missing="$(missing_libraries)"
    [ -z "$missing" ] && return
    echo "System libraries that the pictures and the traffic need are missing: $missing"
    apt_install "${packages[@]}" || true
    missing="$(missing_libraries)"
    [ -z "$missing" ] && return
    echo "Still missing: $missing- run this as root, then try again (what needs no picture works without):" >&2
    echo "    apt-get update && apt-get install -y ${packages[*]}" >&2
}

wanted="$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum)"
if ! { venv_works && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; }; then
    venv_works || make_venv
    touch "$unfinished"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)
    # torch first: the default index's build for Linux brings gigabytes of CUDA packages. Where pip has no index of its
    # own and there is no GPU, it comes from PyTorch's index of CPU builds. TORCH_INDEX=URL chooses another.
    torch_index=()
    if [ -n "${TORCH_INDEX:-}" ]; then
        torch_index=(--index-url "$TORCH_INDEX")
    elif ! grep -q 'index-url\|find-links\|no-index' <<<"$("${pip[@]}" config list 2>/dev/null)" && ! command -v nvidia-smi >/dev/null; then
        torch_index=(--index-url https://download.pytorch.org/whl/cpu)
    fi
    # A pip that gives up by itself (no network) leaves what was there in order; one that is cut off may not.
    trap 'exit 130' INT
    "${pip[@]}" install ${torch_index[@]+"${torch_index[@]}"} torch==2.13.0 || { rm -f "$unfinished"; exit 1; }
    "${pip[@]}" install -c constraints.txt -e ".[$extras]" || { rm -f "$unfinished"; exit 1; }
    echo "$wanted" >"$stamp"
    rm -f "$unfinished"
fi
install_libraries
install_browser

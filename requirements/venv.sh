#!/bin/sh
# Builds a virtual environment out of pinned, hash-checked files, and adds this package to it as an editable install.
#
#   UV=path/to/uv [PACKAGE=] requirements/venv.sh DIR NAME VERSION...
#
# DIR is replaced. NAME.txt holds every package with version and hashes; NAME-cuda.txt those that only a CUDA build of torch
# needs. VERSION... are the Pythons that will do, best first; PYTHON=version or interpreter overrides.
#
# Which build of torch. On Linux the default index has a CUDA build: 2.7 GB to download with the packages it needs. So:
#   - UV_TORCH_BACKEND (cpu, cu130, auto, ...) takes torch from PyTorch's own index for that backend: the same version, but not
#     hash-checked, as no file here can know every build;
#   - otherwise, if the wheels in $UV_FIND_LINKS, or in the places pip is told to look (PIP_FIND_LINKS, or find-links in its
#     configuration), include the CPU build that NAME-cpu.txt names, that one is installed, without CUDA packages;
#   - otherwise, if there is a NAME-cpu.txt and no NVIDIA driver, the CPU build comes from PyTorch's own index: hash-checked if
#     NAME-cpu.txt knows the wheel for this Python and processor, else by version. If that index cannot be used, one line says so;
#   - otherwise the build of the default index is installed.
# PACKAGE= (empty) leaves this package out, so that it can be added later, as a wheel.
#
# Whatever else uv reads from its environment (UV_DEFAULT_INDEX, UV_CACHE_DIR, UV_OFFLINE, ...) works as ever.
set -eu

dir=$1 name=$2
shift 2
here=$(dirname "$0")
uv=${UV:-uv}

say() { printf '%s\n' "$*" >&2; }

# uv looks on PATH and among the interpreters it manages; pyenv keeps others where neither looks.
find_python() {
    for version in "$@"; do
        "$uv" python find --system --no-python-downloads "$version" 2>/dev/null && return
        for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
            if "$python" -c '' 2>/dev/null; then printf '%s\n' "$python" && return; fi
        done
    done
    return 1
}

if [ -n "${PYTHON:-}" ]; then
    python=$(find_python "$PYTHON") || python=$PYTHON
elif ! python=$(find_python "$@"); then
    if [ "$#" -eq 1 ]; then
        say "No Python $1 found: not on PATH, not managed by uv, not under ${PYENV_ROOT:-$HOME/.pyenv}/versions."
        say "Install one ('$uv python install $1', 'pyenv install $1' or your system's package) or name it to make, see 'make help'."
        exit 1
    fi
    python=$1 # there is none: uv may download one
fi

say "$dir: installing the packages of requirements/$name.txt; the first time takes minutes"
"$uv" venv --quiet --clear --python "$python" "$dir"
# Compiled now: the suite starts some hundred processes, and if Python may not write bytecode each would compile torch anew.
install() { "$uv" pip install --quiet --compile-bytecode --python "$dir" "$@"; }

# The files are complete resolutions, so dependencies are not looked for (--no-deps); `uv pip check` at the end would notice.
install_pinned() { install --require-hashes --no-deps "$@"; }

# The places for wheels in pip's configuration. pip ignores those that do not exist; uv would not.
pip_places() {
    places=${PIP_FIND_LINKS:-}
    for pip in python3 "$here/../.uv/bin/python"; do
        [ -n "$places" ] || places=$("$pip" -m pip config get global.find-links 2>/dev/null) || places=
    done
    for place in $places; do
        case $place in *://*) printf ' %s' "$place" ;; *) [ ! -e "$place" ] || printf ' %s' "$place" ;; esac
    done
}

has_nvidia_driver() {
    [ -e /proc/driver/nvidia/version ] || [ -e /sys/module/nvidia/version ] || nvidia-smi >/dev/null 2>&1
}

version_of_torch() {
    "$dir/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null
}

# The torch that NAME.txt pins, from the index of a backend. PyTorch's index has no upload times, so exclude-newer (pyproject.toml)
# would hide all of it.
install_torch_for() {
    sed -n 's/^\(torch==.*[^ \\]\) *\\*$/\1/p' "$here/$name.txt" |
        install --torch-backend "$1" --exclude-newer-package torch=false -r -
}

install_cpu_torch() {
    # Succeeds without installing anything if no line of the file is for this Python and processor.
    install_pinned --torch-backend cpu --exclude-newer-package torch=false -r "$here/$name-cpu.txt" || return 1
    version_of_torch >/dev/null || install_torch_for cpu
}

# If torch is to be another build than that of the default index, it comes first; NAME.txt then finds its version installed.
if [ -n "${UV_TORCH_BACKEND:-}" ]; then
    install_torch_for "$UV_TORCH_BACKEND"
elif [ -f "$here/$name-cpu.txt" ]; then
    for place in $(printf '%s' "${UV_FIND_LINKS:-}" | tr , ' ') $(pip_places); do
        if UV_FIND_LINKS='' install_pinned --no-index --find-links "$place" -r "$here/$name-cpu.txt" 2>/dev/null &&
            version_of_torch >/dev/null; then break; fi
    done
    if [ "$(uname -s)" = Linux ] && ! version_of_torch >/dev/null && ! has_nvidia_driver && ! failure=$(install_cpu_torch 2>&1); then
        say "No CPU build of torch from PyTorch's index ($(printf '%s\n' "$failure" | sed -n 's/^error: //p' | head -n 1));" \
            "taking the build of the default index, with CUDA packages (2.7 GB)."
    fi
fi
install_pinned -r "$here/$name.txt"
torch=$(version_of_torch)
case $(uname -s)/$torch in
    Linux/*+cpu) build=' (CPU build)' ;;
    Linux/*+*) build= ;; # a build that names its backend: what it needs, if anything, came with it
    Linux/*) build=' (CUDA build)' && install_pinned -r "$here/$name-cuda.txt" ;;
    *) build= ;;
esac
[ -z "${PACKAGE-editable}" ] || install --no-deps --no-build-isolation --editable "$here/.."
"$uv" pip check --quiet --python "$dir"
packages=$("$uv" pip list --quiet --python "$dir" --format freeze | wc -l)
size=$(du -sk "$dir" | awk '{printf "%.1f GB", $1 / 1e6 * 1.024}')
say "$dir: $("$dir/bin/python" --version), torch $torch$build, $((packages)) packages, $size"

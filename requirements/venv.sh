#!/bin/sh
# Builds a virtual environment out of pinned, hash-checked files, and adds this package to it as an editable install.
#
#   UV=path/to/uv requirements/venv.sh DIR NAME VERSION...
#
# DIR is replaced. NAME.txt holds every package with version and hashes; NAME-cuda.txt those that only a CUDA build of torch
# needs. VERSION... are the Pythons that will do, best first; PYTHON=version or interpreter overrides.
#
# Which build of torch. The one on PyPI is, on Linux, a CUDA build: 2.7 GB to download with the packages it needs. So:
#   - UV_TORCH_BACKEND (cpu, cu130, auto, ...) takes torch from PyTorch's own index for that backend: the same version, though not
#     hash-checked, as no file here can know every build;
#   - otherwise, where the wheels in $UV_FIND_LINKS, or in the places pip is told to look (PIP_FIND_LINKS, or find-links in its
#     configuration), hold the CPU build that NAME-cpu.txt names, that one is taken, and the CUDA packages stay away;
#   - otherwise the build on PyPI is installed.
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
    python=$1 # none there at all: uv may download one
fi

"$uv" venv --quiet --clear --python "$python" "$dir"
# Compiled at once: the suite starts some hundred processes, and where Python may not write bytecode each would compile torch anew.
install() { "$uv" pip install --quiet --compile-bytecode --python "$dir" "$@"; }

# The files are complete resolutions, so nothing else is to be looked for (--no-deps); the check at the end would tell.
install_pinned() { install --require-hashes --no-deps "$@"; }

# The places for wheels that pip is told of; those that are gone pip passes over, which uv would not.
pip_places() {
    places=${PIP_FIND_LINKS:-}
    for pip in python3 "$here/../.uv/bin/python"; do
        [ -n "$places" ] || places=$("$pip" -m pip config get global.find-links 2>/dev/null) || places=
    done
    for place in $places; do
        case $place in *://*) printf ' %s' "$place" ;; *) [ ! -e "$place" ] || printf ' %s' "$place" ;; esac
    done
}

# torch comes first, where it is to be another build than PyPI's; NAME.txt then finds its version installed and leaves it alone.
if [ -n "${UV_TORCH_BACKEND:-}" ]; then
    install "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$here/$name.txt")"
elif [ -f "$here/$name-cpu.txt" ]; then
    for place in $(printf '%s' "${UV_FIND_LINKS:-}" | tr , ' ') $(pip_places); do
        if UV_FIND_LINKS='' install_pinned --no-index --find-links "$place" -r "$here/$name-cpu.txt" 2>/dev/null; then break; fi
    done
fi
install_pinned -r "$here/$name.txt"
torch=$("$dir/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))')
case $(uname -s)/$torch in
    Linux/*+*) ;; # a build that names its backend: what it needs, if anything, came with it
    Linux/*) install_pinned -r "$here/$name-cuda.txt" ;;
esac
install --no-deps --no-build-isolation --editable "$here/.."
"$uv" pip check --quiet --python "$dir"
say "$dir: $("$dir/bin/python" --version), torch $torch"

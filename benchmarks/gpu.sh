#!/bin/sh
# Measures a GPU from sm_80 on in minutes. The commands: benchmarks/gpu.sh --help
# Needs torch, triton, numpy, pytest and hypothesis; does more with nvcc and ninja, pytest-xdist,
# pydantic, torchaudio and PyYAML: what is missing is named. PYTHON chooses the interpreter.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$root/.venv/bin/python" ] && PYTHON=$root/.venv/bin/python
fi
command -v "$PYTHON" > /dev/null || {
    echo "error: no $PYTHON here: PYTHON chooses the interpreter" >&2
    exit 1
}
export PYTHONPATH="$root:$root/kernels${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m benchmarks.gpu "$@"

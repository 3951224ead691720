#!/bin/sh
# Tests and measures a GPU (compute capability 8.0 or newer). Commands: benchmarks/gpu.sh --help
# Needs torch, triton, numpy, pytest and hypothesis. Optional: nvcc and ninja, pytest-xdist,
# pydantic, safetensors, torchaudio and PyYAML; what is missing is named. PYTHON sets the interpreter.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x "$root/.venv/bin/python" ] && PYTHON=$root/.venv/bin/python
fi
command -v "$PYTHON" > /dev/null || {
    echo "error: $PYTHON not found; set PYTHON to a Python interpreter" >&2
    exit 1
}
export PYTHONPATH="$root:$root/kernels${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m benchmarks.gpu "$@"

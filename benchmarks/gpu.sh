#!/bin/sh
# Measures a GPU from sm_80 on in minutes. The commands: benchmarks/gpu.sh --help
# Needs torch, triton, numpy, pytest and hypothesis; does more with nvcc and ninja, pytest-xdist,
# pydantic, torchaudio and PyYAML: what is missing is named. PYTHON chooses the interpreter.
set -u
OUT=${OUT:+$(mkdir -p "$OUT" && cd "$OUT" && pwd)}
export OUT
cd "$(dirname "$0")/.." || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
command -v "$PYTHON" > /dev/null || {
    echo "error: no $PYTHON here: PYTHON chooses the interpreter" >&2
    exit 1
}
export PYTHONPATH="$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m benchmarks.gpu "$@"

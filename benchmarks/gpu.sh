#!/bin/sh
# Correctness on the GPU first, then every benchmark: under ten minutes on one GPU.
# Needs torch, triton, numpy, pytest, hypothesis; with ninja and nvcc also the CUDA kernel.
# PYTHON chooses the interpreter, OUTPUT the folder of the results.
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
output=${OUTPUT:-benchmarks/results}
export PYTHONPATH="$PWD:$PWD/kernels" PYTHONUNBUFFERED=1

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "error: torch finds no GPU" >&2
    exit 1
}
export LAS_KERNELS_TEST_DEVICE=cuda
# The tests of the kernels alone: what lies above them needs packages that may not be here.
kernel_tests="$python -m pytest -q -p no:cacheprovider --confcutdir=tests/kernels"
timeout 150 $kernel_tests tests/kernels/test_gpu.py tests/kernels/test_cuda.py \
    tests/kernels/test_decode_cuda.py tests/kernels/test_bounds.py -k "gpu or graph or bounds"
tests=$?
timeout 80 $kernel_tests tests/kernels/test_triton.py || tests=$?
if [ "$tests" -ne 0 ]; then
    echo "warning: the tests on the GPU ended with $tests; what is measured below may be wrong" >&2
fi
status=$tests
timeout 30 "$python" -m benchmarks.bounds --output "$output" || status=1
# --seconds: no new shape after these. A benchmark that is killed keeps its rows: --render.
for benchmark in "attention 120 160" "decoder 75 115" "greedy 30 50"; do
    set -- $benchmark
    timeout "$3" "$python" -m "benchmarks.$1" --device cuda --output "$output" --seconds "$2" ||
        { status=1; "$python" -m "benchmarks.$1" --device cuda --output "$output" --render; }
done
exit "$status"

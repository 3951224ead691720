#!/bin/sh
# On a GPU: correctness first, then every benchmark, in four parts of ten minutes at most each,
# and before them, once on a machine, what nvcc takes to build the CUDA kernels.
#   benchmarks/gpu.sh [check] [measure] [tune] [rest]      (all of them without arguments)
# check    the kernels' tests on the GPU, compute-sanitizer, what bounds the kernels, greedy search
# measure  attention, attention over a sequence, the whole decoder
# tune     tile sizes, of which the best are used from then on; then `measure` is worth repeating
# rest     the listener, a training step and files to texts: these need the packages of the project as well
# Needs torch, triton, numpy, pytest, hypothesis; with ninja and nvcc also the CUDA kernels.
# PYTHON chooses the interpreter, OUTPUT the folder of the results.
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
output=${OUTPUT:-benchmarks/results}
export PYTHONPATH="$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
status=0

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "error: torch finds no GPU" >&2
    exit 1
}

# The tests of the kernels alone: what lies above them needs packages that may not be here.
tests() {  # SECONDS ARGUMENT ...
    seconds=$1
    shift
    LAS_KERNELS_TEST_DEVICE=cuda timeout "$seconds" $prefix "$python" -m pytest -q \
        -p no:cacheprovider --confcutdir=tests/kernels "$@"
}

measured() {  # NAME SECONDS LIMIT: no new shape after SECONDS; what is killed keeps its rows
    timeout "$3" "$python" -m "benchmarks.$1" --device cuda --output "$output" --seconds "$2" ||
        { status=1; "$python" -m "benchmarks.$1" --device cuda --output "$output" --render; }
}

# First and at once: nvcc takes a minute or two for each, which no limit below allows for.
build() {
    for kernels in cuda decode_cuda; do
        timeout 280 "$python" -c "from las_kernels import $kernels
print('$kernels:', $kernels.available() or 'built')" &
    done
    wait
}

check() {
    prefix=
    tests 200 tests/kernels/test_gpu.py tests/kernels/test_cuda.py tests/kernels/test_decode_cuda.py \
        tests/kernels/test_bounds.py -k "gpu or graph or bounds" || status=1
    tests 80 tests/kernels/test_triton.py tests/kernels/test_tuned.py || status=1
    if [ "$status" -ne 0 ]; then
        echo "warning: a test failed on the GPU; what is measured below may be wrong" >&2
    fi
    timeout 30 "$python" -m benchmarks.bounds --output "$output" || status=1
    measured greedy 45 65
    command -v compute-sanitizer > /dev/null || {
        echo "no compute-sanitizer here: memory errors and races are not looked for" >&2
        return
    }
    mkdir -p "$output"
    for tool in memcheck racecheck; do
        prefix="compute-sanitizer --error-exitcode 1 --tool $tool"
        tests 100 tests/kernels/test_cuda.py tests/kernels/test_decode_cuda.py \
            -k "gpu and (one or odd)" > "$output/sanitizer-$tool.log" 2>&1 || status=1
        tail -n 4 "$output/sanitizer-$tool.log"
    done
}

measure() {
    measured attention 140 180
    measured sequence 110 150
    measured decoder 130 180
}

tune() {
    timeout 540 "$python" -m benchmarks.tuning --output "$output" --seconds 420 --ship || status=1
}

rest() {
    measured listener 90 120
    timeout 220 "$python" -m benchmarks.training --output "$output" \
        --backends auto,persistent,reference,speechbrain || status=1
    timeout 220 "$python" -m benchmarks.pipeline --output "$output" --repeats 2 --audio 3600 ||
        status=1
}

build
for part in ${*:-check measure tune rest}; do
    case $part in
        check | measure | tune | rest) "$part" ;;
        *) echo "error: no part $part: check, measure, tune or rest" >&2; exit 2 ;;
    esac
done
if [ "$output" = benchmarks/results ]; then
    "$python" -m benchmarks.targets || status=1
fi
exit "$status"

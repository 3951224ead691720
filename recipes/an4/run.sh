#!/usr/bin/env bash
# AN4: prepare, train, evaluate. One core is enough.
#   recipes/an4/run.sh CORPUS [KEY=VALUE ...]
# CORPUS is the folder `an4` as CMU ships it, with etc/ and wav/ in it.
set -euo pipefail
if [ $# -lt 1 ] || [ ! -d "$1/etc" ]; then
  echo "error: usage: $0 CORPUS [KEY=VALUE ...], where CORPUS/etc/an4_train.fileids exists" >&2
  exit 2
fi
corpus=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."  # reports then name files from the root of the repository
here=recipes/an4
data=$here/data
output=$here/runs/las
for setting in "$@"; do
  case $setting in training.output=*) output=${setting#training.output=} ;; esac
done
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
las() { "$PYTHON" -m las "$@"; }

# Eight speakers of train become the dev set; test is only scored.
las prepare an4 "$corpus" "$data" --dev-speakers 8 --strict
las train "$here/conf/las.yaml" "data.train=$data/train.jsonl.gz" \
  "data.dev=$data/train-dev.jsonl.gz" "training.output=$output" "$@"
las evaluate "$output/model" "$data/train-dev.jsonl.gz" --output "$output/dev" --threads 1 --no-texts
las evaluate "$output/model" "$data/test.jsonl.gz" --output "$output/test" --threads 1 --no-texts \
  --check-batching | tee "$output/evaluate.log"
las evaluate "$output/model" "$data/test.jsonl.gz" --output "$output/test-beam" --threads 1 --no-texts \
  --beam 8 --ctc 0.3

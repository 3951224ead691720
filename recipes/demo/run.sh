#!/usr/bin/env bash
# Train on the synthetic corpus that ships here, and score: about five minutes on two cores.
#   recipes/demo/run.sh [KEY=VALUE ...]        e.g. training.output=runs/mine
set -euo pipefail
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *=*) ;;
    *) echo "error: unknown argument '$argument'; settings are written KEY=VALUE" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."  # reports then name files from the root of the repository
here=recipes/demo
data=$here/data
output=$here/runs/demo
for setting in "$@"; do
  case $setting in training.output=*) output=${setting#training.output=} ;; esac
done
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
las() { "$PYTHON" -m las "$@"; }

las prepare librispeech "$here/corpus" "$data" --strict
las train "$here/conf/demo.yaml" "data.train=$data/train.jsonl.gz" "data.dev=$data/dev.jsonl.gz" \
  "training.output=$output" "$@"
las evaluate "$output/model" "$data/dev.jsonl.gz" --output "$output/dev"
las evaluate "$output/model" "$data/test.jsonl.gz" --output "$output/test" --check-batching
"$PYTHON" recipes/summary.py "$output"

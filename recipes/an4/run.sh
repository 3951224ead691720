#!/usr/bin/env bash
# AN4: prepare, train, evaluate; then tune the search, without and with a language model, and
# evaluate again. One core is enough.
#   recipes/an4/run.sh CORPUS [KEY=VALUE ...]
# CORPUS is the folder `an4` as CMU ships it, with etc/ and wav/ in it.
set -euo pipefail
for argument in "$@"; do
  case $argument in -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
done
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
evaluate() {  # NAME MANIFEST [OPTION ...]
  las evaluate "$output/model" "$data/$2.jsonl.gz" --output "$output/$1" --threads 1 --no-texts "${@:3}"
}
evaluate dev train-dev --greedy
evaluate test test --greedy --check-batching | tee "$output/evaluate.log"

# Settings are chosen on the dev set; `evaluate` then uses what `tune` left in the model folder.
tune() { las tune "$output/model" "$data/train-dev.jsonl.gz" --threads 1 "$@"; }
tune --output "$output/tuning"
evaluate test-tuned test

# The language model reads the text of the training part alone: of neither the dev speakers nor test.
lm=$(dirname "$output")/an4-lm
mkdir -p "$lm"
"$PYTHON" - "$data/train.jsonl.gz" > "$lm/train.txt" <<'PYTHON_END'
import gzip, json, sys
with gzip.open(sys.argv[1], "rt", encoding="utf-8") as cuts:
    for cut in cuts:
        print(json.loads(cut)["supervisions"][0]["text"])
PYTHON_END
las lm train "$lm/train.txt" "$lm" --config "$here/conf/lm.yaml"
tune --lm "$lm/model" --output "$output/tuning-lm"
evaluate test-tuned-lm test

compare() { las compare "$output/$1.json" "$output/$2.json" --output "$output/compare-$3.json"; }
compare test test-tuned test-tuned
compare test test-tuned-lm test-tuned-lm
compare test-tuned test-tuned-lm tuned-lm
"$PYTHON" recipes/summary.py "$output"

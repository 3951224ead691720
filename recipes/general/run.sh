#!/usr/bin/env bash
# Train the mini model of recipes/librispeech on with all kinds of speech.
#   recipes/general/run.sh MINI LIBRISPEECH SPEECHOCEAN AN4 [KEY=VALUE ...]
# MINI         model folder of `recipes/librispeech/run.sh mini`, or recipes/librispeech/results/mini-model
# LIBRISPEECH  the folder LibriSpeech with train-clean-5 and, if there is one, train-clean-100
# SPEECHOCEAN  speechocean762's recordings in LibriSpeech's layout, below a folder `train`
# AN4          the folder `an4` as CMU ships it
# The synthetic commands of recipes/demo are the fifth part.
set -euo pipefail
fail() { echo "error: $1" >&2; exit 2; }
[ $# -ge 4 ] || fail "usage: $0 MINI LIBRISPEECH SPEECHOCEAN AN4 [KEY=VALUE ...]"
for folder in "$1" "$2/train-clean-5" "$3/train" "$4/etc"; do
  [ -d "$folder" ] || fail "no such folder: $folder"
done
mini=$(realpath "$1") librispeech=$(realpath "$2") speechocean=$(realpath "$3") an4=$(realpath "$4")
shift 4
cd "$(dirname "$0")/../.."  # reports then name files from the root of the repository
here=recipes/general
data=$here/data
output=$here/runs/general
for setting in "$@"; do
  case $setting in training.output=*) output=${setting#training.output=} ;; esac
done
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
las() { "$PYTHON" -m las "$@"; }

# The speakers that the mini model was tuned on stay out, and so do AN4's and the demo's dev parts.
las prepare librispeech "$librispeech" "$data/librispeech" --part train-clean-5 --dev-speakers 2
parts=("$data/librispeech/train-clean-5")
if [ -d "$librispeech/train-clean-100" ]; then
  las prepare librispeech "$librispeech" "$data/librispeech" --part train-clean-100
  parts+=("$data/librispeech/train-clean-100")
fi
las prepare librispeech "$speechocean" "$data/speechocean" --part train
las prepare an4 "$an4" "$data/an4" --dev-speakers 8
las prepare librispeech recipes/demo/corpus "$data/demo"
parts+=("$data/speechocean/train" "$data/an4/train" "$data/demo/train")
join() {  # NAME PART ...: gzip files may be joined as they are
  cat "${@:2}" > "$data/.$1"
  mv "$data/.$1" "$data/$1"
}
join train.jsonl.gz "${parts[@]/%/.jsonl.gz}"
join dev.jsonl.gz "$data/librispeech/train-clean-5-dev.jsonl.gz" "$data/an4/train-dev.jsonl.gz" \
  "$data/demo/dev.jsonl.gz"
las train "$here/conf/general.yaml" \
  "training.init=$mini" "data.train=$data/train.jsonl.gz" "data.dev=$data/dev.jsonl.gz" \
  "training.output=$output" "$@"

# Half of the bytes; nothing of the text changes that a test can see.
"$PYTHON" - "$output/model" "$output/half" <<'PYTHON_END'
import sys
import torch
from las.model import LAS, read_info
from pathlib import Path
LAS.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2], read_info(Path(sys.argv[1])), torch.float16)
PYTHON_END
las evaluate "$output/half" "$data/an4/test.jsonl.gz" --output "$output/an4-test" --greedy --no-texts
las evaluate "$output/half" "$data/demo/test.jsonl.gz" --output "$output/demo-test" --greedy
if [ -d "$librispeech/dev-clean" ]; then
  las prepare librispeech "$librispeech" "$data/librispeech" --part dev-clean
  las evaluate "$output/half" "$data/librispeech/dev-clean.jsonl.gz" --output "$output/dev-clean" --greedy --no-texts
fi

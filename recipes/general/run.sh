#!/usr/bin/env bash
# Train the model of recipes/librispeech on with all kinds of speech: what comes of it is the bundled model.
#   recipes/general/run.sh MODEL LIBRISPEECH SPEECHOCEAN AN4 BOOKS [KEY=VALUE ...]
# MODEL        model folder of `recipes/librispeech/run.sh mini-mp3`
# LIBRISPEECH  the folder LibriSpeech with train-clean-5 and, if there are any, train-clean-100 and dev-clean
# SPEECHOCEAN  speechocean762's recordings in LibriSpeech's layout, below a folder `train`
# AN4          the folder `an4` as CMU ships it
# BOOKS        text for the language model, one sentence a line, plain, .gz or .xz
# The synthetic commands of recipes/demo are the fifth part. PROCESSES=1 trains on one core instead of two.
set -euo pipefail
fail() { echo "error: $1" >&2; exit 2; }
[ $# -ge 5 ] || fail "usage: $0 MODEL LIBRISPEECH SPEECHOCEAN AN4 BOOKS [KEY=VALUE ...]"
for folder in "$1" "$2/train-clean-5" "$3/train" "$4/etc"; do
  [ -d "$folder" ] || fail "no such folder: $folder"
done
[ -f "$5" ] || fail "no such file: $5"
model=$(realpath "$1") librispeech=$(realpath "$2") speechocean=$(realpath "$3") an4=$(realpath "$4")
books=$(realpath "$5")
shift 5
cd "$(dirname "$0")/../.."  # reports then name files from the root of the repository
here=recipes/general
data=$here/data
output=$here/runs/general
for setting in "$@"; do
  case $setting in training.output=*) output=${setting#training.output=} ;; esac
done
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
las() { "$PYTHON" -m las "$@"; }

# The speakers that the first model was tuned on stay out, and so do AN4's and the demo's dev parts.
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
train() {  # CONFIG INIT MANIFEST OUTPUT [KEY=VALUE ...]
  "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "${PROCESSES:-2}" -m las train "$here/conf/$1.yaml" \
    "training.init=$2" "data.train=$3" "data.dev=$data/dev.jsonl.gz" "${@:5}" "training.output=$4"
}
train general "$model" "$data/train.jsonl.gz" "$output" "$@"
# Then for longer with the small parts several times over: they are far from what most of the data is.
shares=()
for part in "${parts[@]}"; do
  case $part in
    */an4/*) shares+=(3 "$part.jsonl.gz") ;;
    */demo/*) shares+=(2 "$part.jsonl.gz") ;;
    *) shares+=(1 "$part.jsonl.gz") ;;
  esac
done
"$PYTHON" "$here/mix.py" "$data/mixed.jsonl.gz" "${shares[@]}"
train mixed "$output/model" "$data/mixed.jsonl.gz" "$output/mixed" "$@"
train noisy "$output/mixed/model" "$data/mixed.jsonl.gz" "$output/noisy" "$@"
# And with short utterances joined, for those of the small parts are all there is to a recording.
"$PYTHON" "$here/join.py" "$data/joined-an4.jsonl.gz" "$data/an4/train.jsonl.gz"
"$PYTHON" "$here/join.py" "$data/joined-demo.jsonl.gz" "$data/demo/train.jsonl.gz" --rounds 2
"$PYTHON" "$here/join.py" "$data/joined-speechocean.jsonl.gz" "$data/speechocean/train.jsonl.gz" --share 0.4
shares=()
for part in "${parts[@]}" "$data"/joined-{an4,demo,speechocean}; do
  case $part in
    */an4/*) shares+=(2 "$part.jsonl.gz") ;;
    *) shares+=(1 "$part.jsonl.gz") ;;
  esac
done
"$PYTHON" "$here/mix.py" "$data/mixed-joined.jsonl.gz" "${shares[@]}"
train joined "$output/noisy/model" "$data/mixed-joined.jsonl.gz" "$output/joined" "$@"
las lm ngram "$books" "$output/lm" --max-megabytes 8

# Half of the bytes; nothing of the text changes that a test can see. Search and language model go with it.
"$PYTHON" "$here/bundle.py" "$output/joined/model" "$output/lm" "$here/conf/search.yaml" "$output/bundle"
tests=("$data/an4/test" "$data/demo/test")
if [ -d "$librispeech/dev-clean" ]; then
  las prepare librispeech "$librispeech" "$data/librispeech" --part dev-clean
  tests+=("$data/librispeech/dev-clean")
fi
for test in "${tests[@]}"; do
  name=$(basename "$(dirname "$test")")-$(basename "$test")
  las evaluate "$output/bundle" "$test.jsonl.gz" --output "$output/$name-greedy" --greedy --no-texts
  las evaluate "$output/bundle" "$test.jsonl.gz" --output "$output/$name" --no-texts
done

#!/usr/bin/env bash
# LibriSpeech from download to scores, in stages.
#   recipes/librispeech/run.sh CONFIG CORPUS [--text FILE | --bpe N] [--processes N]
#                              [--from STAGE] [--to STAGE] [KEY=VALUE ...]
# CONFIG  mini (train-clean-5), 100 or 960
# CORPUS  the folder LibriSpeech with the parts in it; missing ones are downloaded from OpenSLR
# --text  one sentence a line, plain, .gz or .xz: counts models of characters and of words to search with
# --bpe   N subwords (byte-pair encoding) in addition to characters
# --processes  that train together: cores or GPUs; 2 for mini, else 1
# STAGE   download prepare lm train tune evaluate; --from and --to name the first and the last to run
# KEY=VALUE settings of the training, e.g. training.output=runs/mine
set -euo pipefail
fail() { echo "error: $1" >&2; exit 2; }
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done
[ $# -ge 2 ] || fail "usage: $0 mini|100|960 CORPUS [OPTION ...] [KEY=VALUE ...]; --help says more"
config=$1
corpus=$(realpath -m "$2")
shift 2
stages=(download prepare lm train tune evaluate)
number() {
  for i in "${!stages[@]}"; do [ "${stages[$i]}" = "$1" ] && { echo "$i"; return; }; done
  fail "no stage '$1'; there are ${stages[*]}"
}
first=0 last=5 text="" bpe="" processes="" settings=()
while [ $# -gt 0 ]; do
  case $1 in
    --text) [ -f "${2:-}" ] || fail "--text: no such file: ${2:-}"; text=$(realpath "$2"); shift 2 ;;
    --bpe) bpe=${2:-}; shift 2 || fail "--bpe: how many subwords?" ;;
    --processes) processes=${2:-}; shift 2 || fail "--processes: how many?" ;;
    --from) first=$(number "${2:-}"); shift 2 ;;
    --to) last=$(number "${2:-}"); shift 2 ;;
    *=*) settings+=("$1"); shift ;;
    *) fail "unknown argument '$1'" ;;
  esac
done
for count in "$bpe" "$processes"; do
  [[ $count =~ ^([1-9][0-9]*)?$ ]] || fail "'$count' is no number of subwords or processes"
done
[ -z "$text" ] || [ -z "$bpe" ] || fail "--text: language models are of characters; leave --bpe out"
case $config in
  mini) processes=${processes:-2} speakers=2 train=(train-clean-5) test=(dev-clean) ;;
  100) speakers=6 train=(train-clean-100) test=(dev-clean dev-other test-clean test-other) ;;
  960) speakers=6 train=(train-clean-100 train-clean-360 train-other-500) test=(dev-clean dev-other test-clean test-other) ;;
  *) fail "no configuration '$config'; there are mini, 100 and 960" ;;
esac
[ "$(basename "$corpus")" = LibriSpeech ] || fail "$corpus: name the folder LibriSpeech itself"

cd "$(dirname "$0")/../.."  # reports then name files from the root of the repository
here=recipes/librispeech
data=$here/data/$config
output=$here/runs/$config
for setting in ${settings[@]+"${settings[@]}"}; do
  case $setting in training.output=*) output=${setting#training.output=} ;; esac
done
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
las() { "$PYTHON" -m las "$@"; }
due() { local n; n=$(number "$1"); [ "$n" -ge "$first" ] && [ "$n" -le "$last" ]; }
# Tuning is on speakers held out from the first training part; the test parts are only scored.
dev=${train[0]}-dev

if due download; then
  mkdir -p "$corpus"
  missing=()
  for part in "${train[@]}" "${test[@]}"; do [ -d "$corpus/$part" ] || missing+=("$part"); done
  if [ ${#missing[@]} -gt 0 ]; then
    "$PYTHON" "$here/download.py" "$(dirname "$corpus")" "${missing[@]}"
  fi
fi
if due prepare; then
  las prepare librispeech "$corpus" "$data" --part "${train[0]}" --dev-speakers "$speakers"
  parts=()
  for part in "${train[@]:1}" "${test[@]}"; do parts+=(--part "$part"); done
  las prepare librispeech "$corpus" "$data" "${parts[@]}"
  manifests=()
  for part in "${train[@]}"; do manifests+=("$data/$part.jsonl.gz"); done
  cat "${manifests[@]}" > "$data/.train.jsonl.gz"  # gzip files may be joined as they are
  mv "$data/.train.jsonl.gz" "$data/train.jsonl.gz"
fi
if due lm && [ -n "$text" ]; then
  las lm ngram "$text" "$output-lm"
  las lm words "$text" "$output-words"
fi
if due train; then
  if [ -n "$bpe" ]; then
    las bpe "$data/train.jsonl.gz" "$data/pieces-$bpe.txt" --size "$bpe"
    settings=("pieces=$data/pieces-$bpe.txt" ${settings[@]+"${settings[@]}"})
  fi
  las train --processes "${processes:-1}" "$here/conf/$config.yaml" "data.train=$data/train.jsonl.gz" \
    "data.dev=$data/$dev.jsonl.gz" "training.output=$output" ${settings[@]+"${settings[@]}"}
fi
lm=()
if [ -n "$text" ]; then lm=(--lm "$output-lm" --words "$output-words"); fi
if due tune; then
  las tune "$output/model" "$data/$dev.jsonl.gz" --utterances 40 ${lm[@]+"${lm[@]}"}
fi
if due evaluate; then
  for part in "${test[@]}"; do
    las evaluate "$output/model" "$data/$part.jsonl.gz" --output "$output/$part-greedy" --greedy --no-texts
    las evaluate "$output/model" "$data/$part.jsonl.gz" --output "$output/$part" --no-texts
  done
  "$PYTHON" recipes/summary.py "$output"
fi

#!/usr/bin/env bash
# The bundled model: from several corpora to the folder that is part of the package, in stages.
#   recipes/general/run.sh --librispeech DIR --an4 DIR --speechocean DIR [--commonvoice DIR] [--readings DIR]
#                          [--labelled DIR] --text FILE [--init MODEL] [--processes N] [--from STAGE] [--to STAGE] [KEY=VALUE ...]
# --librispeech  the folder LibriSpeech with train-clean-5, dev-clean and, if there are any, train-clean-100
# --an4          the folder an4 as CMU ships it
# --speechocean, --commonvoice, --readings  recordings in LibriSpeech's layout below a folder train
# --labelled     the same with transcripts that a recogniser made: heard in the training, no text for the language model
# --text         one sentence a line, plain, .gz or .xz, for the language model
# --init         starts from a model folder, or from bundled: no CTC-only epochs, and a short warm-up
# --processes    of the training, 2 by default
# STAGE          prepare lm train tune bundle evaluate; lm counts a model of characters and one of words
# KEY=VALUE      settings of the training, e.g. training.output=runs/mine training.epochs=12
# The synthetic commands of recipes/demo are also part of the data.
set -euo pipefail
fail() { echo "error: $1" >&2; exit 2; }
stages=(prepare lm train tune bundle evaluate)
number() {
  for i in "${!stages[@]}"; do [ "${stages[$i]}" = "$1" ] && { echo "$i"; return; }; done
  fail "no stage '$1'; there are ${stages[*]}"
}
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
librispeech="" an4="" speechocean="" commonvoice="" readings="" labelled="" text="" init="" processes=2
first=0 last=5 settings=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --librispeech | --an4 | --speechocean | --commonvoice | --readings | --labelled | --init)
      [ "$1 ${2:-}" != "--init bundled" ] || { init=bundled; shift 2; continue; }
      [ -d "${2:-}" ] || fail "$1: no such folder: ${2:-}"
      printf -v "${1#--}" %s "$(realpath "$2")"; shift 2 ;;
    --text) [ -f "${2:-}" ] || fail "--text: no such file: ${2:-}"; text=$(realpath "$2"); shift 2 ;;
    --processes) processes=${2:-}; shift 2 || fail "--processes: how many?" ;;
    --from) first=$(number "${2:-}"); shift 2 ;;
    --to) last=$(number "${2:-}"); shift 2 ;;
    *=*) settings+=("$1"); shift ;;
    *) fail "unknown argument '$1'; --help lists them" ;;
  esac
done
[[ $processes =~ ^[1-9][0-9]*$ ]] || fail "--processes: '$processes' is no number of processes"
for name in librispeech an4 speechocean text; do
  [ -n "${!name}" ] || fail "--$name is missing; --help says what it is"
done
for folder in "$librispeech/train-clean-5" "$librispeech/dev-clean" "$an4/etc" "$speechocean/train" \
  ${commonvoice:+"$commonvoice/train"} ${readings:+"$readings/train"} \
  ${labelled:+"$labelled/train"}; do
  [ -d "$folder" ] || fail "no such folder: $folder"
done
cd "$(dirname "$0")/../.."  # reports then name files from the root of the repository
here=recipes/general
data=$here/data
output=$here/runs/general
for setting in ${settings[@]+"${settings[@]}"}; do
  case $setting in training.output=*) output=${setting#training.output=} ;; esac
done
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
las() { "$PYTHON" -m las "$@"; }
due() { local n; n=$(number "$1"); [ "$n" -ge "$first" ] && [ "$n" -le "$last" ]; }
join() {  # NAME MANIFEST ...: gzip files may be joined as they are
  cat "${@:2}" > "$data/.$1"
  mv "$data/.$1" "$data/$1"
}

if due prepare; then
  # Speakers to choose settings on, and 40 of Common Voice to be scored alone, stay out of the training.
  las prepare librispeech "$librispeech" "$data/librispeech" --part train-clean-5 --dev-speakers 2
  las prepare librispeech "$librispeech" "$data/librispeech" --part dev-clean
  shares=(2 "$data/librispeech/train-clean-5.jsonl.gz")
  if [ -d "$librispeech/train-clean-100" ]; then
    las prepare librispeech "$librispeech" "$data/librispeech" --part train-clean-100
    shares+=(2 "$data/librispeech/train-clean-100.jsonl.gz")
  fi
  las prepare an4 "$an4" "$data/an4" --dev-speakers 8
  las prepare librispeech recipes/demo/corpus "$data/demo"
  las prepare librispeech "$speechocean" "$data/speechocean" --part train
  if [ -n "$commonvoice" ]; then
    las prepare librispeech "$commonvoice" "$data/commonvoice" --part train --dev-speakers 40
    shares+=(1 "$data/commonvoice/train.jsonl.gz")
  fi
  if [ -n "$readings" ]; then
    las prepare librispeech "$readings" "$data/readings" --part train
    shares+=(1 "$data/readings/train.jsonl.gz")
  fi
  if [ -n "$labelled" ]; then
    las prepare librispeech "$labelled" "$data/labelled" --part train
    # Whose speakers nobody knows: at least no sentence of the sets that are scored.
    tests=("$data/librispeech/dev-clean.jsonl.gz" "$data/an4/test.jsonl.gz")
    [ -z "$commonvoice" ] || tests+=("$data/commonvoice/train-dev.jsonl.gz")
    "$PYTHON" "$here/mix.py" "$data/labelled.jsonl.gz" 1 "$data/labelled/train.jsonl.gz" --without "${tests[@]}"
    shares+=(1 "$data/labelled.jsonl.gz")
  fi
  # Small parts several times over: they are far from what most of the data is.
  shares+=(1 "$data/speechocean/train.jsonl.gz" 6 "$data/an4/train.jsonl.gz" 4 "$data/demo/train.jsonl.gz")
  "$PYTHON" "$here/mix.py" "$data/train.jsonl.gz" "${shares[@]}"
  # What is commanded and spelt is in no book, nor are codes and numbers.
  "$PYTHON" "$here/codes.py" "$data/codes.txt" 100000
  said=(8 "$data/an4/train.jsonl.gz" 20 "$data/demo/train.jsonl.gz")
  for part in librispeech/train-clean-5 librispeech/train-clean-100 commonvoice/train speechocean/train readings/train; do
    [ ! -f "$data/$part.jsonl.gz" ] || said+=(2 "$data/$part.jsonl.gz")
  done
  "$PYTHON" "$here/lm_text.py" "$data/text.txt" "$text" 15000 20 "${said[@]}"
  cat "$data/codes.txt" >> "$data/text.txt"
  join dev.jsonl.gz "$data/librispeech/train-clean-5-dev.jsonl.gz" "$data/an4/train-dev.jsonl.gz" \
    "$data/demo/dev.jsonl.gz"
fi
if due lm; then
  las lm ngram "$data/text.txt" "$output-lm" --max-megabytes 8
  las lm words "$data/text.txt" "$output-words" --max-megabytes 5
fi
if due train; then
  [ -z "$init" ] || settings=("training.init=$init" training.ctc_only=0 training.warmup=100 data.short_first=0 ${settings[@]+"${settings[@]}"})
  las train --processes "$processes" "$here/conf/las.yaml" "data.train=$data/train.jsonl.gz" \
    "data.dev=$data/dev.jsonl.gz" "training.output=$output" ${settings[@]+"${settings[@]}"}
fi
if due tune; then
  las tune "$output/model" "$data/dev.jsonl.gz" --utterances 60 --lm "$output-lm" --words "$output-words"
fi
if due bundle; then  # a quarter of the bytes, with the settings of the search and the language models
  "$PYTHON" "$here/bundle.py" "$output/model" "$output-lm" "$output/model/search.yaml" "$output/bundle" --words "$output-words"
  carved=("$data/librispeech/train-clean-5-dev.jsonl.gz" "$data/an4/train-dev.jsonl.gz")
  las calibrate "$output/bundle" "${carved[@]}"
fi
if due evaluate; then
  tests=(librispeech/dev-clean an4/test demo/test)
  [ -z "$commonvoice" ] || tests+=(commonvoice/train-dev)
  for test in "${tests[@]}"; do
    name=${test/\//-}
    las evaluate "$output/bundle" "$data/$test.jsonl.gz" --output "$output/$name-greedy" --greedy --no-texts
    las evaluate "$output/bundle" "$data/$test.jsonl.gz" --output "$output/$name" --no-texts
  done
  "$PYTHON" recipes/summary.py "$output"
fi

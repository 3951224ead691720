#!/bin/sh
# Environments of the recognisers that this project is compared with, one each:
#
#   benchmarks/peers/setup.sh VENV_DIR [PYTHON [NAME...]]
#
# makes VENV_DIR/speechbrain and VENV_DIR/espnet for benchmarks/system/decoding.py (about 5 GB each, nearly
# all of it torch), and those that are named: pocketsphinx (140 MB, with its English model) and
# whisper (500 MB, without a model) are for benchmarks/peers/score.py. Versions are pinned, torch to
# the one of this project. An environment that is complete is left as it is.
set -eu

[ $# -ge 1 ] || { echo "usage: $0 VENV_DIR [PYTHON [NAME...]]" >&2; exit 2; }
folder=$1
python=${2:-python3}
torch="torch==2.11.0 torchaudio==2.11.0"
mkdir -p "$folder"

# make NAME TEST COMMAND...: run COMMAND in a fresh environment unless TEST can be imported there.
make() {
    name=$1 test=$2
    shift 2
    if "$folder/$name/bin/python" -c "$test" >/dev/null 2>&1; then
        echo "$folder/$name: complete"
        return
    fi
    "$python" -m venv --clear "$folder/$name"
    pip="$folder/$name/bin/python -m pip install --quiet --disable-pip-version-check"
    "$@"
    "$folder/$name/bin/python" -c "$test"
    echo "$folder/$name: made"
}

speechbrain() {
    $pip $torch speechbrain==1.1.2
}

# ESPnet's full requirements are for all it can do, some of them need a compiler or an older
# setuptools. Its beam search and its recurrent decoder import these alone.
espnet() {
    $pip $torch numpy==2.3.5 typeguard==4.4.4
    $pip --no-deps espnet==202511
}

pocketsphinx() {
    $pip pocketsphinx==5.1.1
}

whisper() {
    $pip faster-whisper==1.2.1
}

[ $# -ge 2 ] && shift 2 || shift
[ $# -ge 1 ] || set -- speechbrain espnet
for wanted; do
    case $wanted in
    speechbrain) test='from speechbrain.decoders.seq2seq import S2SRNNBeamSearcher' ;;
    espnet) test='from espnet.nets.beam_search import BeamSearch
from espnet2.asr.decoder.rnn_decoder import RNNDecoder' ;;
    pocketsphinx) test='from pocketsphinx import Decoder' ;;
    whisper) test='from faster_whisper import WhisperModel' ;;
    *)
        echo "error: no recogniser $wanted; there are: speechbrain espnet pocketsphinx whisper" >&2
        exit 2
        ;;
    esac
    make "$wanted" "$test" "$wanted"
done

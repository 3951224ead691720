#!/usr/bin/env bash
# The wheel, installed from PyPI by a Python of your choice, used in an empty folder.
#   tests/install.sh python3.13
# Some gigabytes and minutes; what came of it is added to tests/results/install.json.
set -euo pipefail
python=${1:?error: usage: tests/install.sh PYTHON}
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/env"
"$folder/env/bin/pip" install -q build hatchling
(cd "$root" && "$folder/env/bin/python" -m hatchling build -t wheel -d "$folder/dist")
"$folder/env/bin/pip" install -q -c "$root/constraints.txt" "$folder"/dist/*.whl
mkdir "$folder/empty" "$folder/cache"
cd "$folder/empty"
export XDG_CACHE_HOME=$folder/cache OMP_NUM_THREADS=1
las=$folder/env/bin/las
text=$("$las" transcribe "$root/las/samples/503-1-0004.flac")
kernels=$(find "$folder/cache" -name '*.so' | wc -l)
"$las" prepare librispeech "$root/recipes/demo/corpus" data --part dev
"$las" train "$root/recipes/demo/conf/demo.yaml" data.train=data/dev.jsonl.gz training.output=run \
  listener.ctc_frames=2 training.epochs=1 training.device=cpu
"$las" transcribe "$root/las/samples/503-1-0004.flac" --model run/model > /dev/null
"$folder/env/bin/python" - "$root/tests/results/install.json" "$text" "$kernels" <<'PYTHON_END'
import json, pathlib, platform, sys
from datetime import UTC, datetime
import torch, torchaudio
path = pathlib.Path(sys.argv[1])
runs = json.loads(path.read_text()) if path.exists() else {}
runs[platform.python_version()] = {
    "command": "tests/install.sh", "date": f"{datetime.now(UTC):%Y-%m-%d}", "transcribed": sys.argv[2],
    "kernels built": int(sys.argv[3]), "trained": "recipes/demo, one epoch of its dev part",
    "versions": f"torch {torch.__version__}, torchaudio {torchaudio.__version__}",
}
path.write_text(json.dumps(runs, indent=2) + "\n")
PYTHON_END
cat "$root/tests/results/install.json"

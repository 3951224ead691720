"""A copy of a manifest's recordings with noise, to measure what noise costs.

    python recipes/general/noise.py MANIFEST.jsonl.gz OUTPUT.jsonl.gz --decibels 20 [--tilt 0]

The audio is written beside OUTPUT, in a folder of its name. The same arguments make the same files.
"""

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, Recording
from lhotse.utils import fastcopy

from las.data import recordings
from las.data.manifests import read_manifest
from las.data.noise import add_noise
from las.errors import LASError
from las.storage.atomic import replacing


def noisy(manifest: Path, output: Path, decibels: float, tilt: float) -> int:
    """Write audio and manifest; returns how many utterances there are."""
    folder = output.parent / output.name.removesuffix(".jsonl.gz")
    found = []
    for cut in read_manifest(manifest):
        samples = recordings.waveform(cut, cut.sampling_rate)
        random = np.random.default_rng(zlib.crc32(cut.id.encode()))
        path = folder / f"{cut.id}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.clip(add_noise(samples, decibels, tilt, random), -1, 1)
        soundfile.write(path, noise, cut.sampling_rate, subtype="PCM_16")
        (supervision,) = cut.supervisions
        recording = Recording.from_file(path, recording_id=cut.id)
        found.append(fastcopy(recording.to_cut(), id=cut.id, supervisions=[supervision]))
    with replacing(output) as temporary:
        CutSet.from_cuts(found).to_file(temporary)
    return len(found)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--decibels", type=float, required=True, help="of speech above the noise")
    parser.add_argument("--tilt", type=float, default=0.0, help="0 white, 1 pink, 2 brown noise")
    chosen = parser.parse_args()
    if not chosen.output.name.endswith(".jsonl.gz"):
        parser.error(f"{chosen.output}: the output's name must end in .jsonl.gz")
    try:
        count = noisy(chosen.manifest, chosen.output, chosen.decibels, chosen.tilt)
    except LASError as error:
        sys.exit(f"error: {error}")
    print(f"{chosen.output}: {count} utterances")


if __name__ == "__main__":
    main()

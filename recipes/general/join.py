"""Short utterances joined into longer ones, as a long recording holds them.

    python recipes/general/join.py OUTPUT.jsonl.gz MANIFEST.jsonl.gz ... [--rounds 1] [--share 1.0]

Every round joins the utterances of each manifest anew, a share of them; half of the speakers stay
by themselves, the others are mixed. The audio is written beside OUTPUT, in a folder of its name.
The same arguments make the same utterances.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment
from lhotse.cut import Cut

from las.data import recordings
from las.data.manifests import read_manifest
from las.errors import LASError
from las.storage.atomic import replacing

SECONDS = (3.0, 18.0)  # of an utterance joined; those of LibriSpeech are about as long
GAPS = (0.1, 0.9)  # seconds of silence between two; data.noise fills half of them in training


def groups(cuts: list[Cut], random: np.random.Generator) -> Iterator[list[Cut]]:
    """Groups of at least two cuts to be joined; some cuts may be in none."""
    speakers = sorted({speaker(cut) for cut in cuts})
    single = {name for name in speakers if random.random() < 0.5}
    places = random.permutation(len(cuts))
    ordered = sorted(  # cuts of these speakers by speaker, all others in random order
        zip(cuts, places, strict=True),
        key=lambda pair: (speaker(pair[0]) if speaker(pair[0]) in single else "\uffff", pair[1]),
    )
    group: list[Cut] = []
    limit = 0.0
    for cut, _ in ordered:
        apart = group and speaker(cut) != speaker(group[0]) and speaker(group[0]) in single
        if apart or sum(x.duration for x in group) + cut.duration > limit:
            if len(group) > 1:
                yield group
            group, limit = [], random.uniform(*SECONDS)
        group.append(cut)
    if len(group) > 1:
        yield group


def speaker(cut: Cut) -> str:
    """Who speaks, or nothing where that is not known."""
    return cut.supervisions[0].speaker or ""


def join(output: Path, manifests: list[Path], rounds: int, share: float) -> tuple[int, float]:
    """Write audio and manifest.

    Returns:
        How many joined utterances there are, and their seconds.
    """
    folder = output.parent / output.name.removesuffix(".jsonl.gz")
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    found: list[Cut] = []
    for manifest in manifests:
        cuts = list(read_manifest(manifest))
        for _ in range(rounds):
            drawn = [cut for cut in cuts if random.random() < share]
            for group in groups(drawn, random):
                name = f"{folder.name}-{len(found):05}"
                found.append(write(folder / f"{name}.flac", group, random))
    if not found:
        raise LASError(f"{', '.join(map(str, manifests))}: no two utterances to join")
    with replacing(output) as temporary:
        CutSet.from_cuts(found).to_file(temporary)
    return len(found), sum(cut.duration for cut in found)


def write(path: Path, group: list[Cut], random: np.random.Generator) -> Cut:
    """Write the audio of a group; returns its cut."""
    rate = group[0].sampling_rate
    pieces: list[np.ndarray] = []
    for cut in group:
        if pieces:
            pieces.append(np.zeros(int(random.uniform(*GAPS) * rate), np.float32))
        pieces.append(recordings.waveform(cut, rate))
    soundfile.write(path, np.clip(np.concatenate(pieces), -1, 1), rate, subtype="PCM_16")
    names = {speaker(cut) for cut in group}
    joined = Recording.from_file(path, recording_id=path.stem).to_cut()
    supervision = SupervisionSegment(
        id=path.stem,
        recording_id=path.stem,
        start=0.0,
        duration=joined.duration,
        text=" ".join(cut.supervisions[0].text for cut in group),
        speaker=names.pop() if len(names) == 1 else None,
    )
    joined.id = path.stem
    joined.supervisions = [supervision]
    return joined


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("manifests", type=Path, nargs="+", metavar="manifest")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0)
    chosen = parser.parse_args()
    if not chosen.output.name.endswith(".jsonl.gz"):
        parser.error(f"{chosen.output}: the output's name must end in .jsonl.gz")
    try:
        count, seconds = join(chosen.output, chosen.manifests, chosen.rounds, chosen.share)
    except LASError as error:
        sys.exit(f"error: {error}")
    print(f"{chosen.output}: {count} utterances, {seconds / 3600:.2f} hours")


if __name__ == "__main__":
    main()

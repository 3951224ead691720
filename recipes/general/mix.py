"""Join manifests into one, some of them several times over.

    python recipes/general/mix.py OUTPUT COUNT MANIFEST [...] [--without MANIFEST ...]

Manifests are .jsonl.gz. Every copy of an utterance has an id of its own, so that each draws its own
speed and MP3. What has the text of an utterance of the manifests after ``--without`` is left out:
where speakers are not known, that keeps recordings of a test set apart.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from las.storage.atomic import replacing


def mix(output: Path, parts: list[tuple[int, Path]], without: list[Path]) -> int:
    """Write the manifest; returns how many utterances it has."""
    written = 0
    apart = {_text(cut) for manifest in without for cut in _cuts(manifest)}
    with replacing(output) as temporary, gzip.open(temporary, "wt", encoding="utf-8") as file:
        for count, manifest in parts:
            cuts = [cut for cut in _cuts(manifest) if not apart or _text(cut) not in apart]
            for copy in range(count):
                for cut in cuts:
                    named = cut if copy == 0 else {**cut, "id": f"{cut['id']}_copy{copy}"}
                    file.write(json.dumps(named) + "\n")
                    written += 1
    return written


def _cuts(manifest: Path) -> list[dict[str, Any]]:
    with gzip.open(manifest, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _text(cut: dict[str, Any]) -> str:
    return str(cut["supervisions"][0]["text"])


def main() -> None:
    """Read the arguments."""
    output, *rest = sys.argv[1:]
    end = rest.index("--without") if "--without" in rest else len(rest)
    parts = [(int(n), Path(p)) for n, p in zip(rest[:end:2], rest[1:end:2], strict=True)]
    without = [Path(p) for p in rest[end + 1 :]]
    print(f"{output}: {mix(Path(output), parts, without)} utterances")


if __name__ == "__main__":
    main()

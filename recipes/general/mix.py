"""Join manifests into one, some of them several times over.

    python recipes/general/mix.py OUTPUT COUNT MANIFEST [COUNT MANIFEST ...]     (.jsonl.gz)

Every copy of an utterance has an id of its own, so that each draws its own speed and MP3.
"""

import gzip
import json
import sys
from pathlib import Path

from las.storage.atomic import replacing


def mix(output: Path, parts: list[tuple[int, Path]]) -> int:
    """Write the manifest; returns how many utterances it has."""
    written = 0
    with replacing(output) as temporary, gzip.open(temporary, "wt", encoding="utf-8") as file:
        for count, manifest in parts:
            with gzip.open(manifest, "rt", encoding="utf-8") as lines:
                cuts = [json.loads(line) for line in lines]
            for copy in range(count):
                for cut in cuts:
                    named = cut if copy == 0 else {**cut, "id": f"{cut['id']}_copy{copy}"}
                    file.write(json.dumps(named) + "\n")
                    written += 1
    return written


def main() -> None:
    """Read the arguments."""
    output, *rest = sys.argv[1:]
    parts = [(int(n), Path(p)) for n, p in zip(rest[::2], rest[1::2], strict=True)]
    print(f"{output}: {mix(Path(output), parts)} utterances")


if __name__ == "__main__":
    main()

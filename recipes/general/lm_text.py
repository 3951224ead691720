"""Text for language models: a text, the transcripts of manifests, and words letter by letter.

    python recipes/general/lm_text.py OUTPUT TEXT SPELT TIMES [COUNT MANIFEST ...]

TEXT has one sentence a line, plain, .gz or .xz. The transcripts of a manifest (.jsonl.gz) follow
COUNT times, then the SPELT most frequent words of TEXT, as people spell them: ``W O R D``. Few
repetitions are enough: with AN4's transcripts 120 times, the model knew its names by heart, and
the search turned other names into them.
"""

import sys
from collections import Counter
from pathlib import Path

from las.data.manifests import read_manifest
from las.errors import LASError
from las.lm.corpus import open_text
from las.storage.atomic import replacing

_SHORTEST = 3  # letters of a word that is worth spelling


def join(output: Path, text: Path, spelt: int, times: int, parts: list[tuple[int, Path]]) -> None:
    """Write the text; says how much each part adds.

    Raises:
        LASError: a manifest is not usable.
    """
    words: Counter[str] = Counter()
    with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        with open_text(text) as books:
            for line in books:
                file.write(line.rstrip("\n") + "\n")  # the last may have no end
                words.update(line.split())
        for count, manifest in parts:
            lines = "".join(f"{cut.supervisions[0].text}\n" for cut in read_manifest(manifest))
            file.write(lines * count)
            print(f"{manifest}: {len(lines):,} characters, {count} times")
        frequent = [word for word, _ in words.most_common(spelt)]
        chosen = [word for word in frequent if len(word) >= _SHORTEST and word.isalpha()]
        lines = "".join(f"{' '.join(word)}\n" for word in chosen)
        file.write(lines * times)
        print(f"{len(chosen):,} words letter by letter: {len(lines):,} characters, {times} times")


def main() -> None:
    """Read the arguments."""
    output, text, spelt, times, *rest = sys.argv[1:]
    parts = [(int(n), Path(p)) for n, p in zip(rest[::2], rest[1::2], strict=True)]
    try:
        join(Path(output), Path(text), int(spelt), int(times), parts)
    except (LASError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

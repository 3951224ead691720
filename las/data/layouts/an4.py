"""AN4 as CMU ships it."""

import re
from pathlib import Path

from las.data import tables
from las.data.layouts.listing import Item, audio_file, need_folder


def an4(root: Path) -> dict[str, list[Item]]:
    """Read the layout of AN4 by CMU: ``etc/an4_{train,test}.{fileids,transcription}`` and ``wav/``.

    Raises:
        LASError: one of the lists is missing or cannot be read.
    """
    need_folder(root)
    pattern = re.compile(r"^(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)\s*$")
    found = {}
    for part in ("train", "test"):
        texts = {}
        transcription = root / "etc" / f"an4_{part}.transcription"
        for line in tables.read(transcription).split("\n"):
            match = pattern.match(line)
            if match:
                texts[match[2]] = match[1]
        items = []
        for fileid in tables.read(root / "etc" / f"an4_{part}.fileids").split():
            path = root / "wav" / fileid
            flaw = None
            if path.name not in texts:
                flaw = ("empty text", f"no line of {transcription} ends in ({path.name})")
            audio, text = audio_file(path.parent, path.name), texts.get(path.name, "")
            items.append(Item(path.name, audio, text, path.parent.name, flaw))
        found[part] = items
    return found

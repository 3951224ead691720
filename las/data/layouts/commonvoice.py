"""Common Voice as Mozilla ships it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from las.data import tables
from las.data.layouts.listing import Item, audio_file, need_folder
from las.errors import LASError

_PARTS = ("train", "dev", "test")


def commonvoice(source: Path, parts: Sequence[str] = ()) -> dict[str, list[Item]]:
    """Read the layout of Common Voice by Mozilla: ``<part>.tsv`` and ``clips/``.

    Args:
        source: the folder of a language.
        parts: names of TSV files without their suffix; if empty, those of train, dev and test that
            exist.

    Raises:
        LASError: a part is missing, or lacks the columns of Common Voice.
    """
    need_folder(source)
    names = list(parts) or [part for part in _PARTS if (source / f"{part}.tsv").is_file()]
    if not names:
        raise LASError(f"{source}: no Common Voice layout (train.tsv, dev.tsv, test.tsv, clips/)")
    return {name: list(_clips(source / f"{name}.tsv")) for name in names}


def _clips(path: Path) -> Iterator[Item]:
    lines = tables.tsv(path)
    _, header = next(lines, (0, []))
    if isinstance(header, str) or not {"client_id", "path", "sentence"} <= set(header):
        raise LASError(
            f"{path}: the header lacks `client_id`, `path` or `sentence`: it is {header}"
        )
    for number, fields in lines:
        if len(fields) != len(header) or isinstance(fields, str):
            flaw = f"is {fields}"
            if not isinstance(fields, str):
                flaw = f"has {len(fields)} fields, the header {len(header)}"
            id = f"{path.name}:{number}"
            yield Item(id, path, "", "", ("malformed row", f"line {number} {flaw}"))
            continue
        row = dict(zip(header, fields, strict=True))
        clip = path.parent / "clips" / row["path"]
        if not clip.suffix:  # as in the first releases
            clip = audio_file(clip.parent, clip.name)
        yield Item(Path(row["path"]).stem, clip, row["sentence"], row["client_id"])

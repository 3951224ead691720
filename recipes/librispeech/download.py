"""Fetch parts of LibriSpeech from OpenSLR: resumed if cut off, checked, unpacked.

    python recipes/librispeech/download.py FOLDER train-clean-5 dev-clean [...]

The parts lie in FOLDER/LibriSpeech/<part> afterwards; one that is there is not fetched again.
"""

import argparse
import hashlib
import http.client
import shutil
import sys
import tarfile
from pathlib import Path
from urllib.error import URLError

from lhotse.utils import resumable_download, safe_extract

BASE = "https://www.openslr.org/resources"

LM_TEXT = "librispeech-lm-norm.txt.gz"

# Digests as published: MD5 of resources 11 and 31 by OpenSLR, SHA-256 of resource 12 by torchaudio.
ARCHIVES = {
    "train-clean-5": ("31", "5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": ("31", "6d7ab67ac6a1d2c993d050e16d61080d"),
    "dev-clean": ("12", "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": ("12", "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": ("12", "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": ("12", "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": ("12", "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": ("12", "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": ("12", "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
    # No archive but text, for `las lm train`: it stays FOLDER/librispeech-lm-norm.txt.gz.
    LM_TEXT: ("11", "c83c64c726a1aedfe65f80aa311de402"),
}


class DownloadError(Exception):
    """One line: what could not be fetched, and what to do."""


def digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch(part: str, folder: Path, base: str = BASE) -> Path:
    """Fetch one part.

    Args:
        part: a key of ``ARCHIVES``.
        folder: where LibriSpeech/<part> goes, or the text; the archive lies here meanwhile.
        base: address of the mirror, ``https://www.openslr.org/resources``.

    Returns:
        the folder of the part, or the text.

    Raises:
        DownloadError: the server cannot be reached, or what it sends is not the archive.
    """
    resource, expected = ARCHIVES[part]
    name = part if part == LM_TEXT else f"{part}.tar.gz"
    target = folder / part if part == LM_TEXT else folder / "LibriSpeech" / part
    done = target.with_name(f".{part}.complete")
    if done.is_file() and target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    address = f"{base}/{resource}/{name}"
    archive = folder / name
    algorithm = "md5" if len(expected) == 32 else "sha256"
    # A server that does not resume gives a file of two beginnings: then once more from nothing.
    for attempt in (1, 2):
        try:
            resumable_download(address, archive)
        except (URLError, OSError, http.client.HTTPException) as error:
            if archive.is_file() and archive.stat().st_size == 0:
                archive.unlink()
            raise DownloadError(
                f"{address}: {error}; what has arrived is kept, the same command goes on with it"
            ) from None
        if digest(archive, algorithm) == expected:
            break
        archive.unlink()
        if attempt == 2:
            raise DownloadError(
                f"{address}: the archive does not have the published {algorithm} sum {expected}; "
                "try again, or another mirror by --base"
            )
    if part != LM_TEXT:
        _unpack(archive, folder, target)
    done.touch()
    if part != LM_TEXT:
        archive.unlink()
    return target


def _unpack(archive: Path, folder: Path, target: Path) -> None:
    """Unpack beside the target and move it there: a folder that is there is whole."""
    beside = folder / f".{target.name}.unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    with tarfile.open(archive) as tar:
        safe_extract(tar, beside)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    for path in sorted((beside / "LibriSpeech").iterdir()):  # speakers, licence and the like, too
        if path.name == target.name or not (target.parent / path.name).exists():
            path.rename(target.parent / path.name)
    shutil.rmtree(beside)


def main() -> None:
    """Fetch what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="+", choices=ARCHIVES, metavar="part")
    parser.add_argument("--base", default=BASE, help="address of another mirror")
    arguments = parser.parse_args()
    try:
        for part in arguments.parts:
            print(fetch(part, arguments.folder, arguments.base))
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

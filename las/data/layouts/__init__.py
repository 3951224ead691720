"""Readers of corpus layouts, a module each; `las.data.corpora` checks the utterances they list.

A new corpus is a module with a function that lists its utterances, and a row of :data:`LAYOUTS`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from las.data.layouts.an4 import an4
from las.data.layouts.commonvoice import commonvoice
from las.data.layouts.folder import folder
from las.data.layouts.librispeech import librispeech
from las.data.layouts.listing import Item


class Layout(NamedTuple):
    """How one layout is read."""

    read: Callable[[Path, Sequence[str]], dict[str, list[Item]]]  # source, names of parts
    has_parts: bool  # whether parts may be chosen


LAYOUTS = {
    "librispeech": Layout(librispeech, True),
    "an4": Layout(lambda source, _: an4(source), False),
    "commonvoice": Layout(commonvoice, True),
    "folder": Layout(lambda source, _: folder(source), False),
}
"""What ``las prepare`` reads, by the name of the layout."""

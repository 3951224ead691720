"""What SRT and WebVTT have in common: times, and lines, of which whisper by default makes one."""

import textwrap

LINE = 42
"""Characters of a line."""


def timestamp(seconds: float, hours: bool = True, mark: str = ".") -> str:
    """``HH:MM:SS.mmm``.

    Args:
        seconds: 0 or more.
        hours: whether to write hours where there are none.
        mark: decimal separator.
    """
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    whole, minutes = divmod(minutes, 60)
    front = f"{whole:02d}:" if hours or whole else ""
    return f"{front}{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def lines(text: str) -> str:
    """The lines of a segment, without arrows, which stand between two times."""
    wrapped = textwrap.wrap(text, LINE, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrapped).replace("-->", "->")

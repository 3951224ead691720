"""The documents of the repository and their links; needs nothing but Python."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PATTERNS = ("*.md", "docs/*.md", "kernels/*.md", "benchmarks/*.md", "las/pretrained/*.md")
_RECIPES = ("recipes/*/README.md", "recipes/*/RESULTS.md", "benchmarks/results/*/README.md")
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^(?:[-*] |\d+\. )")


def documents() -> list[Path]:
    """Every document that people read, README first."""
    found = [path for pattern in (*_PATTERNS, *_RECIPES) for path in sorted(ROOT.glob(pattern))]
    return sorted(found, key=lambda path: path != ROOT / "README.md")


def local_links(text: str) -> Iterator[tuple[str, str]]:
    """Relative path and anchor, either may be empty, of each link to a file of the repository."""
    for link in _LINK.finditer(_FENCE.sub("", text)):
        target = link["target"]
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(text: str) -> set[str]:
    """Anchors of a document's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ +(.*)", _FENCE.sub("", text), re.MULTILINE)
    return {
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles
    }


def site_files() -> list[Path]:
    """Documents, and the files that they link to or show."""
    found = dict.fromkeys(documents())
    for document in list(found):
        for path, _ in local_links(document.read_text("utf-8")):
            target = (document.parent / path).resolve()
            if target.is_file():
                found[target] = None
    return list(found)


def as_site(text: str, folder: Path) -> str:
    """Adapt a document to MkDocs.

    Args:
        text: Markdown as GitHub renders it.
        folder: of the document.

    Returns:
        the same with a blank line before each list, and links to folders as plain text.
    """

    def plain(link: re.Match[str]) -> str:
        inside = not re.match(r"[a-z]+:|#", link["target"])
        return link["text"] if inside and (folder / link["target"]).is_dir() else link[0]

    lines: list[str] = []
    fenced = False
    for line in _LINK.sub(plain, text).splitlines():
        fenced ^= line.startswith("```")
        before = lines[-1] if lines else ""
        if not fenced and _ITEM.match(line) and before and not _continues(lines):
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _continues(lines: list[str]) -> bool:
    """Whether the last line belongs to a list."""
    for line in reversed(lines):
        if _ITEM.match(line):
            return True
        if not line.startswith("  "):
            return False
    return False

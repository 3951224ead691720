"""Where the recordings lie that are explained, and a reader of the page of an explanation."""

from html.parser import HTMLParser

from las.model.folder import bundled

SAMPLES = bundled().parent / "samples"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags close in their order, and collects what is in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), (tag, attributes)
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        return [
            values
            for name, values in self.tags
            if name == tag and (kind is None or kind in (values.get("class") or "").split())
        ]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

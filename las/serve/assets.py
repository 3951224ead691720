"""The page at ``/`` and its files, which are all that it loads; and explanations as pages."""

from importlib import resources

from fastapi import APIRouter, Response

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_FILES = (
    ("las.serve", "page", "page.css"),
    ("las.serve", "page", "page.js"),
    ("las.serve", "page", "speech.js"),
    ("las.explain", "assets", "explain.css"),
    ("las.explain", "assets", "explain.js"),
)
# The page loads nothing from elsewhere and runs no script but its own. The player has the user's
# file (blob:); explanations hold their images and sound (data:).
_POLICY = (
    "default-src 'self'; img-src 'self' data:; media-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def router() -> APIRouter:
    """The routes of the page and its files; they need no key."""
    found = APIRouter()
    index = _Asset("las.serve", "page", "index.html")
    found.add_api_route("/", index.answer, methods=["GET", "HEAD"])
    for place in _FILES:
        found.add_api_route(f"/page/{place[-1]}", _Asset(*place).answer, methods=["GET"])
    return found


def explanation(page: str) -> Response:
    """An answer with a page of ``las explain``, which has a policy of its own."""
    headers = {**_HEADERS, "Cache-Control": "no-store"}
    return Response(page.encode(), media_type="text/html", headers=headers)


class _Asset:
    """A file of a package, read once."""

    def __init__(self, package: str, folder: str, name: str) -> None:
        self.content = (resources.files(package) / folder / name).read_bytes()
        self.type = _TYPES[name.rpartition(".")[2]]

    async def answer(self) -> Response:
        """The file."""
        headers = {**_HEADERS, "Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        return Response(self.content, media_type=self.type, headers=headers)

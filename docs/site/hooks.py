"""MkDocs hooks: the site has the layout of the repository, so that links are right in both."""

import re
from typing import TYPE_CHECKING

from pages import ROOT, as_site, site_files
from settings import filled

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Replace the files of ``docs_dir``, this folder, by those of the repository."""
    from mkdocs.structure.files import File

    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in site_files():
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Fill in the settings, and adapt what GitHub renders and MkDocs does not."""
    return as_site(filled(markdown), (ROOT / page.file.src_uri).parent)


def on_page_content(html: str, **_: object) -> str:
    """Sphinx roles of docstrings, as :func:`load`, are code."""
    return re.sub(r":(?:func|class|meth|attr|data|mod):(<code>)~?", r"\1", html)


def on_config(config: "MkDocsConfig") -> None:
    """Watch what the pages are made from, in ``mkdocs serve``."""
    config.watch += [str(ROOT / name) for name in ("README.md", "docs", "las", "kernels")]

"""The documentation is right: examples, links, settings, quoted messages."""

import ast
import doctest
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import las
import las_kernels
from las import config
from las.export import runtime

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def site(name: str) -> ModuleType:
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / f"site/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES, SETTINGS = site("pages"), site("settings")
SETTINGS_PAGE = SETTINGS.filled((DOCS / "settings.md").read_text("utf-8"))


def names(settings: dict, prefix: str = "") -> set[str]:
    """Dotted names of the values of nested settings."""
    found = set()
    for key, value in settings.items():
        found |= names(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


@pytest.mark.parametrize("name", ["api.md"])
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A fence is not a line of the output above it.
    text = re.sub(r"^```.*$", "", (DOCS / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    assert len(examples.examples) > 20
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    runner.run(examples, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_links_lead_to_files_and_headings():
    broken, count = [], 0
    for document in PAGES.documents():
        for path, anchor in PAGES.local_links(document.read_text("utf-8")):
            count += 1
            target = (document.parent / path).resolve() if path else document
            if not target.exists() or not target.is_relative_to(ROOT):
                broken.append(f"{document.relative_to(ROOT)}: {path}")
            elif anchor and anchor not in PAGES.anchors(target.read_text("utf-8")):
                broken.append(f"{document.relative_to(ROOT)}: {path}#{anchor}")
    assert not broken
    assert count > 50


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 130


@pytest.mark.parametrize("kind", SETTINGS.KINDS.values(), ids=SETTINGS.KINDS)
def test_every_setting_is_on_its_page(kind):
    for name in names(kind().model_dump()):
        assert f"\n| `{name}` |" in SETTINGS_PAGE


def test_a_setting_has_type_default_and_meaning():
    table = SETTINGS.table(config.RunConfig, "listener")
    assert "\n| `listener.reduction` | one of `1`, `2`, `4`, `8` | `4` |" in table
    assert "\n| `listener.dropout` | number, 0 to 1 | `0.2` |" in table
    meanings = SETTINGS.meanings(config.RunConfig)
    assert meanings["pieces"]  # of a class that it inherits from
    assert SETTINGS.meanings(config.TrainingConfig)["warmup"]
    with pytest.raises(ValueError, match="no section 'lisener'"):
        SETTINGS.table(config.RunConfig, "lisener")


@pytest.mark.parametrize("kind", SETTINGS.KINDS)
def test_every_setting_has_a_meaning(kind):
    assert not [name for name, *_, meaning in SETTINGS.rows(SETTINGS.KINDS[kind]) if not meaning]


def test_settings_that_documents_name_exist():
    known = names(config.RunConfig().model_dump()) | names(SETTINGS.KINDS["lm"]().model_dump())
    sections = "data|training|listener|attention|speller|frontend|text"
    pattern = re.compile(rf"(?<![\w./])(?:{sections})\.(?!(?:pt|py|onnx)\b)[a-z_]+(?=[=:\s]|$)")
    for document in PAGES.documents():
        for span in re.findall(r"`([^`\n]+)`", document.read_text("utf-8")):
            for name in pattern.findall(span):
                assert any(k == name or k.startswith(f"{name}.") for k in known), (document, name)


def test_quoted_messages_are_those_of_the_code():
    """Parts of a message that a number or name separates are written with dots between them."""
    strings = " ".join(
        " ".join(node.value.split())
        for path in (ROOT / "las").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    quoted = re.findall(r"^> (.*)", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert len(quoted) >= 8
    for message in quoted:
        for part in message.split("..."):
            assert part.strip() in strings


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference.md").read_text("utf-8")
    public = {f"las.{name}" for name in las.__all__ if name != "__version__"}
    public |= {f"las_kernels.{name}" for name in las_kernels.__all__ if name != "BACKENDS"}
    public |= {f"las.export.runtime.{name}" for name in runtime.__all__}
    assert set(re.findall(r"^::: (\S+)", text, re.MULTILINE)) == public


def test_what_github_renders_is_adapted_to_the_site():
    text = "Read:\n- [one](docs)\n  and on\n- [two](README.md)\n\n```\na\n- b\n```\n"
    expected = "Read:\n\n- one\n  and on\n- [two](README.md)\n\n```\na\n- b\n```\n"
    assert PAGES.as_site(text, ROOT) == expected

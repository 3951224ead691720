"""Make the tables of results from the reports of the runs, so that no number is typed by hand.

    python recipes/results.py            rewrite the tables
    python recipes/results.py --check    only say whether they are up to date (exit status 1)

The tables are between ``<!-- results -->`` and ``<!-- end -->``: in ``recipes/*/RESULTS.md`` the
rows of the recipe, in ``docs/results.md`` those of all recipes, in ``README.md`` a selection with
fewer columns, set by set, and what other recognisers scored on the same recordings
(``benchmarks/results/peers``). A recipe lists its rows in ``results/rows.yaml``; each names a
report of ``las evaluate`` and the logs of the trainings that led to the model. Rows of the README
have a key ``readme``: the name of the system there.
"""

import argparse
import json
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parent
README = RECIPES.parent / "README.md"
ALL = RECIPES.parent / "docs/results.md"
PEERS = RECIPES.parent / "benchmarks/results/peers"
# Names of the sets in these reports and in the tables.
_SETS = {
    "an4-test": "AN4 test",
    "librispeech-dev-clean": "dev-clean, 10 speakers, MP3",
    "commonvoice-train-dev": "Common Voice, 40 speakers",
}
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)
_HEADER = (
    "| set | system | training data | search | WER % (95 % interval) | CER % | parameters "
    "| training |\n|---|---|---|---|---|---|---|---|"
)
_SHORT_HEADER = (
    "| test set | system | training data | search | WER % (95 % interval) |\n|---|---|---|---|---|"
)


def training_minutes(log: Path) -> float:
    """Wall-clock minutes from the first to the last line of a ``train.log``."""
    stamps = re.findall(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)Z", log.read_text("utf-8"), re.MULTILINE)
    first, last = (datetime.fromisoformat(stamps[i]) for i in (0, -1))
    return (last - first).total_seconds() / 60


def peers_row(report: dict[str, Any]) -> str:
    """A line of the README: another recogniser, with its own model."""
    low, high = report["wer_interval"]
    part = "" if report["every"] == 1 else f": one utterance of {report['every']}"
    version = report["versions"].partition(",")[0]
    return (
        f"| {_SETS[report['set']]}{part} | {version} | its own model | default "
        f"| **{report['wer']:.2f}** ({low:.2f} to {high:.2f}) |"
    )


def row(recipe: Path, entry: dict[str, Any], short: bool = False) -> str:
    """One line of a table; ``short`` is the README's."""
    report: dict[str, Any] = json.loads((recipe / entry["report"]).read_text("utf-8"))
    low, high = report["wer_interval"]
    wer = f"**{report['wer']:.2f}** ({low:.2f} to {high:.2f})"
    if short:
        return (
            f"| {entry['set']} | {entry['readme']} | {entry['data']} | {report['search']} | {wer} |"
        )
    logs = entry["log"] if isinstance(entry["log"], list) else [entry["log"]]
    minutes = sum(training_minutes(recipe / log) for log in logs)
    return (
        f"| {entry['set']} | {entry['system']} | {entry['data']} | {report['search']} "
        f"| {wer} | {report['cer']:.2f} "
        f"| {report['parameters'] / 1e6:.1f} M | {minutes:.0f} min, {entry['device']} |"
    )


def _set_of(line: str) -> str:
    return line.split(" | ")[0].partition(":")[0]


def tables() -> dict[Path, str]:
    """The right text of every file that holds a table."""
    blocks: dict[Path, list[str]] = {ALL: [_HEADER]}
    short: list[str] = []
    for listing in sorted(RECIPES.glob("*/results/rows.yaml")):
        recipe = listing.parent.parent
        entries = yaml.safe_load(listing.read_text("utf-8"))
        rows = [row(recipe, entry) for entry in entries]
        blocks[recipe / "RESULTS.md"] = [_HEADER, *rows]
        blocks[ALL] += rows
        short += [row(recipe, entry, short=True) for entry in entries if "readme" in entry]
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(PEERS.glob("*.json"))]
    short += [peers_row(report) for report in reports if report["name"] != "las"]
    sets = [_set_of(line) for line in short]
    blocks[README] = [_SHORT_HEADER, *sorted(short, key=lambda line: sets.index(_set_of(line)))]
    texts = {}
    for path, lines in blocks.items():
        table = "\n".join(lines)
        texts[path] = _BLOCK.sub(rf"\g<1>{table}\n\g<2>", path.read_text("utf-8"))
    return texts


def main() -> None:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = {path: text for path, text in tables().items() if path.read_text("utf-8") != text}
    for path, text in stale.items():
        print(f"{path}: {'not up to date' if check else 'rewritten'}")
        if not check:
            path.write_text(text, "utf-8")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The word error rates of a run, one line a report of ``las evaluate``.

    python recipes/summary.py FOLDER

Every recipe ends with it.
"""

import json
import sys
from pathlib import Path

_KEYS = ("wer", "wer_interval", "cer", "words", "search")


def rows(folder: Path) -> list[str]:
    """Lines of a table: the reports in a folder, by name."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text("utf-8"))
        if not isinstance(report, dict) or any(key not in report for key in _KEYS):
            continue  # a comparison or a tuning
        low, high = report["wer_interval"]
        lines.append(
            f"  {path.stem:<24} WER {report['wer']:6.2f} % ({low:.2f} to {high:.2f})  "
            f"CER {report['cer']:6.2f} %  {report['words']} words, {report['search']}"
        )
    return lines


def main() -> None:
    """Print the table of one folder."""
    if len(sys.argv) != 2:
        sys.exit("error: usage: python recipes/summary.py FOLDER")
    folder = Path(sys.argv[1])
    lines = rows(folder)
    if not lines:
        sys.exit(f"error: {folder}: no report of `las evaluate` in it")
    print("\n".join([f"{folder}: word error rates", *lines]))


if __name__ == "__main__":
    main()

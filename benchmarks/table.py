"""Print the Markdown table of a run of `depth bench --json`: python benchmarks/table.py RUN.jsonl [--fastest].

--fastest: of each program only the precision that is the fastest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Optional

_HEAD = "| | precision | network | times as fast | share of the best product | one picture | folder | peak memory |"


def table(lines: list[str], fastest: bool = False) -> list[str]:
    """Return the lines of the table; its rows are those of the network's, or of each name the fastest."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    kinds = {kind: [row for row in rows if row["row"] == kind] for kind in ("network", "process", "folder")}
    if fastest:
        ordered = sorted((row for row in kinds["network"] if row["median_ms"]), key=lambda row: -row["median_ms"])
        by_name = {row["name"]: row for row in ordered}
        kinds["network"] = [row for row in ordered if by_name[row["name"]] is row]
    printed = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    for network in kinds["network"]:
        same = [_same(kinds[kind], network) for kind in ("process", "folder")]
        process, folder = ({} if row is None else row for row in same)
        cells = [
            network["name"],
            network["precision"],
            _cell(network["median_ms"], "{:.0f} ms") or network["error"],
            _cell(network["faster"], "{:.2f}x"),
            _cell(network["roofline"], "{:.0%}"),
            _cell(process.get("again_s"), "{:.2f} s"),
            _cell(folder.get("seconds"), "{:.1f} s") + _cell(folder.get("over_network"), " ({:.2f} x network)"),
            _cell(folder.get("peak_mb") or process.get("peak_mb"), "{:.0f} MB"),
        ]
        printed.append("| " + " | ".join(cells) + " |")
    return printed


def _same(rows: list[dict[str, Any]], network: dict[str, Any]) -> Optional[dict[str, Any]]:
    official = network["name"] == "official form"
    names = (network["name"], "official script's loop") if official else (network["name"],)
    return next((row for row in rows if row["name"] in names and row["precision"] == network["precision"]), None)


def _cell(value: Optional[float], style: str) -> str:
    return "" if value is None else style.format(value)


if __name__ == "__main__":
    run, *options = sys.argv[1:]
    print("\n".join(table(Path(run).read_text(encoding="utf-8").splitlines(), "--fastest" in options)))

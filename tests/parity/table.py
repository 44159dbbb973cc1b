"""THE table of allowed differences from QEMU's filters (`differences.toml`): data for the tests and for the READMEs.

`python tests/parity/table.py` writes the tables of the READMEs anew.
"""

import tomllib
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BEGIN, END = "## Differences from QEMU\n", "\n## "


class Difference(NamedTuple):
    """What QEMU does, what we do, and why; `lines` are the scenarios that show it: (ours, QEMU's) as recorded."""

    qemu: str
    here: str
    why: str
    lines: dict[str, tuple[str, str]]
    proof: tuple[str, ...]
    """Tests that show it where no scenario can: names of functions, or headings of scenarios that QEMU does not run."""


def load(service):
    """The differences of one service, in the order of its README."""
    data = tomllib.loads((HERE / "differences.toml").read_text())
    return [
        Difference(
            one["qemu"],
            one["here"],
            one.get("why", ""),
            {title: (line["ours"], line["qemu"]) for title, line in one.get("scenario", {}).items()},
            tuple(one.get("proof", ())),
        )
        for one in data[service]
    ]


def lines(service):
    """Every scenario that comes out differently: title to (ours, QEMU's)."""
    return {title: line for one in load(service) for title, line in one.lines.items()}


def rendered(service):
    """The table as Markdown."""
    rows = [f"| {one.qemu} | {one.here} | {one.why} |" for one in load(service)]
    return "\n".join(["| QEMU | here | why |", "|---|---|---|", *rows]) + "\n"


def readme(service):
    return ROOT / "services" / f"colo_{service}" / "README.md"


def section(text):
    """Where the table stands in a README: `(start, end)`."""
    start = text.index("| QEMU", text.index(BEGIN))
    lines_ = text[start:].splitlines(keepends=True)
    size = sum(len(line) for line in lines_[: next((n for n, x in enumerate(lines_) if x[0] != "|"), len(lines_))])
    return start, start + size


def main():
    for service in ("compare", "rewriter"):
        text = readme(service).read_text()
        start, end = section(text)
        readme(service).write_text(text[:start] + rendered(service) + text[end:])


if __name__ == "__main__":
    main()

"""Writes the pages of `docs/reference` and the transition tables in the frame's README from the code. `make docs` runs
it, and a test looks whether it was run.

python docs/tools/generate.py            write them
python docs/tools/generate.py --check    write nothing; exit 1 when a page is not what it would be now
"""

import re
import sys
from pathlib import Path

import events_page
import metrics_page
import options_page
from colo_frame import transitions

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"
MADE = "<!-- Made from the code by docs/tools/generate.py (`make docs`). Do not edit. -->\n\n"


def pages() -> dict[Path, str]:
    """Text by file."""
    services = ROOT / "services"
    texts = {
        "options.md": options_page.page(),
        "metrics.md": metrics_page.page(services),
        "events.md": events_page.page(services),
    }
    frame = services / "colo_frame" / "README.md"
    return {PAGES / name: MADE + text.rstrip() + "\n" for name, text in texts.items()} | {
        frame: tables(frame.read_text())
    }


def tables(text: str) -> str:
    """The README of the frame with the transition tables as they are now, each behind its mark."""
    for part in (*transitions.TABLES, "meanings"):
        lines = transitions.meanings() if part == "meanings" else transitions.as_lines(part)
        made = f"<!-- transitions: {part} -->\n\n" + "\n".join(lines) + "\n\n"
        mark = rf"<!-- transitions: {part} -->\n\n(\|.*\n)*\n*"
        text, found = re.subn(mark, made.replace("\\", r"\\"), text)
        if found != 1:
            raise SystemExit(f"services/colo_frame/README.md: one mark 'transitions: {part}' expected, not {found}")
    return text


def main(arguments: list[str]) -> int:
    """Write, or look."""
    made = pages()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(ROOT)}: not what the code says; `make docs` writes it anew", file=sys.stderr)
        return 1 if stale else 0
    PAGES.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(made[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Puts the repository's other documents into the site: MkDocs knows only what lies in its own folder.

A document `services/colo_frame/README.md` becomes the page `repository/services/colo_frame/README.md`, and links are
turned around accordingly. A link to a file that is no document (a script, a folder) becomes plain text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
OUTSIDE = ("*.md", "services/*/README.md", "compose/README.md", "tests/README.md")
PREFIX = "repository/"
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the documents from outside."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, PREFIX + name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_rest: Any) -> str:
    """Turn the links of one page around; what stands in fences stays."""
    here = page.file.src_uri
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    known = {one.src_uri for one in files}
    parts[::2] = [LINK.sub(lambda found: _turned(found, here, known), part) for part in parts[::2]]
    return "".join(parts)


def _turned(found: re.Match[str], here: str, known: set[str]) -> str:
    target = found["target"]
    if re.match(r"[a-z]+:", target) or target.startswith("#"):
        return found[0]
    path, sharp, anchor = target.partition("#")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(_in_repository(here)), path))
    there = _in_site(file)
    if there not in known:
        # One that leads nowhere stays, so that MkDocs complains.
        return found["text"] if (ROOT / file).exists() else found[0]
    relative = posixpath.relpath(there, posixpath.dirname(here) or ".")
    return f"{found['image']}[{found['text']}]({relative}{sharp}{anchor})"


def _in_repository(page: str) -> str:
    return page.removeprefix(PREFIX) if page.startswith(PREFIX) else "docs/" + page


def _in_site(path: str) -> str:
    return path.removeprefix("docs/") if path.startswith("docs/") else PREFIX + path

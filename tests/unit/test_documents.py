"""The documents: links lead somewhere, pages are found, and what is made from the code is what the code says now."""

import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import generate
import metrics_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = DOCS / "tools" / "mkdocs.yml"
SERVICES = ROOT / "services"
MADE = {"out", "dist", "build", "wheels"}
"""Folders at the top that hold nothing of the repository; so does what begins with a dot, but for these."""
DOTTED = {".ci", ".github"}
PAGES = sorted(DOCS.rglob("*.md"))
TOPS = [
    path for path in ROOT.iterdir()
    if path.is_dir() and (path.name in DOTTED or not (path.name.startswith(".") or path.name in MADE))
]  # fmt: skip
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(path for top in TOPS for path in top.rglob("*.md"))})

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(text: str) -> str:
    """Without fences: what looks like a heading or a link there is none."""
    return re.sub(r"^(```+).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(document: Path) -> frozenset[str]:
    """Anchors of a document's headings, as GitHub makes them: the second of a name ends in -1."""
    seen: Counter[str] = Counter()
    found = set()
    for line in re.findall(r"^#+ (.+)$", prose(document.read_text()), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return frozenset(found)


def targets(text: str) -> list[str]:
    """What links and pictures lead to."""
    text = re.sub(r"`[^`\n]*`", "", prose(text))
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    return inline + re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, flags=re.MULTILINE)


@each_document
def test_links_resolve(document):
    for target in targets(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        where = (document.parent / path).resolve() if path else document
        assert where.exists(), f"{target} leads nowhere"
        assert where.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor and where.suffix == ".md":
            assert anchor in anchors(where), f"{target}: no such heading"


@each_document
def test_modules_that_documents_run_exist(document):
    for module in re.findall(r"python3? (?:-P )?-m (colo_[\w.]+)", document.read_text()):
        path = SERVICES / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"there is no {module}"


def navigation() -> list[str]:
    """All pages that the site's menu names."""

    def leaves(node):
        if isinstance(node, str):
            return [node]
        return [leaf for one in (node.values() if isinstance(node, dict) else node) for leaf in leaves(one)]

    return leaves(yaml.safe_load(CONFIG.read_text())["nav"])


def test_every_page_is_in_the_menu_once():
    named = navigation()
    assert sorted(name for name in named if not name.startswith("repository/")) == sorted(
        page.relative_to(DOCS).as_posix() for page in PAGES
    )
    assert len(named) == len(set(named))
    for name in named:
        if name.startswith("repository/"):
            assert (ROOT / name.removeprefix("repository/")).is_file(), name


def test_every_manual_page_is_in_the_menu():
    named = set(navigation())
    pages = [path.relative_to(ROOT).as_posix() for path in SERVICES.glob("*/README.md")]
    assert [page for page in pages if f"repository/{page}" not in named] == []


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs mkdocs (pip install '.[docs]')")
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(CONFIG), "-d", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        assert not re.findall(r"""(?:<link[^>]*href|src)=["'](?:https?:)?//[^"']*""", page.read_text()), page.name


def test_the_reference_is_what_the_code_says():
    made = generate.pages()
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make docs` and commit docs/reference"
    assert set(generate.PAGES.iterdir()) == {path for path in made if path.parent == generate.PAGES}, (
        "what nothing makes"
    )


@pytest.mark.parametrize("folder", sorted(SERVICES.glob("colo_*")), ids=lambda folder: folder.name)
def test_everything_that_is_counted_is_in_a_readme(folder):
    """The other direction, that what a README lists is in the code, is looked at in `test_shape`."""
    rows = metrics_page.documented(folder) + metrics_page.documented(SERVICES / "colo_runtime")
    assert metrics_page.missing(metrics_page.counted(folder) | metrics_page.levels(folder), rows) == []


def test_what_the_library_counts_for_filters_is_in_their_readmes():
    counted = metrics_page.counted(ROOT / "proto")
    # The byte stream's are counted by the link as `wire_errors.REASON`, which names them.
    errors = {"empty", "runt", "giant", "vnet_hdr_len"}
    runtime = metrics_page.documented(SERVICES / "colo_runtime")
    meaning = next(row.meaning for row in runtime if row.name == "link.PORT.wire_errors.REASON")
    assert all(f"`{name}`" in meaning for name in errors & counted)
    for role in ("mirror", "redirector", "rewriter"):
        rows = metrics_page.documented(SERVICES / f"colo_{role}") + runtime
        assert metrics_page.missing(counted - errors, rows) == []


def test_every_alert_is_explained():
    rules = yaml.safe_load((ROOT / "compose" / "observability" / "alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^\| `(Colo\w+)` \|", (DOCS / "operations.md").read_text(), flags=re.MULTILINE)) == alerts


def test_the_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 105


def test_every_invariant_has_its_line():
    rows = re.findall(r"^\| \*\*([SLE]\d)\*\* ", (DOCS / "design.md").read_text(), flags=re.MULTILINE)
    assert rows == ["S1", "S2", "S3", "S4", "S5", "S6", "L1", "L2", "L3", "E1", "E2"]

"""Builds the documentation as a site, without a network: `make docs` calls it.

    python docs/build_site.py [--output site]

A page may link to anything in the repository by its path there, so that links work on a code host too. For the site
all pages are copied into one folder: those of ``docs/`` to its top, others under their own path. Links are rewritten to
match. A link to a file of code leads to a page that shows it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from posixpath import normpath, relpath

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build/site_pages"
STYLE = "docs/site.css"
PAGES = ("docs/**/*.md", "results/*.md", "models/**/*.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
LANGUAGES = {".py": "python", ".sh": "sh", ".yaml": "yaml", "": "docker"}
"""Files that get a page which shows them; others are copied as they are."""
HOME = "docs/index.md"
NO_SIDE_BAR = "---\nhide: [navigation]\n---\n\n"
"""Before the home page, whose side bar would name that page alone."""


def place_of(path: str) -> str:
    """Where a file of the repository lies among the site's pages."""
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    return f"files/{path}.md" if Path(path).suffix in LANGUAGES else path.removeprefix("docs/")


def outside_fences(text: str) -> list[tuple[str, bool]]:
    """Lines of a Markdown text, each with whether it is text and not within a fence."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = line.lstrip().startswith("```")
        lines.append((line, not inside and not fence))
        inside ^= fence
    return lines


def staged(path: str, wanted: set[str]) -> str:
    """A page's text with its links rewritten; adds to `wanted` what they lead to."""
    place = place_of(path)

    def rewritten(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or ":" in target:
            return match[0]
        target = normpath(os.path.join(os.path.dirname(path), target))
        wanted.add(target)
        found = relpath(place_of(target), os.path.dirname(place) or ".")
        return f"{match[1]}{found}{'#' + anchor if anchor else ''}{match[3]}"

    text = (ROOT / path).read_text(encoding="utf-8")
    lines = [LINK.sub(rewritten, line) if is_text else line for line, is_text in outside_fences(text)]
    return (NO_SIDE_BAR if path == HOME else "") + "\n".join(lines) + "\n"


def shown(path: str) -> str:
    """A page that shows a file of code, or lists a folder."""
    source = ROOT / path
    if source.is_dir():
        names = sorted(p.name for p in source.iterdir() if not p.name.startswith("__"))
        places = [relpath(place_of(f"{path}/{name}"), f"files/{path}") for name in names]
        return f"# {path}/\n\n" + "".join(f"- [{n}]({p})\n" for n, p in zip(names, places, strict=True))
    language = LANGUAGES[source.suffix]
    return f"# {path}\n\n````{language}\n{source.read_text(encoding='utf-8')}````\n"


def stage() -> None:
    """Write all pages, and what they link to, into one folder.

    Raises:
        FileNotFoundError: a link leads nowhere.
    """
    shutil.rmtree(STAGE, ignore_errors=True)
    pages = [path.relative_to(ROOT).as_posix() for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    wanted: set[str] = {STYLE}
    for path in pages:
        _write(place_of(path), staged(path, wanted).encode())
    done = set(pages)
    while todo := wanted - done:
        for path in sorted(todo):
            source, place = ROOT / path, place_of(path)
            if source.is_dir():
                wanted |= {f"{path}/{p.name}" for p in source.iterdir() if not p.name.startswith("__")}
            if place.startswith("files/"):
                _write(place, shown(path).encode())
            elif source.is_file():
                _write(place, source.read_bytes())
            else:
                raise FileNotFoundError(f"a page links to {path}, which is not there")
        done |= todo


def _write(place: str, content: bytes) -> None:
    (STAGE / place).parent.mkdir(parents=True, exist_ok=True)
    (STAGE / place).write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="site", type=Path, help="folder to write (default: site)")
    options = parser.parse_args()
    stage()
    output = options.output.resolve()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(output)]
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode
    if code == 0:
        print(f"open {output}/index.html; for its search: python -m http.server --directory {output}")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""`bnnlight configs`: the configs that come with the package, and where they lie."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from bnnlight.console.parser import Parser
from bnnlight.console.shipped_configs import find_config, shipped_configs


def configs(args: list[str]) -> None:
    """List the configs that come with bnnlight, or print the path of some.

    Every option --config takes such a name in place of a file: an experiment's, followed by those of methods/ and
    optimizers/, which change it. `bnnlight matrix` takes one of matrix/. A file of that name takes precedence.
    """
    parser = Parser(
        "bnnlight configs",
        description=configs.__doc__,
        epilog='example: bnnlight configs quickstart; cp "$(bnnlight configs quickstart)" mine.yaml',
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="config whose path to print; without it, all are listed"
    )
    names = parser.parse_args(args).names
    for path in [find_config(name) for name in names]:
        print(Path(path).absolute())
    if names:
        return
    shipped = shipped_configs()
    width = max(map(len, shipped), default=0)
    for name, path in shipped.items():
        print(f"{name:<{width}}  {title(path)}")


def title(path: Path) -> str:
    """What a config's comment says first, in one line of a terminal."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text:
            break
        words.append(text)
    sentence = re.split(r"(?<=[.?])\s", " ".join(words))[0]
    return textwrap.shorten(sentence, 90, placeholder=" …")

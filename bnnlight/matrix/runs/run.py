"""The runs of a matrix: where each lies, how it is started, and what it was asked for."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bnnlight.matrix.plan.axis import in_place
from bnnlight.matrix.plan.plan import Plan
from bnnlight.matrix.plan.reading import OWN_OPTIONS, Options, nearest, short
from bnnlight.matrix.plan.rows import Method
from bnnlight.matrix.runs.files import write_text

FILE_NAME = "run.json"
LOG_NAME = "log.txt"

_FREE = ("data.root", "data.lsp_root", "data.lspet_root", "data.num_workers", "data.download", "num_threads")
"""Options that say where or how fast, and not what: a run may be taken that was made with others."""

_SINCE = {"model.backbone.latent.products": "float32"}
"""Options that are younger than some ledgers → what runs were made with that do not name them."""

_SWAPPED = ("model.optimizer", "model.scheduler")
"""Options whose class leaves nothing of the one that it replaces, but what an option of its own has set."""

_MAX_BYTES = 255
"""Of a folder's name, on the usual file systems."""

_QUIET = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}


@dataclass(frozen=True)
class Run:
    """One `bnnlight fit`.

    Attributes:
        method: its name in the plan.
        value: of the searched option; None where nothing is searched.
        seed: of the run.
        is_search: whether it is there to choose the value, and so does not look at the test data.
        folder: the run's directory.
        configs: its ``--config`` files, in order.
        options: all others but those of the matrix itself.
    """

    method: str
    value: float | None
    seed: int
    is_search: bool
    folder: Path
    configs: tuple[Path, ...]
    options: Options

    @property
    def name(self) -> str:
        """Of the run within its matrix: the last two parts of its folder."""
        return "/".join(self.folder.parts[-2:])

    @property
    def title(self) -> str:
        """For one line on the terminal."""
        parts = [self.method, *([f"at {self.value:g}"] if self.value is not None else []), f"seed {self.seed}"]
        return ", ".join([*parts, *(["search"] if self.is_search else [])])

    def key(self, metric: str) -> str:
        """Of its figure in ``results.json``."""
        return f"best val/{metric}" if self.is_search else f"test/{metric}"

    def args(self) -> list[str]:
        """The command line behind ``fit``, without directory and ``--resume``."""
        options = {**_QUIET, **self.options, "seed_everything": self.seed, "test_after_fit": not self.is_search}
        configs = [f"--config={config}" for config in self.configs]
        return [*configs, *(f"--{name}={_as_text(value)}" for name, value in options.items())]

    def asked(self) -> dict[str, Any]:
        """Configs and options as one flat table, the later ones in front: what makes another run of it."""
        table: dict[str, Any] = {}
        typed: set[str] = set()
        for config in self.configs:
            table = _with(table, _flat(yaml.safe_load(config.read_text(encoding="utf-8")) or {}), typed)
        for name, value in self.options.items():
            part = _flat(value, name)
            table = _with(table, part, typed)
            if short(name) not in _SWAPPED:
                typed |= part.keys()
        table["seed_everything"] = self.seed
        fixed = {key: value for key, value in table.items() if key not in _FREE}
        return json.loads(json.dumps(fixed, default=str))  # as it will be read again

    def record(self) -> dict[str, Any] | None:
        """What is kept of the run: its ``run.json``, with its ``results.json`` as ``results`` if it is done.

        Returns:
            None where it was not begun.

        Raises:
            ValueError: the run in its folder was asked for something else; the message names it.
        """
        try:
            saved = json.loads((self.folder / FILE_NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if (self.folder / "config.yaml").exists():
                raise ValueError(
                    f"{self.folder} holds a run that `bnnlight matrix` did not make: choose another --runs"
                ) from None
            return None
        except ValueError:
            raise ValueError(f"{self.folder / FILE_NAME}: not valid JSON: remove the run's folder") from None
        self.check(saved.get("asked", {}), f"the run in {self.folder}", "remove that folder, or choose another --runs")
        done = self.folder / "results.json"
        return saved | ({"results": json.loads(done.read_text(encoding="utf-8"))} if done.exists() else {})

    def keep(self, record: Mapping[str, Any]) -> None:
        """Writes ``run.json``."""
        saved = {key: value for key, value in record.items() if key != "results"}
        write_text(self.folder / FILE_NAME, json.dumps(saved, indent=2, ensure_ascii=False) + "\n")

    def check(self, before: Mapping[str, Any], what: str, way_out: str) -> None:
        """
        Args:
            before: what another run was asked for; see :meth:`asked`.
            what: that other run, for the message.
            way_out: what to do if it is not to be taken for this one.

        Raises:
            ValueError: it is another run; with the first option that differs.
        """
        before, now = _SINCE | dict(before), _SINCE | self.asked()
        changed = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
        if changed:
            key, others = changed[0], f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            difference = f"{key}: {_show(before.get(key))} -> {_show(now.get(key))}{others}"
            raise ValueError(
                f"{self.title}: {what} was made with other options ({difference}): put them back, {way_out}"
            )


def is_done(record: Mapping[str, Any] | None) -> bool:
    """Whether a run has its results; a diverged search run is one too, and has none."""
    return record is not None and ("results" in record or "diverged" in record)


def search_runs(plan: Plan, method: Method, folder: Path, extra: Options) -> Iterator[Run]:
    """The runs that choose a method's value; none where it takes another method's, or there is but one.

    Args:
        plan: of the matrix.
        method: of the plan.
        folder: of all runs.
        extra: options handed on to every run.
    """
    search = method.search
    if search is None or len(search.values) == 1 or method.rate_of != method.name:
        return
    for seed in search.seeds:
        for value in search.values:
            options = _options(plan, method) | search.options | {search.option: value} | extra
            place = folder / slug(method.name) / f"search_{_named(search.option, value)}_seed{seed}"
            yield Run(method.name, value, seed, True, place, _configs(plan, method), options)


def final_runs(plan: Plan, method: Method, value: float | None, folder: Path, extra: Options) -> Iterator[Run]:
    """The runs whose test figures stand in the table."""
    for seed in method.seeds:
        options, name = _options(plan, method), f"seed{seed}"
        if method.search is not None:
            options, name = options | {method.search.option: value}, f"{_named(method.search.option, value)}_{name}"
        place = folder / slug(method.name) / name
        yield Run(method.name, value, seed, False, place, _configs(plan, method), options | extra)


def _configs(plan: Plan, method: Method) -> tuple[Path, ...]:
    return (*plan.configs, *method.configs, *(method.optimizer.configs if method.optimizer else ()))


def _options(plan: Plan, method: Method) -> Options:
    searched = method.search.option if method.search else None
    return in_place(plan.options | method.options, method.optimizer, searched)


def handed_on(words: Sequence[str]) -> Options:
    """Options of a command line, ``--name=value`` or ``--name value``.

    Raises:
        ValueError: a word is not an option, or one that the matrix gives itself.
    """
    options, rest = {}, list(words)
    while rest:
        name, is_joined, value = rest.pop(0).partition("=")
        if not name.startswith("--") or not (is_joined or rest):
            raise ValueError(f"after --, {name!r} is not of the form --name=value")
        name = name.removeprefix("--")
        if name in (*OWN_OPTIONS, "config"):
            raise ValueError(f"after --: --{name} is given to every run by the matrix itself")
        options[name] = yaml.safe_load(value if is_joined else rest.pop(0))
    return options


def slug(name: str) -> str:
    """A method's name as that of a folder: "Tucker, rank ½" is ``tucker-rank-1-2``."""
    plain = unicodedata.normalize("NFKD", name.lower())
    words = "".join(c if c.isalnum() else " " for c in plain if not unicodedata.combining(c)).split()
    return "-".join(words) or "method"


def check_folders(plan: Plan) -> None:
    """
    Raises:
        ValueError: two rows' names give one folder, or one is too long for a folder's name.
    """
    owners: dict[str, str] = {}
    for name in plan.methods:
        length = len(slug(name).encode())
        if length > _MAX_BYTES:
            raise ValueError(f"{plan.path}: {name!r} gives a folder's name of {length} bytes: at most {_MAX_BYTES}")
        other = owners.setdefault(slug(name), name)
        if other != name:
            raise ValueError(f"{plan.path}: methods {other!r} and {name!r} differ in signs alone: rename one")


def find_methods(plan: Plan, names: Sequence[str]) -> list[str]:
    """The rows that are named, those of an optimizer by its name; all of them where none is.

    Raises:
        ValueError: one is not in the plan; with the nearest that is.
    """
    optimizers = [optimizer.name for optimizer in plan.optimizers]
    for name in names:
        if name not in plan.methods and name not in optimizers:
            what = "rows and optimizers" if optimizers else "methods"
            raise ValueError(f"--only: {name!r} is not among the {what}{nearest(name, [*plan.methods, *optimizers])}")
    return [
        name
        for name, method in plan.methods.items()
        if not names or name in names or (method.optimizer and method.optimizer.name in names)
    ]


def _named(option: str, value: float | None) -> str:
    return f"{option.rsplit('.', 1)[-1]}{value:g}"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        parts = ((f"{prefix}.{name}" if prefix else str(name), part) for name, part in value.items())
        return {key: v for name, part in parts for key, v in _flat(part, name).items()}
    return {short(prefix): value}


def _with(base: dict[str, Any], part: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """A flat table with a further config or option in front, as `bnnlight fit` puts them together."""
    for owner in _SWAPPED:
        before, now = (table.get(f"{owner}.class_path", table.get(owner)) for table in (base, part))
        if before is not None and now is not None and before != now:
            gone = {key for key in base if key == owner or key.startswith(f"{owner}.")}.difference(typed)
            base = {key: value for key, value in base.items() if key not in gone}
    return base | part


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

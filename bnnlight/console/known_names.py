"""The names that there are: of classes, of their options, of what has moved; and the nearest to one that is wrong."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Any

_ROOMS_OF_DATA = {
    "classes": "digits folders image_folder splits vision",
    "keypoints": "heatmaps lsp mpii mpii_heads mpii_json mpii_release people pictures",
    "loading": "bad_images by_value checking files sampling train_loader transforms worker_signals",
}
_ROOMS_OF_NN = {
    "compute": "binary_conv conv_gradients integer_conv lean patches product relaxed rounding sync_norm",
    "latents": "cp hadamard holistic latent matrix rank rotated tensor_train tucker unfolding",
}
_MOVED = {
    **{f"bnnlight.data.{n}": (f"bnnlight.data.{r}.{n}",) for r, names in _ROOMS_OF_DATA.items() for n in names.split()},
    **{f"bnnlight.nn.{n}": (f"bnnlight.nn.{r}.{n}",) for r, names in _ROOMS_OF_NN.items() for n in names.split()},
    "bnnlight.callbacks.stages": ("bnnlight.callbacks.schedules.stages",),
    "bnnlight.data.loaders": ("bnnlight.data.loading.loaders", "bnnlight.data.classes.data_module"),
    "bnnlight.data.pose": ("bnnlight.data.keypoints.person", "bnnlight.data.keypoints.data_module"),
    "bnnlight.data.pose_checks": ("bnnlight.data.keypoints.checks",),
    "bnnlight.data.pose_files": ("bnnlight.data.keypoints.annotations",),
    "bnnlight.data.pose_transforms": ("bnnlight.data.keypoints.transforms",),
    "bnnlight.commands.checkpoint_io": ("bnnlight.experiment.checkpoint_io",),
    "bnnlight.commands.processes": ("bnnlight.experiment.processes",),
}
"""Classes and modules that configs, and classes of one's own, of earlier versions name → where they are now."""

OWN_GROUPS = (
    *("model", "data", "trainer", "seed_everything", "checkpoint", "last_checkpoint", "non_finite"),
    *("flip_rates", "factor_ranks", "alphas", "activations", "step_time", "pictures", "bad_images"),
    *("lr_monitor", "progress", "heartbeat"),
)
"""What stands at the top of a config."""


def nearest(name: str, names: Iterable[str], silent: bool = False) -> str:
    """What to say of a name that there is none of: ``": did you mean …?"``.

    Args:
        name: as it was given; of a path its last part counts.
        names: that there are, or name → what to write.
        silent: without anything near, say nothing; else all names are listed where they are 20 or fewer.
    """
    table = names if isinstance(names, dict) else {k: k for k in names}
    short = name.split(".")[-1]
    lower = {k.lower(): k for k in table}
    near = get_close_matches(short.lower(), lower, 3, cutoff=0.6)
    if near:
        # of several that are as near the first by name: max_epochs before min_epochs
        best = min(near, key=lambda one: (-SequenceMatcher(None, one, short.lower()).ratio(), one))
        return f": did you mean {table[lower[best]]}?"
    if silent or not table:
        return ""
    return f": it has {', '.join(sorted(table))}" if len(table) <= 20 else ""


def options_of(owner: str | None) -> list[str]:
    """Names of a class's options, following **options into the parent class."""
    if owner is None:
        return list(OWN_GROUPS)
    target = find_object(owner)
    if target is None:
        return []
    names: list[str] = []
    for cls in inspect.getmro(target) if inspect.isclass(target) else (target,):
        parameters = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls).parameters.values()
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def moved(name: str) -> str | None:
    """Where a class or a module of an earlier version is now; None where it has not moved, or is not there any more.

    A class that its folder names is told by this shorter path, which stays.
    """
    if name in _MOVED:
        return " and ".join(_MOVED[name])
    module, _, last = name.rpartition(".")
    if module not in _MOVED:
        return None
    places = [f"{place}.{last}" for place in (module.rpartition(".")[0], *_MOVED[module])]
    return next((place for place in places if find_object(place) is not None), None)


def find_object(name: str) -> Any:
    """What an import path names; None where it cannot be imported, as a hint must not hide the error it is for."""
    try:
        module, _, name = name.rpartition(".")
        return getattr(importlib.import_module(module), name)
    except Exception:
        return None


def trainer_options() -> list[str]:
    try:
        import lightning as L
    except ModuleNotFoundError:  # where models are only run; a hint must not hide the error it is for
        return []
    return [*inspect.signature(L.Trainer.__init__).parameters, *options_of(None), "config", "run_dir", "ckpt_path"]


def public_names(module: str) -> list[str]:
    try:
        namespace = importlib.import_module(module)
    except Exception:
        return []
    return [n for n in getattr(namespace, "__all__", dir(namespace)) if n[:1].isupper()]


def class_names() -> dict[str, str]:
    modules = ("nn", "optim", "backbones", "data", "tasks", "callbacks")
    names = {n: f"bnnlight.{m}.{n}" for m in modules for n in public_names(f"bnnlight.{m}")}
    return names | {n: f"torch.optim.{n}" for n in public_names("torch.optim")}

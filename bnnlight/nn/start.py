"""`start_from`: starts a binary network from the weights of a trained one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnnlight.nn.factorize import factorize, restart_alpha, sharing, trains
from bnnlight.nn.inspect import first_few
from bnnlight.nn.latents.latent import Dense, LatentFactory
from bnnlight.nn.layers import BinaryLayer

BACKBONE = "backbone."
"""What the names of a network's weights begin with in a checkpoint of ``bnnlight fit``."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What may stand in front of all names: by DDP, ``torch.compile``, and Lightning modules of one's own."""
CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
"""Names under which files hold the weights: Lightning's and mmpose's first, then those of other training scripts."""

_OPTIONAL = ("scale.", "weight_parts.", "input_parts.")
"""What of a binary layer starts anew where a checkpoint has it not, or has another kind."""

_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)


@contextlib.contextmanager
def weights_follow() -> Iterator[None]:
    """Within it :func:`start_from` reads no file: the weights will come from a checkpoint of the network itself.

    Thus a trained network can be measured and exported where the file that it was started from is missing.
    """
    token = _follow.set(True)
    try:
        yield
    finally:
        _follow.reset(token)


@torch.no_grad()
def start_from(
    model: nn.Module, checkpoint: str, latent: LatentFactory | None = Dense, leave_out: Sequence[str] = ()
) -> nn.Module:
    """Puts the weights of a trained network into a binary one, and decomposes those that become binary, in place.

    The checkpoint is of the same network made real-valued (:func:`bnnlight.nn.real_valued`), or of the same binary
    network with dense latents. Real weights, batch norms, PReLUs, biases and heads are copied; α is copied too where
    the checkpoint has one of the same kind, else it is reset (:func:`bnnlight.nn.restart_alpha`). The same goes for the
    numbers of parts (:mod:`bnnlight.nn.parts`). What is frozen stays frozen, and weights that layers share stay shared.
    Then the network in the stage ``real`` (:func:`bnnlight.nn.set_stage`) computes what the real-valued one did, at
    full rank and without parts. In a config the function stands where a class would::

        backbone:
          class_path: bnnlight.nn.start_from
          init_args:
            model: {class_path: bnnlight.backbones.ResNet18}
            checkpoint: runs/real/20260101-120000/checkpoints/best.ckpt
            latent: {class_path: bnnlight.nn.Tucker, init_args: {rank: 0.5}}

    For other classes or joints than those of the checkpoint, ``leave_out`` names the parts to train from scratch:
    ``leave_out: [classifier]``. To keep the factors of a checkpoint, give the model its latents and
    ``latent: null``.

    ``fit`` needs the file, also when a run is resumed.
    The other verbs take all weights from the run's own checkpoint and read no other.

    Args:
        model: any module with binary layers; its latents are replaced, unless ``latent`` is None.
        checkpoint: path of a checkpoint of ``bnnlight fit``, of a ``state_dict`` of the network, or of a dictionary
            with one under a name of :data:`CONTAINERS`; ``module.`` or ``_orig_mod.`` may precede all names.
        latent: maps a dense weight ``(O, I, *kernel)`` to a latent. None keeps the model's own latents, and fills them
            with those of the checkpoint, which must be of the same kind and ranks.
        leave_out: parts of the network that keep their present weights: paths of modules, or shell patterns of
            names, such as ``heads.*``. Entries of the checkpoint under these names are ignored.

    Returns:
        The same model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint, its latents are factorized, or names or shapes are not those of the
            network (the first few are named); a part to leave out is not there; or what
            :func:`bnnlight.nn.factorize` raises.
    """
    # a layer may be used in several places, and have a name in each
    paths = {
        f"{name}." if name else "": layer
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, BinaryLayer)
    }
    if not paths:
        raise ValueError(f"{type(model).__name__} has no binary layer to start")
    left_out = _left_out(model, leave_out)
    if _follow.get():
        return model if latent is None else restart_alpha(factorize(model, latent))
    own = model.state_dict()
    state = {name: value for name, value in _read_weights(checkpoint, own).items() if not left_out(name)}
    own = {name: value for name, value in own.items() if not left_out(name)}
    if not own:
        raise ValueError(
            f"leave_out leaves nothing of {type(model).__name__} to start from {checkpoint}: name fewer parts"
        )
    paths = {path: layer for path, layer in paths.items() if not left_out(f"{path}latent.")}
    if latent is None:
        return _go_on(model, state, own, paths, checkpoint)
    weights = {path: _take_weight(state, path, checkpoint) for path in paths}
    alphas = _take_alphas(state, own, paths)
    rest = {name: value for name, value in own.items() if not _belongs(name, paths, "latent.", *_OPTIONAL)}
    expected = {name: value.shape for name, value in rest.items()}
    expected |= {f"{path}weight": layer.weight_shape for path, layer in paths.items()}
    expected |= {name: own[name].shape for name in alphas}
    loaded = state | alphas | {f"{path}weight": weight for path, weight in weights.items() if weight is not None}
    _check(expected, loaded, type(model).__name__, checkpoint)
    groups = sharing(paths.items())
    for (first, _), (path, _) in ((group[0], sharer) for group in groups for sharer in group[1:]):
        if not torch.equal(weights[first], weights[path]):
            names = f"{first}weight and {path}weight"
            raise ValueError(f"{checkpoint} has different {names}, which are one in {type(model).__name__}")
    for group in groups:
        path, layer = group[0]
        like = next(layer.latent.parameters())
        dense = Dense(weights[path].to(like)).requires_grad_(trains(path.removesuffix("."), layer))
        for _, sharer in group:
            sharer.latent = dense.train(sharer.training)
    restart_alpha(factorize(model, latent))
    model.load_state_dict({name: loaded[name] for name in (*rest, *alphas)}, strict=False)
    return model


def _go_on(
    model: nn.Module, state: dict[str, Tensor], own: dict[str, Tensor], paths: Collection[str], checkpoint: str
) -> nn.Module:
    """Fills a model with latents of its own, from a checkpoint with the same."""
    dense = [f"{path}weight" for path in paths if f"{path}weight" in state and f"{path}weight" not in own]
    if dense:
        raise ValueError(
            f"{checkpoint} has real-valued {first_few(dense)}, where {type(model).__name__} has latents: "
            "name the latent that they are decomposed by"
        )
    alphas = _take_alphas(state, own, paths)
    kept = {name: value for name, value in own.items() if name in alphas or not _belongs(name, paths, *_OPTIONAL)}
    _check_latents(kept, state | alphas, paths, type(model).__name__, checkpoint)
    _check({name: value.shape for name, value in kept.items()}, state | alphas, type(model).__name__, checkpoint)
    model.load_state_dict(state, strict=False)
    restart_alpha(model)
    model.load_state_dict(alphas, strict=False)
    return model


def _check_latents(
    own: dict[str, Tensor], state: dict[str, Tensor], paths: Collection[str], network: str, checkpoint: str
) -> None:
    """Tells where two networks are the same but for their latents, whose entries by themselves explain little."""
    ours, theirs = (
        {name: value.shape for name, value in some.items() if _belongs(name, paths, "latent.")} for some in (own, state)
    )
    if ours == theirs or any(
        name not in state or state[name].shape != value.shape for name, value in own.items() if name not in ours
    ):
        return
    path = next(
        path for path in paths if any(ours.get(n) != theirs.get(n) for n in ours | theirs if n.startswith(path))
    )
    kinds = [
        ", ".join(f"{name.removeprefix(path)} {_size(shape)}" for name, shape in some.items() if name.startswith(path))
        for some in (theirs, ours)
    ]
    raise ValueError(
        f"{checkpoint} has other latents than this {network}: at {path.removesuffix('.') or 'the network itself'} "
        f"{kinds[0] or 'none'} instead of {kinds[1]}; give the model the latent and rank of the checkpoint's config"
    )


def _left_out(model: nn.Module, parts: Sequence[str]) -> Callable[[str], bool]:
    """Tells whether an entry of a ``state_dict`` belongs to parts of a network that start anew."""
    if isinstance(parts, str):
        raise ValueError(f"leave_out is {parts!r}: give a list, [{parts}]")

    def within(part: str, name: str) -> bool:
        return name.startswith(f"{part}.") or fnmatchcase(name, part)

    names = list(model.state_dict())
    for part in parts:
        if not any(within(part, name) for name in names):
            there = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ValueError(f"leave_out has {part}, which {type(model).__name__} does not have: its parts are {there}")
    return lambda name: any(within(part, name) for part in parts)


def _read_weights(path: str, own: Collection[str]) -> dict[str, Tensor]:
    """What a file has for a network with entries of those names."""
    file = Path(path).expanduser()
    if not file.is_file():
        text = "fit needs it to begin a run and to go on with one; the other verbs do without"
        raise FileNotFoundError(f"checkpoint to start from not found: {path} ({text})")
    try:
        state = _inside(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        raise ValueError(f"{path} is not a checkpoint to start from, or is damaged") from error
    if state is None:
        raise ValueError(f"{path} is not a checkpoint to start from: it holds no network's weights")
    return _named_as(_named_as(state, own), own)


def _inside(content: Any) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    return next((state for name in CONTAINERS if (state := _inside(content.get(name))) is not None), None)


def _named_as(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The state without what other programs put in front of its names; a network may have such names itself."""
    for prefix in (*WRAPPERS, BACKBONE, *WRAPPERS):
        theirs = [name for name in state if name.startswith(prefix)]
        # a task has other entries beside its network's; a wrapper is in front of all
        if (
            theirs
            and not any(name.startswith(prefix) for name in own)
            and (prefix == BACKBONE or len(theirs) == len(state))
        ):
            state = {name.removeprefix(prefix): state[name] for name in theirs}
    return state


def _take_weight(state: dict[str, Tensor], path: str, checkpoint: str) -> Tensor | None:
    """Takes one layer's weight out of a state, real-valued or of a dense latent; None where there is none."""
    latents = [name for name in state if name.startswith(f"{path}latent.")]
    if set(latents) - {f"{path}latent.weight"}:
        raise ValueError(
            f"{checkpoint} has factorized latents (first {latents[0]}): start from a checkpoint of the real-valued "
            "network or of one with dense latents; to go on with these, give the model the same ones and latent: null"
        )
    names = [*latents, f"{path}weight"]
    return next((state.pop(name) for name in names if name in state), None)


def _take_alphas(state: dict[str, Tensor], own: dict[str, Tensor], paths: Collection[str]) -> dict[str, Tensor]:
    """Takes all α and what parts have out of a state; returns those of the kind that the network has."""
    alphas: dict[str, Tensor] = {}
    for path, kind in itertools.product(paths, _OPTIONAL):
        mine = {name for name in own if name.startswith(f"{path}{kind}")}
        theirs = {name: state.pop(name) for name in list(state) if name.startswith(f"{path}{kind}")}
        alphas |= theirs if theirs.keys() == mine else {}
    return alphas


def _belongs(name: str, paths: Collection[str], *parts: str) -> bool:
    return any(name.startswith(f"{path}{part}") for path in paths for part in parts)


def _check(expected: dict[str, torch.Size], loaded: dict[str, Tensor], network: str, checkpoint: str) -> None:
    lacking = [name for name in expected if name not in loaded]
    unknown = [name for name in loaded if name not in expected]
    resized = [name for name, shape in expected.items() if name in loaded and loaded[name].shape != shape]
    sizes = [f"{name} {_size(loaded[name].shape)} instead of {_size(expected[name])}" for name in resized]
    kinds = (("it lacks", lacking), ("it also has", unknown), ("different sizes:", sizes))
    parts = [f"{what} {first_few(names)}" for what, names in kinds if names]
    if not parts:
        return
    advice = ""
    if len(resized) + len(lacking) + len(unknown) < len(expected) / 2:
        heads = sorted({name.rpartition(".")[0] or name for name in (*resized, *lacking) if name in expected})
        advice = f"; to train these parts from scratch: leave_out: [{', '.join(heads)}]" if 0 < len(heads) <= 4 else ""
    raise ValueError(f"{checkpoint} holds a different network from this {network}: {'; '.join(parts)}{advice}")


def _size(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "()"

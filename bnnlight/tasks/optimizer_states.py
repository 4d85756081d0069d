"""Saves and loads states of optimizers by the names of their parameters; also states without such names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnnlight.optim.groups import parameter_groups

_REMEDY = "go on with the config and seed that the run began with"


def with_names(state: dict[str, Any], groups: Sequence[dict[str, Any]], named: dict[str, nn.Parameter]) -> None:
    """Writes ``param_names`` and ``param_shapes`` into the groups of a state.

    Args:
        state: what ``Optimizer.state_dict`` returned.
        groups: of the optimizer.
        named: all parameters that may be in them.
    """
    names = {id(parameter): name for name, parameter in named.items()}
    for saved, group in zip(state["param_groups"], groups, strict=True):
        saved["param_names"] = [names[id(p)] for p in group["params"]]
        saved["param_shapes"] = [list(p.shape) for p in group["params"]]


def fitting_groups(
    state: dict[str, Any], model: nn.Module, alpha_lr: float, named: dict[str, nn.Parameter]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A state as torch loads it, and the groups that it is for.

    Args:
        state: with names, or from before they were saved.
        model: the network.
        alpha_lr: learning rate of α relative to the optimizer's.
        named: all parameters that the state may be for.

    Raises:
        ValueError: it is for other parameters, or it cannot be told which they are.
    """
    if not all("param_names" in group for group in state["param_groups"]):
        state, _ = renew_state(state, model, alpha_lr)
    plain, groups = [], []
    for saved in state["param_groups"]:
        options = {key: value for key, value in saved.items() if key not in ("param_names", "param_shapes")}
        params = []
        for name, shape in zip(saved["param_names"], saved["param_shapes"], strict=True):
            if name not in named:
                raise ValueError(f"the checkpoint's optimizer is of another network: this one has no {name}; {_REMEDY}")
            if list(named[name].shape) != list(shape):
                theirs, ours = ("×".join(map(str, size)) or "()" for size in (shape, named[name].shape))
                raise ValueError(
                    f"the checkpoint's optimizer is of another network: {name} is {theirs} there and {ours} here; "
                    + _REMEDY
                )
            params.append(named[name])
        plain.append(options)
        groups.append(options | {"params": params})
    return {**state, "param_groups": plain}, groups


def renew_checkpoint(checkpoint: dict[str, Any], model: nn.Module, alpha_lr: float) -> None:
    """Gives a checkpoint from before names were saved today's groups, in optimizer and schedule, in place.

    If that cannot be done for sure, the checkpoint stays as it is, and its optimizer's state is refused on loading.
    """
    for index, state in enumerate(checkpoint.get("optimizer_states", [])):
        if all("param_names" in group for group in state["param_groups"]):
            continue
        try:
            state, sources = renew_state(state, model, alpha_lr, _begins_alike(checkpoint))
        except ValueError:
            continue
        num_old = len(checkpoint["optimizer_states"][index]["param_groups"])
        checkpoint["optimizer_states"][index] = state
        for schedule in checkpoint.get("lr_schedulers", []):
            _regroup(schedule, num_old, sources)


def _regroup(schedule: dict[str, Any], num_old: int, sources: Sequence[int]) -> None:
    for key, value in schedule.items():
        if isinstance(value, list) and all(isinstance(inner, dict) for inner in value):  # of schedules within
            for inner in value:
                _regroup(inner, num_old, sources)
        elif isinstance(value, list) and len(value) == num_old:
            schedule[key] = [value[source] for source in sources]


def _begins_alike(checkpoint: dict[str, Any]) -> bool:
    """Whether the run of a checkpoint began with the seed of this one: a state of torch's generator holds it."""
    try:
        generator = torch.Generator().set_state(checkpoint["processes"][0]["random"]["torch"].cpu())
    except (KeyError, IndexError):  # of a run that saved no such states
        return False
    return generator.initial_seed() == torch.initial_seed()


def renew_state(
    state: dict[str, Any], model: nn.Module, alpha_lr: float, same_start: bool = False
) -> tuple[dict[str, Any], list[int]]:
    """The state of an optimizer whose factors were grouped by rate, as ``latent@RATE``, in today's groups.

    Which factor had which rate is not in the state. It is known where names, order and sizes of the groups and the
    shapes of all moments leave one possibility; or where they are those of this network, made from the same start.

    Args:
        state: what ``Optimizer.state_dict`` returned, without names.
        model: the network.
        alpha_lr: learning rate of α relative to the optimizer's.
        same_start: whether the network began with the weights of the one that the state is of.

    Returns:
        The state with names, and for each of its groups the old one from which its options are.

    Raises:
        ValueError: the state's parameters are others, or cannot be identified.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    saved = state["param_groups"]
    shapes = [[_shape(state["state"].get(index, {})) for index in group["params"]] for group in saved]
    groups = [(str(group.get("name")), shape) for group, shape in zip(saved, shapes, strict=True)]
    assigned = _by_shape(groups, named, model)
    if assigned is None and same_start:
        assigned = _as_made(groups, named, model)
    if assigned is None:
        raise ValueError(
            "the checkpoint's optimizer is from before groups were named by layer, and it cannot be told which "
            f"of its moments belong to which of these weights; {_REMEDY}"
        )
    source = {name: number for number, names in enumerate(assigned) for name in names}
    index_of = {
        n: i for group, names in zip(saved, assigned, strict=True) for n, i in zip(names, group["params"], strict=True)
    }
    base = next((g for g in saved if g.get("name") in ("weight", "norm")), None)
    renewed, sources = [], []
    for group in parameter_groups(model, alpha_lr):
        number = source[group.parameter_names[0]]
        old = saved[number]
        rate = float(old["name"].partition("@")[2] or group.lr_scale)
        if group.name == "latent" and base:  # a rate that the optimizer itself has set
            rate = float(old.get("initial_lr", old["lr"])) / (float(base.get("initial_lr", base["lr"])) or 1.0)
        renewed.append(
            old
            | {"name": group.name, "lr_scale": rate, "params": [index_of[n] for n in group.parameter_names]}
            | {"param_names": list(group.parameter_names), "param_shapes": [list(p.shape) for p in group.parameters]}
        )
        sources.append(number)
    return {**state, "param_groups": renewed}, sources


def _shape(state: dict[str, Any]) -> tuple[int, ...] | None:
    """Shape of a parameter, by its largest moment; None where there is none."""
    sizes = [tuple(value.shape) for value in state.values() if isinstance(value, Tensor) and value.ndim]
    return max(sizes, key=len, default=None)


def _roles(model: nn.Module) -> dict[str, str]:
    roles = {name: group.name for group in parameter_groups(model) for name in group.parameter_names}
    return {name: "latent@" if role.startswith("latent/") else role for name, role in roles.items()}


def _fits(shape: tuple[int, ...] | None, parameter: nn.Parameter) -> bool:
    return shape is None or shape == tuple(parameter.shape)


def _by_shape(
    groups: list[tuple[str, list[Any]]], named: dict[str, nn.Parameter], model: nn.Module
) -> list[list[str]] | None:
    """Names in each group, where at each parameter in turn there is only one group to which it can belong."""
    roles = _roles(model)
    assigned: list[list[str]] = [[] for _ in groups]
    for name, parameter in named.items():
        possible, opened = [], False
        for number, (group, shapes) in enumerate(groups):
            place = len(assigned[number])
            if not place and opened:
                break  # groups stand in the order of their first parameters
            opened = opened or not place
            same = group == roles[name] or (roles[name] == "latent@" and group.startswith("latent@"))
            if same and place < len(shapes) and _fits(shapes[place], parameter):
                possible.append(number)
        if len(possible) != 1:
            return None
        assigned[possible[0]].append(name)
    return assigned if all(len(t) == len(shapes) for t, (_, shapes) in zip(assigned, groups, strict=True)) else None


def _as_made(
    groups: list[tuple[str, list[Any]]], named: dict[str, nn.Parameter], model: nn.Module
) -> list[list[str]] | None:
    """Names in each group as the network's own relative rates have them, if the groups are the same."""
    roles = {}
    for group in parameter_groups(model):
        role = f"latent@{group.lr_scale:g}" if group.name.startswith("latent/") else group.name
        roles |= dict.fromkeys(group.parameter_names, role)
    members: dict[str, list[str]] = {}
    for name in named:
        members.setdefault(roles[name], []).append(name)
    if [(name, len(shapes)) for name, shapes in groups] != [(name, len(names)) for name, names in members.items()]:
        return None
    pairs = (
        (shape, named[n])
        for (_, shapes), names in zip(groups, members.values(), strict=True)
        for shape, n in zip(shapes, names, strict=True)
    )
    return list(members.values()) if all(_fits(shape, parameter) for shape, parameter in pairs) else None

"""Optimizers whose groups keep their relative learning rates, whatever a schedule or a callback does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnnlight.optim.as_matrices import AsMatrices
from bnnlight.optim.groups import ParameterGroup, parameter_groups
from bnnlight.tasks.merged_groups import MergedGroups
from bnnlight.tasks.optimizer_states import fitting_groups, with_names


@dataclass
class _Own:
    """What an optimizer knows of its network and of rates; without a network where it is a copy.

    Attributes:
        model, alpha_lr: see :func:`relative_rates`.
        options: of the groups of each kind of parameter, also of kinds that are frozen.
        waiting: states of frozen parameters, of optimizers that begin with some.
        base: the base rate, as it was last seen.
        added_rates: of what was added, by its number, as they were last seen.
        stepping: the groups of the step under way.
        scheduling: whether only groups that were there from the start are seen.
        has_grown: whether parameters were added since the last step.
        compiled: the optimizer's own step, compiled, without a closure; None where it is not.
    """

    model: nn.Module | None = None
    alpha_lr: float = 1.0
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: dict[Tensor, Any] = field(default_factory=dict)
    base: float | None = None
    added_rates: dict[int, float] = field(default_factory=dict)
    stepping: list[dict[str, Any]] | None = None
    scheduling: bool = False
    has_grown: bool = False
    compiled: Callable[..., Any] | None = None


class RelativeRates(Optimizer):
    """An optimizer whose groups follow one rate; :func:`relative_rates` makes one of any optimizer.

    A group's ``lr`` is the base rate times its ``lr_scale``, at any time. The base rate is what a schedule, or whatever
    else writes to ``param_groups``, sets for the first group. So every schedule sets the base rate, even one that has a
    single rate for all (``OneCycleLR``, ``CyclicLR``, ``SWALR``) or a floor (``eta_min``, ``min_lr``). To change a
    relative rate, write ``lr_scale``.

    Parameters that are added later are split into groups by what they are, with the relative rates and options of their
    kind: no weight decay for latents, α and norms. ``lr`` counts as the base rate of what is added; it follows the
    schedule in proportion (``added_scale``), and is changed by writing to the last group, as Lightning's
    ``BackboneFinetuning`` does. Such groups are named ``KIND/added1``, or ``KIND/NAME`` where a name is given.

    A saved state names its parameters. Loading goes by name, and takes over groups and relative rates from the state;
    parameters in groups that were added are unfrozen.
    """

    _own: _Own

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups, with their present rates."""
        if "param_groups" not in self.__dict__:  # Lightning's wrapper is of this class too, and then asks what it wraps
            raise AttributeError("param_groups")
        if self._own.stepping is not None:
            return self._own.stepping
        groups = self.__dict__["param_groups"]
        self._settle(groups)
        return [group for group in groups if "added" not in group] if self._own.scheduling else groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.__dict__["param_groups"] = groups
        self._own.base = None

    def _settle(self, groups: list[dict[str, Any]]) -> None:
        lead = next((g for g in groups if "added" not in g and g.get("lr_scale", 1.0) > 0), None)
        if lead is None:
            return
        base = float(lead["lr"]) / lead.get("lr_scale", 1.0)
        last = {group["added"]: group for group in groups if "added" in group}
        if base == self._own.base and base > 0:  # so whatever has changed was not changed by a schedule
            for number, group in last.items():
                if float(group["lr"]) != self._own.added_rates[number]:
                    for other in groups:
                        if other.get("added") == number:
                            other["added_scale"] = float(group["lr"]) / base
        for group in groups:
            if group is not lead:
                _set_rate(group, base * group.get("added_scale", 1.0) * group.get("lr_scale", 1.0))
        self._own.base, self._own.added_rates = base, {number: float(group["lr"]) for number, group in last.items()}

    @contextlib.contextmanager
    def scheduling(self) -> Iterator[None]:
        """Hides the groups that were added later: a schedule was made for the number of groups at the start."""
        self._own.scheduling = True
        try:
            yield
        finally:
            self._own.scheduling = False

    def step(self, closure: Callable[[], Any] | None = None, **options: Any) -> Any:
        """One step of the optimizer. Groups with the same options are stepped as one, since each group costs time."""
        self._take_in_the_rest()
        merged = MergedGroups(self.param_groups, as_tensors=self._own.compiled is not None)

        def apart() -> Any:
            self._own.stepping = None
            try:
                return closure()
            finally:
                self._own.stepping = merged.together

        self._own.stepping = merged.together
        try:
            if self._own.compiled is not None:
                with torch.enable_grad():
                    loss = None if closure is None else apart()
                self._own.compiled(**options)
                return loss
            return super().step(**options) if closure is None else super().step(apart, **options)
        finally:
            self._own.stepping = None
            merged.hand_back()

    def compile_step(self, **options: Any) -> None:
        """Has the optimizer's own step compiled, the first time that it is taken; closures run uncompiled, before it.

        Args:
            options: of ``torch.compile``.
        """
        self._own.compiled = torch.compile(super().step, **options)

    step.hooked = True  # torch's mark of a step that needs no more hooks: the optimizer's own has them

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, as groups of their kinds.

        Raises:
            ValueError: some are in a group already.
        """
        options = dict(param_group)
        params = options.pop("params")
        params = [params] if isinstance(params, Tensor) else list(params)
        params = [p[1] if isinstance(p, tuple) else p for p in params]
        groups = self.param_groups
        present = {id(p) for group in groups for p in group["params"]}
        if any(id(p) in present for p in params):
            raise ValueError("some parameters appear in more than one parameter group")
        number = 1 + max((group.get("added", 0) for group in groups), default=0)
        label = str(options.pop("name", f"added{number}")).replace("/", ".")
        if any(group["name"].endswith(f"/{label}") for group in groups if "added" in group):
            label += str(number)
        base = self._own.base or float(self.defaults.get("lr", 1.0))
        scale = float(options.pop("lr")) / base if "lr" in options else 1.0
        self._add(params, options, label, {"added": number, "added_scale": scale})
        self._own.has_grown = True

    def _add(self, params: list[nn.Parameter], shared: dict[str, Any], label: str, mark: dict[str, Any]) -> None:
        kinds = self._kinds()
        of_parameter = {id(p): kind for kind in kinds for p in kind.parameters}
        members: dict[str, list[nn.Parameter]] = {}
        by_name: dict[str, ParameterGroup] = {}
        for parameter in params:
            rest = (
                ParameterGroup("norm", (), 1.0, False)
                if parameter.ndim < 2
                else ParameterGroup("weight", (), 1.0, True)
            )
            kind = of_parameter.get(id(parameter), rest)
            by_name[kind.name] = kind
            members.setdefault(kind.name, []).append(parameter)
        # backwards: the last one, whose rate is that of all that is added, has no relative rate where there is such
        rank = {name: index for index, name in enumerate(["weight", "norm", *(kind.name for kind in kinds)])}
        groups = self.param_groups
        for name in sorted(members, key=rank.__getitem__, reverse=True):
            same = [group for group in groups if group["name"] == f"{name}/{label}"]
            if same:
                same[0]["params"].extend(members[name])
                continue
            options = {"lr_scale": by_name[name].lr_scale} | self._own.options.get(name, {}) | shared
            if not by_name[name].decay:
                options["weight_decay"] = 0.0
            options |= {"params": members[name], "name": f"{name}/{label}", "lr": 0.0} | mark
            super().add_param_group(options)
            self._own.base = None  # it has no rate yet
        for parameter in params:
            if parameter in self._own.waiting:
                self.state[parameter] = self._own.waiting.pop(parameter)

    def _take_in_the_rest(self) -> None:
        """Adds to what was added last each parameter that was set free and is in no group.

        Lightning leaves out of an added group each parameter that has the values of another one, such as a new bias.
        """
        if not self._own.has_grown:
            return
        self._own.has_grown = False
        last = self.param_groups[-1]
        present = {id(p) for group in self.param_groups for p in group["params"]}
        free = [p for kind in self._kinds() for p in kind.parameters if p.requires_grad and id(p) not in present]
        if free:
            mark = {key: last[key] for key in ("added", "added_scale")}
            self._add(free, {}, last["name"].rpartition("/")[2], mark)

    def _kinds(self) -> list[ParameterGroup]:
        return [] if self._own.model is None else parameter_groups(self._own.model, self._own.alpha_lr, frozen=True)

    def _named(self) -> dict[str, nn.Parameter]:
        named = dict(self._own.model.named_parameters())
        inside = {id(p) for p in named.values()}
        for group in self.param_groups:
            named |= {f"{group['name']}[{i}]": p for i, p in enumerate(group["params"]) if id(p) not in inside}
        return named

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the optimizer's class, the parameters' names and shapes, and all relative rates."""
        self._take_in_the_rest()
        state = super().state_dict()
        if self._own.model is not None:
            with_names(state, self.param_groups, self._named())
            state["optimizer"] = _kind(self)
            state["lr_scales"] = {name: options["lr_scale"] for name, options in self._own.options.items()}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state by the parameters' names, with its groups and relative rates.

        Raises:
            ValueError: the state is not of these parameters, does not say which they are, or is of another kind of
                optimizer.
        """
        if self._own.model is not None:
            named = self._named()
            state_dict, groups = fitting_groups(state_dict, self._own.model, self._own.alpha_lr, named)
            self._check_kind(state_dict.get("optimizer"), groups)
            held = {id(p) for group in groups for p in group["params"]}
            lacking = [name for name, p in named.items() if p.requires_grad and id(p) not in held]
            if lacking:
                raise ValueError(
                    f"the checkpoint's optimizer knows nothing of {len(lacking)} parameters that are trained now "
                    f"(first {lacking[0]}): freeze what was frozen then, as its config says"
                )
            for name, scale in state_dict.get("lr_scales", {}).items():
                self._own.options.get(name, {})["lr_scale"] = scale
            for group in groups:
                if "added" in group:  # what was free from the start is so again, if the config still says so
                    for parameter in group["params"]:
                        parameter.requires_grad_(True)
            self.param_groups = groups
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():
            moments = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.shape == parameter.shape}
            for name, moment in moments.items():
                # of a network in another memory format: torch's fused kernel of a CPU pairs entries by their places
                if moment.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)

    def _check_kind(self, kind: str | None, groups: list[dict[str, Any]]) -> None:
        """Refuses the state of another optimizer, whose moments may have the same names and another meaning."""
        here = _kind(self)
        if kind not in (None, here, type(self).__name__):  # the last is of before packages were told apart
            raise ValueError(
                f"the checkpoint is of {kind}, and the optimizer is {here}: go on with the one that the run began with"
            )
        for key in ("betas", "momentum"):  # of before the kind was saved
            if any((key in group) != (key in self.defaults) for group in groups):
                there, ours = ("with", "without") if key not in self.defaults else ("without", "with")
                raise ValueError(
                    f"the checkpoint is of an optimizer {there} {key}, and {here} is one {ours}: "
                    "go on with the optimizer that the run began with"
                )

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_own" not in self.__dict__:
            self._own = _Own()
        super().__setstate__(state)
        self._own.base = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (type(self).__bases__[1],), self.__getstate__()


def relative_rates(optimizer: Optimizer, model: nn.Module, alpha_lr: float) -> Optimizer:
    """Makes an optimizer keep its groups' relative rates; see :class:`RelativeRates`.

    Args:
        optimizer: with one group for each of ``parameter_groups(model, alpha_lr, frozen=True)``, each with an
            ``lr_scale``. What is frozen leaves the groups, until it is added.
        model: the network.
        alpha_lr: learning rate of α relative to the optimizer's.

    Returns:
        An instance of a subclass of its class, with all that it has; do not use the first any more.
    """
    options = {
        g["name"]: {k: v for k, v in g.items() if k not in ("params", "name", "lr")} for g in optimizer.param_groups
    }
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    waiting = {p: optimizer.state.pop(p) for p in list(optimizer.state) if p not in trained}
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
    # a new object: Python does not let one change to a class whose bases are laid out otherwise, as abstract ones are
    result = _blank(type(optimizer))
    result.__dict__.update(vars(optimizer))
    result._own = _Own(model, alpha_lr, options, waiting)
    return result


@functools.cache
def _subclass(kind: type[Optimizer]) -> type[Optimizer]:
    # of the same name, by which rates are logged
    return type(kind.__name__, (RelativeRates, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _blank(kind: type[Optimizer]) -> Optimizer:
    return _subclass(kind).__new__(_subclass(kind))


def _kind(optimizer: Optimizer) -> str:
    """The class as a checkpoint names it, with the package where that is not torch: several have a SOAP."""
    kind = optimizer.kind if isinstance(optimizer, AsMatrices) else type(optimizer)
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package == "torch" else f"{package}.{kind.__name__}"


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate

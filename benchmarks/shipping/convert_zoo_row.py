"""What `convert_zoo.py` finds out of one network."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from convert_zoo_networks import Network, shapes, smallest_side
from torch import Tensor, nn

from bnnlight.deploy.check import OUTPUT_DIFFERENCE
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.proof.verify import SideBySide
from bnnlight.deploy.runtime import Runtime
from bnnlight.nn import SHORTCUTS, convert, named_binary_layers, plan_conversion
from bnnlight.nn.flow import weighted_layers

FORMATS = ("packed", "openvino", "onnx")
LARGE = 100_000_000
"""Parameters beyond which shipping is not tried."""
SIGNS = 1_000_000
"""Least number of signs that are compared in each format."""
BATCHES, BATCH = 8, 8
"""Batches, and pictures in each, from which norms gather the statistics that thresholds are made of."""


def row(network: Network) -> dict[str, Any]:
    """Converts a network, trains it for one step, ships it in each format."""
    start = time.monotonic()
    model = network.make()
    side = smallest_side(network, model)
    found: dict[str, Any] = {"px": side, "parameters": sum(p.numel() for p in model.parameters())}
    keep: tuple[str, ...] = SHORTCUTS
    plan = plan_conversion(model)
    before = dict(model.named_parameters()), [name for name, _ in model.named_modules()], weighted_layers(model)
    layers = [path for path, layer in before[2].items() if path]
    expected = shapes(network, model, layers, side)
    try:
        convert(model)
    except ValueError as error:
        found["refused"] = str(error)
        if not plan.refused or not plan.binary:
            return found | {"seconds": round(time.monotonic() - start)}
        keep = (*keep, *plan.refused)
        plan = plan_conversion(model, keep=keep)
        convert(model, keep=keep)
        found["kept_on_request"] = len(keep) - len(SHORTCUTS)
    found |= {"binary": len(plan.binary), "real": dict(plan.real)}
    found["shapes"] = "equal" if shapes(network, model, layers, side) == expected else "DIFFERENT"
    found["kept"] = _lost(model, *before[:2], plan.binary) or "all"
    found["step"] = _step(network, model, side)
    found["ships"], signs = _shipped(network, _settled(network, model, side), side)
    found |= {"signs": signs} if signs else {}
    return found | {"seconds": round(time.monotonic() - start)}


def _lost(model: nn.Module, parameters: Mapping[str, Tensor], paths: list[str], binary: tuple[str, ...]) -> str:
    """Names of modules and real parameters of the network before that are not in it any more, or are others."""
    now, own = dict(model.named_parameters()), {f"{path}.weight" for path in binary}
    own |= {f"{path}.bias" for path in binary}
    gone = sorted(set(paths) - {name for name, _ in model.named_modules()})
    return ", ".join([*gone, *(n for n, p in parameters.items() if n not in own and now.get(n) is not p)])


def _step(network: Network, model: nn.Module, side: int) -> dict[str, Any]:
    """One step of RMSprop: whether all is finite, and how many parameters of binary layers it moved.

    Batch norm over a few pixels multiplies gradients: where they overflow, larger pictures are tried.
    """
    model.train()
    torch.manual_seed(2)
    trained = {p for p in model.parameters() if p.requires_grad}
    seen = [p for _, layer in named_binary_layers(model) for p in layer.parameters() if p in trained]
    before = [p.detach().clone() for p in seen]
    optimizer = torch.optim.RMSprop(trained, lr=1e-4, eps=1e-30)
    for px in (side, *(larger for larger in (128, 224) if larger > side)):
        optimizer.zero_grad()
        loss = torch.stack(network.losses(model, px)).sum()
        loss.backward()
        finite = bool(loss.isfinite()) and all(bool(p.grad.isfinite().all()) for p in trained if p.grad is not None)
        if finite:
            break
    with_gradient = sum(p.grad is not None and bool(p.grad.any()) for p in seen)
    optimizer.step()
    moved = sum(not torch.equal(p, old) for p, old in zip(seen, before, strict=True))
    optimizer.zero_grad()
    return {"finite": finite, "moved": moved, "with_gradient": with_gradient, "parameters": len(seen), "px": px}


def _settled(network: Network, model: nn.Module, side: int) -> nn.Module:
    """The network in eval mode, behind a few batches in training mode: so thresholds lie amid what their signs see."""
    if network.kind != "detection" and not _too_large(model):
        with torch.no_grad():
            for number in range(BATCHES):
                model.train()(network.pictures(side, BATCH, seed=100 + number))
    return model.eval()


def _too_large(model: nn.Module) -> str:
    number = sum(p.numel() for p in model.parameters())
    return f"not tried: {number / 1e6:.0f} M parameters" if number > LARGE else ""


def _shipped(network: Network, model: nn.Module, side: int) -> tuple[dict[str, str] | str, int]:
    """Format → `equal`, what differs, or the one line that refuses; a line alone where it is for all of them.

    Besides the number of signs that were compared in each format.
    """
    if large := _too_large(model):
        return large, 0
    try:
        program = freeze(model, (3, side, side))
    except ValueError as error:
        return str(error), 0
    with torch.no_grad():
        classes = tuple(str(index) for index in range(model(network.pictures(side)).shape[1]))
    manifest = Manifest("classification", network.name, PictureInput(3, side, (0.5,) * 3, (0.5,) * 3), classes)
    answers, signs = {}, []
    for name in FORMATS:
        module = import_module(f"bnnlight.deploy.formats.{name}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = getattr(module, f"save_{name}")(program, manifest, Path(folder))
                both = SideBySide(model, Runtime(file, num_threads=1), getattr(module, f"{name}_signs")(file))
                seed = 1
                while both.agreement.num_signs < SIGNS:
                    both(network.pictures(side, seed=seed))
                    seed += 1
                answers[name] = _agreement(both)
                signs.append(both.agreement.num_signs)
            except ValueError as error:
                answers[name] = str(error).replace(folder, "")
    return answers, min(signs, default=0)


def _agreement(both: SideBySide) -> str:
    a = both.agreement
    if a.num_flipped:
        return f"{a.num_flipped} of {a.num_signs:,} signs differ, {a.num_same} of {a.num_images} answers equal"
    if not a.output_difference <= OUTPUT_DIFFERENCE:
        return f"DIFFERENT by {a.output_difference:.1e}"
    return "equal"


def reasons(real: Mapping[str, str]) -> str:
    """What stays real, counted by why: the few paths of what is kept by its place, and the numbers of the rest."""
    named = [f"{path}: {reason}" for path, reason in real.items() if reason.startswith("it sees")]
    answers = [path for path, reason in real.items() if reason.startswith("the answer")]
    if answers:
        more = f" and {len(answers) - 3} more" if len(answers) > 3 else ""
        named.append(f"{', '.join(answers[:3])}{more}: the answer")
    texts = ["kept by name" if reason.startswith("kept") else reason.split(":")[0] for reason in real.values()]
    rest = Counter(text for text in texts if not text.startswith(("it sees", "the answer")))
    return "; ".join([*named, *(f"{count} {reason}" for reason, count in rest.items())])

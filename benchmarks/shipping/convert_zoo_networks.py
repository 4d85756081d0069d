"""The networks that `convert_zoo.py` tries: made without weights, each with what it is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

SIDES = (64, 96, 128, 160, 224, 256, 299)
"""Heights and widths in px of the pictures that are tried, the first that a network runs and trains on is taken."""

TIMM = [
    name
    for line in (
        "resnet18 resnet26t resnetv2_50 resnetv2_50x1_bit seresnet50 ecaresnet26t skresnet18 res2net50_26w_4s",
        "resnest14d botnet26t_256 regnetx_002 regnety_002 regnetz_b16 densenet121 dpn48b dla34",
        "hrnet_w18_small ese_vovnet19b_dw cspresnet50 cs3darknet_s hgnetv2_b0 vgg11_bn repvgg_a0",
        "mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050 tf_mobilenetv3_small_075",
        "mobilenetv4_conv_small efficientnet_b0 tf_efficientnetv2_b0 mixnet_s tf_mixnet_s ghostnetv2_100",
        "rexnet_100 nf_resnet26 eca_nfnet_l0 convnext_atto convnextv2_atto xception41 inception_v4",
        "mobileone_s0 fastvit_t8 efficientvit_b0 levit_128s mobilevit_xxs edgenext_xx_small poolformer_s12",
        "coatnet_nano_rw_224 swin_tiny_patch4_window7_224 starnet_s1",
    )
    for name in line.split()
]
"""Fifty networks of timm, of as many families as they are."""


@dataclass(frozen=True)
class Network:
    """One row of the table.

    Attributes:
        kind: ``classification``, ``segmentation``, ``detection`` or ``timm``.
        name: as torchvision or timm call it.
    """

    kind: str
    name: str

    def make(self) -> nn.Module:
        """The network, with random weights of seed 0, none of them a norm's that begins at zero."""
        torch.manual_seed(0)
        model = self._make()
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.ndim == 1 and not weight.any():
                nn.init.ones_(weight)
        return model

    def _make(self) -> nn.Module:
        if self.kind == "timm":
            import timm

            return timm.create_model(self.name, pretrained=False)
        options: dict[str, Any] = {} if self.kind == "classification" else {"weights_backbone": None}
        if self.kind == "segmentation" and not self.name.startswith("lraspp"):
            options["aux_loss"] = True
        if self.kind == "detection" and not self.name.startswith("ssd"):
            options |= {"min_size": 64, "max_size": 128}  # what pictures are resized to; 800 px otherwise
        return torchvision.models.get_model(self.name, weights=None, **options)

    def pictures(self, side: int, count: int = 2) -> Any:
        """A batch of random pictures, in the form that the network takes."""
        batch = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 4 - 2
        return list(batch.sigmoid()) if self.kind == "detection" else batch

    def losses(self, model: nn.Module, side: int) -> list[Tensor]:
        """What one training step minimizes: the network's own losses, or the mean squares of its outputs."""
        from bnnlight.nn.inspect import named_tensors

        if self.kind != "detection":
            return [y.float().square().mean() for _, y in named_tensors(model(self.pictures(side)))]
        target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.ones(1, dtype=torch.int64)}
        target["masks"] = torch.ones(1, side, side, dtype=torch.uint8)
        target["keypoints"] = torch.full((1, 17, 3), 20.0)
        return list(model(self.pictures(side), [dict(target), dict(target)]).values())


def networks(with_timm: bool) -> list[Network]:
    """All that torchvision has of three kinds, and some of timm."""
    models = torchvision.models
    parts = {"classification": models, "segmentation": models.segmentation, "detection": models.detection}
    made = [Network(kind, name) for kind, module in parts.items() for name in models.list_models(module)]
    return made + [Network("timm", name) for name in TIMM if with_timm]


def smallest_side(network: Network, model: nn.Module) -> int:
    """The first of :data:`SIDES` on which a network runs and trains."""
    error: Exception = ValueError("no picture")
    for side in SIDES:
        try:
            with torch.no_grad():
                model.eval()(network.pictures(side))
                network.losses(model.train(), side)
            return side
        except (AssertionError, RuntimeError, ValueError) as failure:
            error = failure
    raise error


def form(value: Any, of_any_number: bool) -> Any:
    """Shapes in the place of tensors; where the number of things found differs, n in the place of it."""
    if isinstance(value, Tensor):
        return ("n", *value.shape[1:]) if of_any_number else tuple(value.shape)
    if isinstance(value, dict):
        return {key: form(part, of_any_number) for key, part in value.items()}
    return [form(part, of_any_number) for part in value]


def shapes(network: Network, model: nn.Module, paths: list[str], side: int) -> tuple[Any, dict[str, list]]:
    """The form of the output in eval mode, and the shape of every layer's output, batch dimension apart."""
    seen: dict[str, list] = {path: [] for path in paths}

    def note(path: str) -> Callable:
        return lambda module, inputs, y: seen[path].append(tuple(y.shape[1:]))

    hooks = [model.get_submodule(path).register_forward_hook(note(path)) for path in paths]
    try:
        with torch.no_grad():
            return form(model.eval()(network.pictures(side)), network.kind == "detection"), seen
    finally:
        for hook in hooks:
            hook.remove()

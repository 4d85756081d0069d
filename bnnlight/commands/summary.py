"""`bnnlight summary`: layers, parameters, bytes and multiply-adds of a network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table
from torch import nn

from bnnlight.console.tables import print_whole
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.experiment.experiment import Experiment
from bnnlight.nn.summary import NetworkSummary, summarize

_NUMBERS = ("num_factors", "num_binary", "num_real", "num_bytes", "num_binary_macs", "num_real_macs")


class _SummaryExperiment(Experiment):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        text = "Height and width of the input in px; by default, those of the data."
        parser.add_argument("--image_size", type=int | None, default=None, help=text)
        parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
        parser.add_argument("--all", action="store_true", help="List real layers too, not only their total.")


def summary(args: list[str]) -> None:
    """Print a network's layers, parameters, bytes and multiply-adds, and what of it cannot be exported."""
    example = "Example: bnnlight summary --config resnet18_imagenet"
    experiment = _SummaryExperiment("summary", f"{summary.__doc__} {example}", args)
    config: Namespace = experiment.config
    size = config.image_size
    if size is None:
        size = getattr(experiment.datamodule, "image_size", 0)
    if size < 1:
        raise ValueError("the input's size is not known: pass --image_size PX")
    channels = getattr(experiment.datamodule, "num_channels", 3)
    if config.image_size is None and (check := getattr(experiment.model, "check_data", None)):
        check(experiment.datamodule, "validate")
    network = summarize(experiment.model.backbone, (channels, size, size))
    if config.json:
        print(json.dumps(as_record(network), indent=2))
        return
    _print(network, config.all)
    if reason := _not_shipped(experiment.model.backbone, network.input_shape):
        Console().print(f"Cannot be exported: {reason}", highlight=False, soft_wrap=True, markup=False)


def _not_shipped(network: nn.Module, input_shape: Sequence[int]) -> str | None:
    """Why a network cannot be exported; None where it can. Better known before the training than after it."""
    try:
        freeze(network, input_shape)
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def as_record(network: NetworkSummary) -> dict:
    """The summary as plain numbers: ``layers``, ``total`` and ``input_shape``."""
    layers = [dataclasses.asdict(layer) | {"num_bytes": layer.num_bytes} for layer in network.layers]
    total = {name: network.total(name) for name in _NUMBERS}
    # of the 1-bit weights alone, each layer's rounded up to whole bytes
    total["num_binary_bytes"] = sum(-(-layer.num_binary // 8) for layer in network.layers)
    total["binary_share"] = total["num_binary"] / (total["num_binary"] + total["num_real"])
    total["num_real_bytes_before"] = 4 * (total["num_binary"] + total["num_real"])
    return {"input_shape": network.input_shape, "layers": layers, "total": total}


def _print(network: NetworkSummary, with_real: bool) -> None:
    size = "×".join(map(str, network.input_shape))
    table = Table(title=f"MACs (multiply-adds) for one {size} input", title_justify="left", show_footer=True)
    table.add_column("layer", footer="total", no_wrap=True)
    table.add_column("weight", no_wrap=True)
    table.add_column("latent (ranks)", no_wrap=True)
    titles = ("factors\n(training)", "1-bit\nweights", "32-bit\nnumbers", "bytes\nshipped")
    titles += ("binary\nMACs", "real\nMACs")
    for name, title in zip(_NUMBERS, titles, strict=True):
        table.add_column(title, justify="right", footer=_short(network.total(name)), no_wrap=True)
    real = [layer for layer in network.layers if not layer.num_binary]
    for layer in network.layers:
        if layer.num_binary or with_real:
            ranks = f" ({', '.join(map(str, layer.ranks))})" if layer.ranks else ""
            numbers = [_short(getattr(layer, name)) for name in _NUMBERS]
            table.add_row(layer.name, "×".join(map(str, layer.shape)), (layer.latent or layer.kind) + ranks, *numbers)
    if real and not with_real:
        sums = [sum(getattr(layer, name) for layer in real) for name in _NUMBERS]
        table.add_row(f"{len(real)} real layers", "", "", *map(_short, sums))
    print_whole(table)
    total = as_record(network)["total"]
    before, after = total["num_real_bytes_before"], total["num_bytes"]
    Console().print(
        f"1-bit weights: {total['num_binary']:,}, {100 * total['binary_share']:.1f} % of all numbers, "
        f"{total['num_binary_bytes'] / 1e6:.2f} MB. "
        f"Shipped: {after / 1e6:.2f} MB, {before / after:.1f} times smaller than the {before / 1e6:.2f} MB of the "
        "same network with 32-bit weights. Exact figures: --json.",
        highlight=False,
        soft_wrap=True,
    )


def _short(number: int) -> str:
    """Three significant digits and a unit; nothing for zero."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number) if number else ""

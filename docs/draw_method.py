"""Draws the pictures of docs/method.md, from the package's own latents and gradients.

python docs/draw_method.py [--output docs/images]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from bnnlight.nn import Dense, Latent, Matrix, Tanh, Tucker, sign, straight_through

SHAPE = (24, 24, 1, 1)
"""Of the weight that is drawn: as wide as it is high, so that its unfolding is easy to read."""


def smooth_weight() -> Tensor:
    """A weight with large and small singular values, as a trained layer has: noise on top of slow waves."""
    torch.manual_seed(3)
    t = torch.linspace(0, 1, SHAPE[0])
    waves = [torch.outer(torch.sin(a * t + p), torch.cos(b * t + q)) for a, b, p, q in torch.rand(4, 4) * 12]
    return (sum(waves) / 2 + 0.25 * torch.randn(SHAPE[:2])).reshape(SHAPE)


def draw_ranks(file: Path) -> None:
    """One weight at four ranks: above the real weight, below its signs."""
    weight = smooth_weight()
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.9), layout="constrained")
    for (top, bottom), rank in zip(axes.T, (24, 8, 3, 1), strict=True):
        latent = Matrix(weight, rank=rank, start="svd")
        with torch.no_grad():
            real = latent().reshape(SHAPE[:2])
        numbers = sum(p.numel() for p in latent.parameters())
        top.imshow(real, cmap="RdBu", vmin=-1.5, vmax=1.5)
        bottom.imshow(sign(real), cmap="gray", vmin=-1, vmax=1)
        same = float((sign(real) == sign(weight.reshape(SHAPE[:2]))).float().mean())
        top.set_title(f"rank {rank}: {numbers} numbers", fontsize=9)
        bottom.set_title(f"{same:.0%} of the signs as at full rank", fontsize=9)
    axes[0, 0].set_ylabel("W̃ = U diag(s) Vᵀ")
    axes[1, 0].set_ylabel("B = sign(W̃)")
    _save(figure, axes, file)


def moved_by_one_entry(latent: Latent, name: str) -> Tensor:
    """How far each weight moves when one number of one parameter grows."""
    with torch.no_grad():
        before = latent().clone()
        parameter = latent.get_parameter(name).view(-1)
        parameter[parameter.numel() // 2 + 5] += 0.5
        return (latent() - before).reshape(SHAPE[:2])


def draw_coupling(file: Path) -> None:
    """What one step of one trained number moves, for three latents."""
    weight = smooth_weight()
    cases = (
        ("Dense: one weight", Dense(weight), "weight"),
        ("Matrix: an entry of U moves one filter", Matrix(weight, rank=6, start="balanced"), "U"),
        ("Tucker: an entry of the core moves all", Tucker(weight, rank=6), "core"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    for axis, (title, latent, name) in zip(axes, cases, strict=True):
        moved = moved_by_one_entry(latent, name)
        largest = float(moved.abs().max())
        axis.imshow(moved, cmap="RdBu", vmin=-largest, vmax=largest)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(f"{int((moved.abs() > 1e-6).sum())} of {moved.numel()} weights", fontsize=9)
    axes[0].set_ylabel("filters")
    _save(figure, axes.reshape(1, -1), file)


def draw_gradients(file: Path) -> None:
    """The sign, and what stands for its derivative."""
    u = torch.linspace(-2, 2, 801)
    names = ("identity", "clipped", "polynomial", "swish", Tanh(2.0))
    figure, axes = plt.subplots(1, 1 + len(names), figsize=(11, 2.2), layout="constrained", sharex=True)
    axes[0].plot(u, sign(u), color="black")
    axes[0].set_title("sign(u)", fontsize=9)
    for axis, name in zip(axes[1:], names, strict=True):
        gradient = straight_through(u, name)
        axis.plot(u, gradient, color="#b03060")
        axis.fill_between(u, 0, gradient, color="#b03060", alpha=0.15)
        axis.set_title(name if isinstance(name, str) else "Tanh, t = 2", fontsize=9)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=7)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _save(figure: plt.Figure, axes: object, file: Path) -> None:
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=Path(__file__).parent / "images", type=Path, help="folder to write to")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    draw_ranks(folder / "latent_ranks.png")
    draw_coupling(folder / "latent_coupling.png")
    draw_gradients(folder / "sign_gradients.png")


if __name__ == "__main__":
    main()

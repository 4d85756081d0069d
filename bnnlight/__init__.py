"""bnnlight: binary neural networks with factorized weights and learned scaling factors.

Weights and activations of one bit; the real weight behind each binary one is rebuilt at every training step
from a matrix or tensor decomposition, whose factors the optimizer trains; the scaling factors α are learned
by back-propagation (Bulat, Kossaifi, Tzimiropoulos, Pantic 2019, https://arxiv.org/abs/1904.07852).

| folder | what is in it | it may import |
|---|---|---|
| `nn` | the method: sign, α, layers, conversion of any network | `nn.latents`, `nn.parts`, `nn.compute` |
| `nn.latents` | latent weights: dense, decomposed, rotated; ranks and unfoldings | parts of `nn`; tensorly |
| `nn.parts` | what may happen to W̃ and to X before their signs are taken | parts of `nn` |
| `nn.compute` | the binary convolution as one function, products, lean training, kernels | parts of `nn` |
| `backbones` | binary residual networks, one of whole numbers, binary stacked hourglass | `nn` |
| `imaging` | pictures before and behind a network, boxes, answers, without torch | nothing of the package |
| `data.classes` | digits, Fashion-MNIST, CIFAR, any folder of classes | `data.loading` |
| `data.keypoints` | COCO's form, MPII, LSP, drawn people: boxes, augmentation, heat maps | `data.loading`, `imaging` |
| `data.loading` | what both share: loaders, order and seeds, workers, bad pictures, transforms | `imaging` |
| `optim` | optimizers for latent weights: SOAP, Muon, Bop; what a parameter group is | parts of `nn` |
| `metrics` | flip rate, ranks, PCK and PCKh, NME, OKS | nothing of the package |
| `tasks` | what is trained for what loss, a teacher's too | `metrics`, `optim`, `imaging`, parts of `nn` and `data` |
| `callbacks` | what is logged; recipes | `metrics`, `tracking.trackers`, parts of `nn`, `data` and `guards` |
| `guards` | what keeps a run of days whole: saved, stopped, watched | parts of `nn`, `tracking` and `console` |
| `deploy` | a shipped model in use: runtime, manifest, answers, card, seal, hub | `deploy.program`, `imaging` |
| `deploy.program` | what is shipped of a network: steps, operations, shapes, bits | nothing of the package |
| `deploy.freezing` | a trained network to a program: trace, translate, fold, thresholds | `deploy.program`, `nn` |
| `deploy.formats` | packed, OpenVINO, ONNX, QONNX, LCE: writers and engines | `deploy.program`, parts of `deploy` |
| `deploy.proof` | a shipped model beside checkpoint and twin | `deploy.formats`, parts of `deploy` and `nn` |
| `tracking` | where a run's figures go, and runs compared: on a page, in W&B | `tracking.stores` |
| `tracking.trackers` | what goes to a logger besides figures, one class a tracker | parts of `tracking` |
| `tracking.stores` | other trackers' local files, read | nothing of the package |
| `matrix.plan` | methods (× optimizers) × seeds under one protocol, as a YAML | `console.shipped_configs` |
| `matrix.runs` | the runs of a plan: made, and what each gave | `matrix.plan` |
| `matrix.report` | what came out, with intervals: numbers, page, pictures | `matrix.plan`, `matrix.runs` |
| `experiment` | one run from config to result: LightningCLI, directory, checkpoints | all above, `console` |
| `experiment.config` | the config, checked before anything is made of it | `console` |
| `experiment.config.early` | help and mistakes, told before torch is imported | `experiment.config`, `console` |
| `experiment.trained` | a run's trained network: loaded, used on pictures, shipped | `experiment`, all above |
| `console` | errors in one line, tables, parser, completion | nothing of the package |
| `commands` | the verbs of the command line, one file each | all but `cli` |
| `cli.py` | the table of verbs | `console`, `experiment.config.early`; a verb by its name |

Trained models that `predict` takes by name lie in `models/` beside this folder, experiments in `configs/`; in an
installed package both lie in it.

A YAML names three objects: a `model` (a task, holding a backbone, holding latents), `data` and a `trainer`.
There is no registry: a class of your own is named by its import path.

From Python, `bnnlight.load(RUN)` gives a run's network, task, data and config.

Add your own …

- latent weight: subclass `bnnlight.nn.Latent`; see `bnnlight/nn/__init__.py`.
- backbone: any `torch.nn.Module` with binary layers; see `bnnlight/backbones/__init__.py`.
- data set: a folder of classes needs nothing; else see `bnnlight/data/__init__.py`.
- task: a LightningModule that is handed its backbone; see `bnnlight/tasks/classification.py`. One that has a method
  `draw` gets its predictions shown; see `bnnlight/callbacks/pictures.py`.
- callback: look at a network through `bnnlight.nn.inspect` alone; see `bnnlight/callbacks/flip_rates.py`.
- verb: a function that takes the arguments behind its name, in a file of `bnnlight/commands`, and a line in
  `bnnlight/cli.py`.
"""

from importlib import import_module
from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, imported when it is asked for: shipped models and help do without torch."""
    if name == "load":
        return import_module("bnnlight.experiment.trained.loaded").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

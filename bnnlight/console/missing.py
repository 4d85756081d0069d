"""Names what to install where a verb needs a package that is not there."""

from __future__ import annotations

EXTRAS = {
    "train": (
        *("torch", "torchvision", "lightning", "torchmetrics", "tensorly", "wandb", "plotly", "wandb_workspaces"),
        *("jsonargparse", "yaml", "sklearn", "scipy", "matplotlib", "pycocotools"),
    ),
    "deploy": ("onnx", "onnxruntime", "flatbuffers", "tflite"),
    "hub": ("huggingface_hub",),
}
"""Extra of the package → the modules that it brings."""

TRACKERS = ("tensorboard", "mlflow", "comet-ml")
"""Packages behind Lightning's loggers that no extra brings; its own message for them is several lines long."""


def explain_missing(error: BaseException) -> str | None:
    """What to install.

    Args:
        error: as it reached the command line.

    Returns:
        One line, or None where no package of an extra is missing.
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    if not error.name and (tracker := next((name for name in TRACKERS if name in str(error).lower()), None)):
        return f"{tracker} is needed here and is not installed; run: pip install {tracker}"
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if module in modules), None)
    return extra and f"{module} is needed here and is not installed; run: pip install 'bnnlight[{extra}]'"

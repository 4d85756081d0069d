"""Stratified splits: held-out images, the same in every run."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import train_test_split


def choose_stratified(
    labels: Sequence[int], num_chosen: int, seed: int, classes: Sequence[str], argument: str
) -> tuple[np.ndarray, np.ndarray]:
    """Choose items so that every class keeps its share, to within one item.

    The choice depends on the arguments alone, never on a global random state: a run with
    another seed measures on the same images.

    Args:
        labels: class index of each item.
        num_chosen: how many to choose.
        seed: of this choice.
        classes: name of each class, for the error message.
        argument: name of the setting behind num_chosen, for the error message.

    Returns:
        Indices of the chosen items and of all the others, both ascending.

    Raises:
        ValueError: If a class has a single item, or there are fewer items than classes on
            either side.
    """
    labels = np.asarray(labels)
    values, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        name = classes[values[counts.argmin()]]
        raise ValueError(f"class {name} has a single image, too few to be divided; add images to it")
    most = len(labels) - len(values)
    if not len(values) <= num_chosen <= most:
        raise ValueError(
            f"{argument} asks for {num_chosen} of {len(labels)} images in {len(values)} classes; "
            f"set it to a number from {len(values)} to {most}"
        )
    others, chosen = train_test_split(np.arange(len(labels)), test_size=num_chosen, stratify=labels, random_state=seed)
    return np.sort(chosen), np.sort(others)

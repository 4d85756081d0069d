"""Names of figures: what earlier versions called them, and what Lightning would call them.

A key is legal in every tracker. It is made of letters, digits and ``_ - . /`` alone, and none is both a figure and a
folder of figures: a tracker that keeps each figure in a file, as MLflow's file store does, cannot have both.
"""

from __future__ import annotations

import re
from functools import lru_cache

RENAMED = {
    "bnn/flip_rate": "bnn/flip_rate_mean",
    "bnn/update_rank": "bnn/update_rank_mean",
    "bnn/update_follows": "bnn/update_follows_mean",
    "stage": "bnn/stage",
}
"""Key of an earlier version → the same figure's key now."""

# Lightning makes the key of a group's name, and "latent" may be a group as well as "latent/LAYER/FACTOR"
_OF_GROUP = re.compile(r"(?P<optimizer>lr-[^/]+)/(?P<kind>[^/]+)/(?P<rest>.+)")


@lru_cache(maxsize=16384)
def current(key: str) -> str:
    """The key that a figure has now, whatever version or part of Lightning has named it; other keys as they are.

    ``lr-X/weight/added1`` becomes ``lr-X/weight-added1``, and ``lr-X/latent/LAYER/FACTOR/added1`` becomes
    ``lr-X/factors/LAYER/FACTOR-added1``.

    Args:
        key: as it was logged.
    """
    group = _OF_GROUP.fullmatch(key)
    if not group or group["kind"] == "factors":
        return RENAMED.get(key, key)
    first, *others = group["rest"].split("/")
    if group["kind"] != "latent" or not others:
        return f"{group['optimizer']}/{group['kind']}-{'-'.join([first, *others])}"
    return f"{group['optimizer']}/factors/{first}/{'-'.join(others)}"

"""Packed files of random windows, one behind the other, most of which fit: refused in one line, or run as checked.

The random files are the same on every run: each comes from its own seed, which the test's message has.
"""

import json
import random

import numpy as np
from fixtures.sealed_files import refused, runs_as_checked, write

from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Step
from bnnlight.deploy.program.bits import pack_signs


def random_pair(rng, *usual):
    rare = (0, 1, 2, 3, 5, 8, 31, 100, 1000, 2**15, 2**20)
    return [rng.choice(usual if rng.random() < 0.97 else rare) for _ in range(2)]


def random_window(rng, name, source, channels):
    """A step with a window, its settings drawn at random, and the number of its channels."""
    op = rng.choice(("conv2d", "binary_conv2d", "max_pool2d", "avg_pool2d", "upsample_nearest"))
    if op == "upsample_nearest":
        return Step(name, op, (source,), {"factor": random_pair(rng, 1, 1, 2, 3)}), channels
    size = random_pair(rng, 1, 2, 3, 3, 5, 7)
    settings = {"stride": random_pair(rng, 1, 1, 2, 3), "padding": random_pair(rng, 0, 1, 1, 2, 3)}
    if op.endswith("pool2d"):
        settings |= {"kernel": size, "ceil_mode": rng.random() < 0.5}
        extra = {"dilation": random_pair(rng, 1, 1, 2)} if op == "max_pool2d" else {"count_include_pad": True}
        return Step(name, op, (source,), settings | extra), channels
    groups, outputs = rng.choice([(1, rng.choice([1, 2, 4])), (channels, 2 * channels)])
    shape = [outputs, channels // groups, *(max(1, n % 100) for n in size)]
    settings |= {"dilation": random_pair(rng, 1, 1, 2, 3), "groups": groups}
    if op == "conv2d":
        return Step(name, op, (source,), settings, {"weight": np.ones(shape, np.float32)}), outputs
    settings |= {"shape": shape, "padding_value": rng.choice((-1, 0, 1))}
    return Step(name, op, (source,), settings, {"bits": pack_signs(np.ones(shape))}), outputs


def test_random_windows_are_refused_or_run_as_checked(tmp_path, bounded):
    outcomes = []
    manifest = json.loads(Manifest("classification", "x", PictureInput(1, 9, (0.5,), (0.2,))).to_json())
    for seed in range(600):
        bounded()
        rng = random.Random(seed)
        steps, channels, source = [], 1, "input"
        for number in range(rng.randint(1, 4)):
            step, channels = random_window(rng, f"s{number}", source, channels)
            steps.append(step)
            source = step.name
        steps += [Step("mean", "mean2d", (source,)), Step("row", "flatten", ("mean",))]
        side = rng.choice((1, 2, 5, 9, 20))
        manifest["input"]["size_px"] = side
        program = {
            "input_shape": [1, side, side],
            "steps": [
                {**{k: getattr(s, k) for k in ("name", "op", "inputs", "settings")}, "tensors": list(s.tensors)}
                for s in steps
            ],
        }
        tensors = {f"{i}.{name}": array for i, s in enumerate(steps) for name, array in s.tensors.items()}
        write(tmp_path / "x", program, manifest, tensors)
        outcomes.append(refused(tmp_path / "x"))
        if not outcomes[-1]:
            try:
                runs_as_checked(tmp_path / "x")
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert 100 <= sum(outcomes) <= 500

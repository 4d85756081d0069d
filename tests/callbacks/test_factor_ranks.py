import math

import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.callbacks import FactorRanks, factor_ranks
from bnnlight.metrics import singular_values
from bnnlight.nn import CP, Dense, Holistic, Matrix, Rotated, TensorTrain, Tucker

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore:Trying to compute SVD"
)

LATENTS = {
    "dense": Dense,
    "matrix": lambda w: Matrix(w, 0.5, start="balanced"),
    "tucker": lambda w: Tucker(w, 0.5),
    "holistic": lambda w: Holistic(w, 0.5),
    "cp": lambda w: CP(w, 2),
    "tensor train": lambda w: TensorTrain(w, 0.5),
    "rotated": Rotated,
}
KINDS = ("effective", "stable", "energy", "nominal")


def ranks(matrix):
    """All four by numpy, from a singular value decomposition of the matrix itself."""
    matrix = np.asarray(matrix, np.float64)
    s = np.linalg.svd(matrix, compute_uv=False)
    p = s[s > 1e-10 * s[0]] / s.sum()
    energy = np.cumsum(s**2) / np.sum(s**2)
    return {
        "effective": pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-5),
        "stable": pytest.approx((np.linalg.norm(matrix) / np.linalg.norm(matrix, 2)) ** 2, rel=1e-5),
        "energy": int(np.argmax(energy >= 0.9)) + 1,
        # of weights after a few steps of training: all that the decomposition admits
        "nominal": np.linalg.matrix_rank(matrix, tol=1e-6 * s[0]),
    }


def factors(latent):
    if isinstance(latent, Matrix):
        found = {"factor0": latent.U, "factor1": latent.V}
    elif isinstance(latent, Tucker | CP):
        found = {f"factor{m}": factor for m, factor in enumerate(latent.factors)}
    elif isinstance(latent, Holistic):
        first, *rest = latent.shared.factors
        found = {"factor_layers": first} | {f"factor{m}": factor for m, factor in enumerate(rest)}
    elif isinstance(latent, TensorTrain):
        found = {f"factor{m}": core.permute(1, 0, 2).flatten(1) for m, core in enumerate(latent.cores)}
    else:
        found = {}
    return {name: factor.detach().numpy() for name, factor in found.items()}


def expected(layers):
    values = {}
    for path, layer in layers.items():
        weight = layer.latent().detach().numpy()
        unfolded = {
            f"mode{m}": np.moveaxis(weight, m, 0).reshape(len(np.moveaxis(weight, m, 0)), -1)
            for m in range(weight.ndim)
        }
        for name, matrix in (unfolded | factors(layer.latent)).items():
            values |= {f"bnn/rank_{kind}/{path}/{name}": value for kind, value in ranks(matrix).items()}
    return values


@pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
def test_ranks_of_every_mode_and_factor_equal_numpys(fit, network, latent):
    _, logged, layers = fit(FactorRanks(interval=2), network=network(latent), max_steps=4)
    assert sorted(logged) == [0, 2, 4]
    for step in (2, 4):
        assert logged[step] == expected(layers[step])
    # the same keys at the start, where a decomposition of random weights has its full ranks
    assert logged[0].keys() == logged[2].keys()
    assert all(f"bnn/rank_{kind}/body.2/mode{m}" in logged[0] for kind in KINDS for m in range(4))
    assert logged[2] != logged[4]


def test_nominal_ranks_by_hand(fit, network):
    _, logged, _ = fit(FactorRanks(), network=network(lambda w: Tucker(w, 2)), max_steps=1)
    found = {key.removeprefix("bnn/rank_nominal/"): v for key, v in logged[0].items() if "nominal" in key}
    assert {key: v for key, v in found.items() if key.startswith("body.1")} == {
        **{f"body.1/mode{m}": rank for m, rank in enumerate((2, 2, 3, 3))},
        **{f"body.1/factor{m}": rank for m, rank in enumerate((2, 2, 3, 3))},
    }
    assert found["head/mode0"] == found["head/mode1"] == 2


def test_looks_at_the_end_where_the_last_look_is_older(fit):
    _, logged, _ = fit(FactorRanks(interval=3), max_steps=5)
    assert sorted(logged) == [0, 3, 5]
    _, logged, _ = fit(FactorRanks(), max_steps=2)
    assert sorted(logged) == [0, 2]


def test_steps_are_counted_and_not_batches(fit):
    _, logged, _ = fit(FactorRanks(interval=2), max_steps=4, accumulate_grad_batches=3)
    assert sorted(logged) == [0, 2, 4]


@pytest.mark.parametrize(("num_steps", "looks"), [(3, [4, 5]), (4, [5])])
def test_a_resumed_run_does_not_begin_with_a_look(fit, tmp_path, num_steps, looks):
    trainer, _, _ = fit(FactorRanks(interval=2), max_steps=num_steps)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    ranks = FactorRanks(interval=2)
    # the state as it is in a checkpoint that was written before training ended
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["FactorRanks"] == {"last_step": num_steps}
    _, logged, _ = fit(ranks, max_steps=5, ckpt_path=tmp_path / "last.ckpt")
    assert sorted(logged) == looks


def test_shared_tensors_are_decomposed_once_and_logged_for_each_layer(fit, network, monkeypatch):
    seen = []
    monkeypatch.setattr(factor_ranks, "singular_values", lambda matrix: seen.append(matrix) or singular_values(matrix))
    _, logged, _ = fit(FactorRanks(interval=9), network=network(Holistic), max_steps=1)
    # body.0, joined body.1 and body.2, head: unfoldings 4 + 4 + 4 + 2, factors 5 + 5 + 3, at two looks
    assert len(seen) == 2 * (14 + 13)
    for kind in KINDS:
        for name in ("factor_layers", "factor0", "factor1", "factor2", "factor3"):
            one, other = (logged[0][f"bnn/rank_{kind}/body.{n}/{name}"] for n in (1, 2))
            assert one == other
    assert logged[0]["bnn/rank_nominal/body.1/factor_layers"] == 2


def test_a_network_that_diverged_goes_on_training(fit, network):
    model = network(Tucker)
    with torch.no_grad():
        model.head.latent.core[0, 0] = math.nan
    _, logged, _ = fit(FactorRanks(interval=1), network=model, max_steps=1)
    assert math.isnan(logged[0]["bnn/rank_effective/head/mode0"])
    assert math.isfinite(logged[0]["bnn/rank_effective/body.0/mode0"])


def test_a_network_without_binary_layers_logs_nothing(fit, network):
    model = network()
    model.body, model.head = nn.Flatten(), nn.Linear(32, 3)
    _, logged, _ = fit(FactorRanks(interval=1), network=model, max_steps=2)
    assert logged == {}


@pytest.mark.parametrize("interval", [0, -5])
def test_interval_below_one_is_an_error(interval):
    with pytest.raises(ValueError, match=f"interval is {interval}"):
        FactorRanks(interval)

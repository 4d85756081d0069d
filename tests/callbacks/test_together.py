"""All callbacks at once: what they must leave alone."""

import pytest
import torch

from bnnlight.callbacks import Activations, Alphas, FactorRanks, FlipRates, StepTime
from bnnlight.nn import Holistic, Tucker

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")

CALLBACKS = (FlipRates, FactorRanks, Alphas, Activations, StepTime)


@pytest.mark.parametrize("latent", [Tucker, Holistic])
@pytest.mark.parametrize("scale", ["channel", "analytic"])
def test_looking_changes_neither_weights_nor_gradients_nor_random_numbers(fit, network, latent, scale):
    outcomes = []
    for callbacks in ((), [make(interval=1) for make in CALLBACKS]):
        torch.manual_seed(1)
        model = network(latent, scale)
        gradients = []
        model.on_before_optimizer_step = lambda optimizer, model=model, gradients=gradients: gradients.extend(
            p.grad.clone() for p in model.parameters()
        )
        _, logged, _ = fit(*callbacks, network=model, max_steps=3)
        outcomes.append((torch.rand(1), *model.state_dict().values(), *gradients))
    assert len(logged[3]) > 100
    assert len(outcomes[0]) == len(outcomes[1])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_each_keeps_its_own_keys_and_every_layer_is_in_all_of_them(fit):
    _, logged, _ = fit(*(make(interval=2) for make in CALLBACKS), max_steps=4)
    kinds = ("flip_rate", "alpha_mean", "alpha_std", "alpha_min", "alpha_max", "alpha_negative")
    kinds += ("positive", "dead", "cut")
    ranks = [f"rank_{kind}" for kind in ("effective", "stable", "energy", "nominal")]
    modes = {"body.0": 4, "body.1": 4, "body.2": 4, "head": 2}
    expected = {f"bnn/{kind}/{layer}" for kind in kinds for layer in modes}
    expected |= {
        f"bnn/{rank}/{layer}/mode{m}" for rank in ranks for layer, count in modes.items() for m in range(count)
    }
    expected |= {"bnn/flip_rate_mean", "time/step", "time/data", "mem/peak"}
    assert logged[2].keys() == logged[4].keys() == expected
    assert all(isinstance(value, float) for values in logged.values() for value in values.values())


def test_what_they_keep_is_small(fit, network):
    callbacks = [make(interval=1) for make in CALLBACKS]
    trainer, _, _ = fit(*callbacks, network=network(), max_steps=2)
    num_weights = sum(p.numel() for name, p in trainer.model.named_parameters() if "latent" in name)

    def num_bytes(kept):
        if isinstance(kept, torch.Tensor):
            return kept.numel() * kept.element_size()
        kept = list(kept.values()) if isinstance(kept, dict) else kept
        return sum(map(num_bytes, kept)) if isinstance(kept, list | tuple) else 0

    # four bytes a weight; a bit each, and what fills each layer's last byte
    assert 0 < sum(num_bytes(vars(callback)) for callback in callbacks) <= num_weights * 4 / 32 + 4

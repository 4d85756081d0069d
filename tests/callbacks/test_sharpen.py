import lightning
import pytest
import torch

from bnnlight.callbacks import Sharpen
from bnnlight.nn import Tanh, Triangular, named_binary_layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


class Seen(lightning.Callback):
    """What gradients the layers have as a batch's loss goes backward: (step, of activations, of weights) of each."""

    def __init__(self):
        self.rows = []

    def on_before_backward(self, trainer, pl_module, loss):
        layers = [layer for _, layer in named_binary_layers(pl_module)]
        activations, weights = ({getattr(layer, f"{kind}_gradient") for layer in layers} for kind in KINDS)
        assert len(activations) == len(weights) == 1  # all layers alike
        self.rows.append((trainer.global_step, activations.pop(), weights.pop()))


KINDS = ("activation", "weight")


@pytest.mark.parametrize("of", ["activations", "weights", "both"])
def test_sharpness_rises_evenly_in_its_logarithm_for_what_is_asked(fit, of):
    seen = Seen()
    _, logged, _ = fit(Sharpen(of=of, interval=1), seen, max_steps=4)
    # four steps from 1/10 to 10: the square root of ten at each
    expected = [0.1, 10**-0.5, 1.0, 10**0.5]
    for (step, *gradients), t in zip(seen.rows, expected, strict=True):
        for gradient, kind in zip(gradients, ("activations", "weights"), strict=True):
            if of in (kind, "both"):
                assert isinstance(gradient, Tanh) and gradient.sharpness == pytest.approx(t, rel=1e-12), (step, kind)
            else:
                assert gradient == "clipped"
    assert {step: values["bnn/sharpness"] for step, values in logged.items()} == {
        step: pytest.approx(t, rel=1e-12) for step, t in enumerate([*expected, 10.0])
    }


def test_a_triangle_with_a_least_sharpness_of_activations(fit):
    seen = Seen()
    fit(Sharpen(start=0.01, shape="triangular", activations_from=1.0), seen, max_steps=3)
    # three steps from 1/100 to 10: a factor of ten at each
    for (_, activations, weights), t in zip(seen.rows, [0.01, 0.1, 1.0], strict=True):
        assert isinstance(weights, Triangular) and isinstance(activations, Triangular)
        assert (weights.steepness, activations.steepness) == (pytest.approx(t), pytest.approx(1.0))


def test_the_way_from_start_to_end_may_go_down_and_is_logged_at_intervals(fit):
    _, logged, _ = fit(Sharpen(start=8.0, end=0.5, interval=3), max_steps=4)
    assert {step: values["bnn/sharpness"] for step, values in logged.items()} == {
        0: 8.0,
        3: pytest.approx(1.0),
        4: pytest.approx(0.5),
    }


def test_steps_are_counted_and_not_batches(fit):
    seen = Seen()
    fit(Sharpen(start=1.0, end=16.0), seen, max_steps=2, accumulate_grad_batches=3)
    assert [row[1].sharpness for row in seen.rows] == [1, 1, 1, 4, 4, 4]


def test_epochs_of_few_batches_are_part_of_one_plan(fit):
    trainer, logged, _ = fit(Sharpen(interval=1), max_steps=6, limit_train_batches=2)
    assert logged[3]["bnn/sharpness"] == pytest.approx(1.0)
    assert trainer.current_epoch == 3


class Kept(lightning.Callback):
    """Saves a checkpoint in the middle of a run."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 4:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_is_the_unbroken_one(fit, tmp_path, network):
    rows, logged = [], []
    for ckpt_path in (None, tmp_path / "kept.ckpt"):
        seen = Seen()
        callbacks = [Sharpen(interval=2), seen, *([] if ckpt_path else [Kept(tmp_path / "kept.ckpt")])]
        _, found, _ = fit(*callbacks, network=network(), max_steps=7, ckpt_path=ckpt_path)
        rows.append(seen.rows)
        logged.append(found)
    assert rows[1] == rows[0][4:] and len(rows[1]) == 3
    assert logged[1] == {step: values for step, values in logged[0].items() if step > 4}
    assert sorted(logged[1]) == [6, 7]


def test_sharpening_changes_what_is_learned(fit, network):
    outcomes = []
    for callbacks in ([], [Sharpen(of="weights")], [Sharpen(of="activations")], [Sharpen()]):
        torch.manual_seed(1)
        model = network()
        fit(*callbacks, network=model, max_steps=3)
        outcomes.append(model.body[0].latent.weight.detach())
    assert all(not torch.equal(a, b) for i, a in enumerate(outcomes) for b in outcomes[:i])


def test_a_run_without_end_is_an_error(fit):
    with pytest.raises(ValueError, match=r"sharpness for: set trainer\.max_epochs or"):
        fit(Sharpen(), max_steps=-1)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"start": 0.0}, "sharpness is 0.0: give"),
        ({"end": float("inf")}, "sharpness is inf: give"),
        ({"of": "signs"}, "'signs': choose one of activations, weights, both"),
        ({"interval": 0}, "interval is 0"),
        ({"shape": "round"}, "no shape 'round': choose one of tanh, triangular"),
        ({"activations_from": -1.0}, "activations_from of Sharpen is -1.0: give"),
    ],
)
def test_wrong_options(options, part):
    with pytest.raises(ValueError, match=part):
        Sharpen(**options)

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn

from bnnlight.nn import BinaryConv2d, Dense, Holistic, Matrix, Tucker, factorize
from bnnlight.tasks import ClassificationTask, PoseTask
from bnnlight.tasks.optimization import configure_optimizers, make_optimizer, warmup_cosine


def network(latent=Dense):
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BinaryConv2d(4, 4, 3), nn.PReLU(4), BinaryConv2d(4, 4, 3)
    return factorize(nn.Sequential(*layers), latent)


def settings(optimizer):
    """(learning rate, weight decay) by parameter."""
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr"], group["weight_decay"])
    return found


@pytest.mark.parametrize(
    ("make", "lr"),
    [
        (lambda groups: torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.05), 2e-3),
        (lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.05), 0.1),
    ],
)
@pytest.mark.parametrize("latent", [Dense, lambda w: Matrix(w, start="balanced"), Tucker, Holistic])
def test_every_parameter_has_its_rate_and_decay(latent, make, lr):
    model = network(latent)
    found = settings(make_optimizer(model, make, alpha_lr=0.5))
    assert set(found) == {id(p) for p in model.parameters()}
    assert found.pop(id(model[0].weight)) == (lr, 0.05)
    for layer in (model[2], model[4]):
        assert found.pop(id(layer.scale.alpha)) == (pytest.approx(lr * 0.5), 0)
        for name, parameter in layer.latent.named_parameters():
            wanted = pytest.approx(lr * layer.latent.lr_scales[name], rel=0.05), 0
            assert found.pop(id(parameter), None) in (None, wanted)  # None: shared, and seen before
    # bias, batch norm and PReLU
    assert list(found.values()) == [(lr, 0)] * 4


def test_default_decay_of_the_optimizer_stays_on_real_weights():
    model = network()
    found = settings(make_optimizer(model, torch.optim.AdamW))
    assert found[id(model[0].weight)] == (1e-3, 1e-2)
    assert {decay for parameter, (_, decay) in found.items() if parameter != id(model[0].weight)} == {0}


def test_a_step_moves_only_what_has_a_rate():
    model = network(lambda w: Tucker(w, factor_lr=0.0))
    optimizer = make_optimizer(model, lambda groups: torch.optim.SGD(groups, lr=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not any("factors" in name for name in moved)
    assert {"2.latent.core", "2.scale.alpha", "0.weight"} <= moved


def test_a_learning_rate_given_as_a_tensor_is_scaled_for_each_group_alone():
    model = network()
    optimizer = make_optimizer(model, lambda g: torch.optim.SGD(g, lr=torch.tensor(0.1)), alpha_lr=0.5)
    rates = {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
    assert rates == {name: pytest.approx(0.05 if name == "alpha" else 0.1) for name in rates}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("lr", [0.0, -0.1, math.nan, math.inf])
def test_a_learning_rate_that_is_none_is_an_error(optimizer, lr, check_one_line):
    with pytest.raises(ValueError) as error:
        make_optimizer(network(), lambda groups: optimizer(groups, lr=lr))
    check_one_line(error, "model.optimizer.lr", lr, "give a number above 0")


@pytest.mark.parametrize("alpha_lr", [-0.1, math.nan, math.inf])
def test_a_relative_rate_of_alpha_that_is_none_is_an_error_at_once(alpha_lr, check_one_line):
    for task in (ClassificationTask, PoseTask):
        with pytest.raises(ValueError) as error:
            task(network(), alpha_lr=alpha_lr)
        check_one_line(error, f"alpha_lr is {alpha_lr}: give a finite number of at least 0")


def factors(num_steps, warmup):
    """Learning rates over a run, as shares of the peak, for two groups of different rate."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1], "lr": 0.4}, {"params": parameters[1:], "lr": 0.1}])
    scheduler = warmup_cosine(optimizer, num_steps, warmup)
    seen = []
    for _ in range(num_steps + 1):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(4 * second)
        seen.append(first / 0.4)
        optimizer.step()
        scheduler.step()
    return seen


def test_schedule_by_hand():
    # 20 of 100 steps warm up, from 1/21 in even steps; then half a cosine over the 80 that are left
    seen = factors(100, 0.2)
    assert seen[0] == pytest.approx(1 / 21)
    assert seen[10] == pytest.approx(11 / 21)
    assert seen[19] == pytest.approx(20 / 21)
    assert seen[20] == 1
    assert seen[40] == pytest.approx((1 + math.sqrt(0.5)) / 2)  # a quarter of the way: cos 45°
    assert seen[60] == pytest.approx(0.5)
    assert seen[80] == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert 0 < seen[99] < 0.001
    assert seen[100] == pytest.approx(0, abs=1e-12)
    assert max(seen) == 1


def test_schedule_without_warm_up_begins_at_the_peak_and_stays_at_zero():
    seen = factors(4, 0.0)
    assert seen == [1, pytest.approx((1 + math.sqrt(0.5)) / 2), pytest.approx(0.5), pytest.approx(0.14645, abs=1e-5), 0]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = warmup_cosine(optimizer, 2, 0.0)
    for _ in range(5):  # more steps than planned must not climb the cosine again
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0]


def test_schedule_of_a_single_step_is_not_zero_from_the_start():
    assert factors(1, 0.9)[0] > 0
    assert factors(1, 0.0)[0] == 1


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 5, float("nan")])
def test_warm_up_out_of_range_is_an_error(warmup):
    with pytest.raises(ValueError, match="warmup is"):
        warmup_cosine(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), 10, warmup)


@pytest.mark.parametrize("num_steps", [0, -1, float("inf")])
def test_a_run_without_end_is_an_error(num_steps):
    with pytest.raises(ValueError, match=r"max_epochs or trainer\.max_steps"):
        warmup_cosine(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), num_steps, 0.1)


class Attached(nn.Module):
    """Stands for a LightningModule in a trainer that plans so many steps."""

    def __init__(self, num_steps, every=1):
        super().__init__()
        self.backbone = network()
        self.trainer = SimpleNamespace(
            estimated_stepping_batches=num_steps, check_val_every_n_epoch=every, max_epochs=9
        )


def test_default_schedule_runs_over_the_whole_run_once_a_batch():
    made = configure_optimizers(Attached(50), lambda g: torch.optim.SGD(g, lr=0.1), None, 0.2, 0.5)
    assert made["lr_scheduler"]["interval"] == "step"
    # 10 of 50 steps warm up, so the first runs at 1/11, with α at half of that
    rates = {group["name"]: group["lr"] for group in made["optimizer"].param_groups}
    assert rates["weight"] == pytest.approx(0.1 / 11)
    assert rates["alpha"] == pytest.approx(0.05 / 11)


def test_own_schedule_steps_once_an_epoch():
    made = configure_optimizers(
        Attached(50),
        lambda g: torch.optim.SGD(g, lr=0.1),
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1),
        0.2,
        1.0,
    )
    assert isinstance(made["lr_scheduler"]["scheduler"], torch.optim.lr_scheduler.StepLR)
    assert made["lr_scheduler"]["interval"] == "epoch"
    assert "monitor" not in made["lr_scheduler"]
    assert {group["lr"] for group in made["optimizer"].param_groups} == {0.1}  # no warm-up in between


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("OneCycleLR: max_lr", lambda o, rates: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=rates, total_steps=9)),
        ("CyclicLR: max_lr", lambda o, rates: torch.optim.lr_scheduler.CyclicLR(o, base_lr=0.1, max_lr=rates)),
        ("SWALR: swa_lr", lambda o, rates: torch.optim.swa_utils.SWALR(o, swa_lr=rates)),
        ("ReduceLROnPlateau: min_lr", lambda o, rates: ReduceLROnPlateau(o, monitor="val/loss", min_lr=rates)),
    ],
)
def test_a_list_of_rates_is_refused_and_one_number_is_not(name, make, check_one_line):
    def configure(*rates):
        optimizer = lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9)  # noqa: E731
        schedule = lambda o: make(o, list(rates) if len(rates) > 1 else rates[0])  # noqa: E731
        return configure_optimizers(Attached(50), optimizer, schedule, 0.2, 1.0)

    with pytest.raises(ValueError) as error:
        configure(0.1, 0.2, 0.3, 0.4)
    check_one_line(error, f"{name} is a list: give one number")
    assert configure(0.2)


def test_a_schedule_shorter_than_the_run_is_refused_at_once():
    make = lambda steps: lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=steps)  # noqa: E731
    with pytest.raises(ValueError, match=r"total_steps is 8, .* 9 epochs: set scheduler.total_steps to 9"):
        configure_optimizers(Attached(50), lambda g: torch.optim.SGD(g, lr=0.1), make(8), 0.2, 1.0)
    configure_optimizers(Attached(50), lambda g: torch.optim.SGD(g, lr=0.1), make(9), 0.2, 1.0)


def test_plateau_schedule_says_what_it_watches():
    made = configure_optimizers(
        Attached(50, every=3),
        lambda g: torch.optim.SGD(g, lr=0.1),
        lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/acc1"),
        0.2,
        1.0,
    )
    # looked at when there is a figure of it
    assert made["lr_scheduler"]["monitor"] == "val/acc1" and made["lr_scheduler"]["frequency"] == 3

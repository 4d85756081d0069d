"""Which layers `convert` takes for the first and for the answer's own, in networks of all shapes."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import detection, segmentation
from torchvision.models.detection import backbone_utils
from torchvision.models.detection.anchor_utils import AnchorGenerator

from bnnlight.nn import convert, named_binary_layers, plan_conversion


def names(model):
    return [name.removesuffix(".conv") for name, _ in named_binary_layers(model)]


class Net(nn.Module):
    """1×1 convolutions in this order of registration, and what is done with them. One named stem sees a picture."""

    def __init__(self, run, layers):
        super().__init__()
        self.run = run
        for name in layers:
            setattr(self, name, nn.Conv2d(3 if name.startswith("stem") else 4, 4, 1))

    def forward(self, x):
        return self.run(self, x)


def stacked(net, x):
    first = net.head(net.body(net.stem(x)))
    return [first, net.head2(net.body2(net.again(first)))]


def detached(net, x):
    x = net.body(net.stem(x))
    return net.head(x), net.body2(x.detach())


def frozen_part(net, x):
    with torch.no_grad():
        x = net.body(net.stem(x))
    return net.head(x)


def residual(net, x):
    x = net.stem(x)
    x = x + net.body(x)
    return x + net.body2(x)


# what is done, the layers in the order of registration, those that stay real
NETWORKS = {
    "one after the other": (lambda n, x: n.head(n.body(n.stem(x))), "stem body head", "stem head"),
    "registered backwards": (lambda n, x: n.head(n.body(n.stem(x))), "head body stem", "head stem"),
    "activation in place": (lambda n, x: F.relu(n.head(n.body(n.stem(x))), True), "stem body head", "stem head"),
    "two heads": (
        lambda n, x: {"a": n.head(n.body(n.stem(x))), "b": [(n.head2(n.body(n.stem(x))),)]},
        "stem head head2 body",
        "stem head head2",
    ),
    "heads that are added": (
        lambda n, x: n.head(n.body(n.stem(x))) + n.head2(n.stem(x)),
        "stem head head2 body",
        "stem head head2",
    ),
    "heads that are joined": (
        lambda n, x: torch.cat([n.head(n.body(n.stem(x))), n.head2(n.stem(x))], 1),
        "stem head head2 body",
        "stem head head2",
    ),
    "stacks": (stacked, "stem body head again body2 head2", "stem head head2"),
    "shortcut to the end": (lambda n, x: n.stem(x) + n.head(n.body(n.stem(x))), "stem body head", "stem head"),
    "sum along shortcuts": (residual, "stem body body2", "stem body2"),
    "gates": (
        lambda n, x: n.head(n.stem(x) * n.gate(n.body(n.stem(x).mean((2, 3), keepdim=True))).sigmoid()),
        "stem body gate head",
        "stem head",
    ),
    "only a loss looks at it": (detached, "stem body head body2", "stem head body2"),
    "a part without gradients": (frozen_part, "stem body head", "stem head"),
    "two pictures in one": (
        lambda n, x: n.head(n.body(n.stem(x) + n.stem2(x.flip(3)))),
        "stem stem2 body head",
        "stem stem2 head",
    ),
    "again and again": (lambda n, x: n.head(n.body(n.body(n.stem(x)))), "stem body head", "stem head"),
    "never used": (lambda n, x: n.head(n.body(n.stem(x))), "stem body head spare", "stem head spare"),
}


@pytest.mark.parametrize(("run", "layers", "real"), NETWORKS.values(), ids=NETWORKS)
def test_first_and_last_are_seen_by_running(run, layers, real):
    model = Net(run, layers.split())
    plan = plan_conversion(model)
    assert not plan.refused
    assert list(plan.real) == real.split()
    assert names(convert(model)) == list(plan.binary) == [name for name in layers.split() if name not in real.split()]


def test_each_is_converted_on_request():
    run, layers, _ = NETWORKS["two heads"]
    assert names(convert(Net(run, layers.split()), keep_first=False)) == ["stem", "body"]
    assert names(convert(Net(run, layers.split()), keep_last=False)) == ["head", "head2", "body"]
    assert names(convert(Net(run, layers.split()), keep=("head2",), keep_last=False)) == ["head", "body"]


def test_a_run_leaves_no_trace():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Dropout(), nn.Conv2d(4, 2, 1))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        plan_conversion(model)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_a_network_shows_before_it_breaks_off_is_enough_for_linear_answers():
    # 28 px are none of the sizes that are tried
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    )
    assert names(convert(model)) == ["2"]


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 cannot run it uncompiled")
def test_a_compiled_network_is_not_compiled_for_the_run():
    graphs = []
    compiled = torch.compile(Net(*NETWORKS["stacks"][:1], NETWORKS["stacks"][1].split()), backend=graphs.append)
    assert names(convert(compiled)) == ["_orig_mod.body", "_orig_mod.again", "_orig_mod.body2"]
    assert not graphs


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x, y):
        return self.head(self.body(self.stem(x + y)))


def test_a_network_that_cannot_be_run_is_refused_unless_the_answer_is_named():
    with pytest.raises(ValueError, match=r"layers body, head: whether the answer .*3×64×64 .*missing.*keep_last=False"):
        convert(TwoInputs())
    assert names(convert(TwoInputs(), keep=("head",), keep_last=False)) == ["body"]


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_network_that_is_not_whole_yet_is_refused_and_not_run():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"^layers 0, 1: the network cannot be run .* its 3\.weight has no numbers"):
        convert(model)
    model(torch.zeros(1, 3, 5, 5))  # now its size is known
    assert names(convert(model)) == ["1"]


def test_an_input_shape_that_does_not_fit_says_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(100, 2))
    with pytest.raises(ValueError, match=r"^the network does not run on a picture of 3×6×6 \(RuntimeError: "):
        convert(model, input_shape=(3, 6, 6))
    assert names(convert(model, input_shape=(3, 5, 5))) == ["1"]


def test_what_stays_real_is_told_with_its_reason():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 3), nn.Conv2d(8, 8, 1), nn.Flatten(2)
    )
    model.extend([nn.Conv1d(8, 8, 3), nn.Linear(1, 4)])
    plan = plan_conversion(model, keep=("3",))
    assert plan.binary == ("1",)
    assert {path: reason.split(":")[0] for path, reason in plan.real.items()} == {
        "0": "it sees the picture first",
        "2": "ConvTranspose2d",
        "3": "kept by '3'",
        "5": "Conv1d",
        "6": "Linear",
    }
    assert not any(True for _ in named_binary_layers(model))


def mask_rcnn():
    pyramid = backbone_utils.mobilenet_backbone(backbone_name="mobilenet_v3_small", weights=None, fpn=True)
    anchors = AnchorGenerator(((32,),) * 3, ((1.0,),) * 3)  # for three levels
    return detection.MaskRCNN(pyramid, num_classes=3, rpn_anchor_generator=anchors, min_size=64, max_size=64)


DETECTION = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 64}
HEADS = {
    "fcn": (
        lambda: segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True),
        ["classifier.4", "aux_classifier.4"],
    ),
    "lraspp": (
        lambda: segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None),
        ["classifier.low_classifier", "classifier.high_classifier"],
    ),
    "mask r-cnn": (
        mask_rcnn,
        ["rpn.head.cls_logits", "rpn.head.bbox_pred", "roi_heads.mask_predictor.mask_fcn_logits"],
    ),
    "fcos": (
        lambda: detection.fcos_resnet50_fpn(**DETECTION),
        ["head.classification_head.cls_logits", "head.regression_head.bbox_reg", "head.regression_head.bbox_ctrness"],
    ),
    "ssdlite": (
        lambda: detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None),
        [f"head.{kind}_head.module_list.{i}.1" for kind in ("classification", "regression") for i in range(6)],
    ),
}


@pytest.mark.parametrize(("make", "answers"), HEADS.values(), ids=HEADS)
def test_heads_of_torchvisions_networks(make, answers):
    plan = plan_conversion(make())
    assert not plan.refused
    assert [path for path, reason in plan.real.items() if reason == "the answer comes from it"] == answers


def test_heads_that_only_training_uses_stay_real():
    model = torchvision.models.googlenet(num_classes=4, aux_logits=True, init_weights=False)
    plan = plan_conversion(model)
    assert {path for path, reason in plan.real.items() if "eval mode" in reason} == {"aux1.conv.conv", "aux2.conv.conv"}

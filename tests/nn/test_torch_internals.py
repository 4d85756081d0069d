"""What the package has to know of torch's modules and tensors, which torch may change."""

import pytest
import torch
from torch import nn

from bnnlight.nn.torch_internals import (
    BatchNorm,
    become,
    check_dims,
    has_forward_hook,
    has_gradient_hook,
    transformed,
    version,
)


def test_every_kind_of_hook_is_kept_and_nothing_else():
    plain = set(vars(nn.Identity()))
    old, new = nn.Conv2d(2, 3, 1).eval(), nn.Linear(4, 5)
    hooks = {name: value for name, value in vars(old).items() if "hook" in name}
    # these are what `register_…hook` of a module write to; see also the test of each in test_convert_keeps.py
    assert len(hooks) == sum("hook" in name for name in plain) > 8
    expected = new(torch.ones(2, 4))
    become(old, new)
    assert type(old) is nn.Linear and torch.equal(old(torch.ones(2, 4)), expected)
    assert set(vars(old)) == set(vars(nn.Linear(4, 5)))
    assert all(vars(old)[name] is value for name, value in hooks.items())
    assert not old.training
    assert [name for name, _ in old.named_parameters()] == ["weight", "bias"]


def test_gradient_hooks_are_seen():
    hooked, after, free = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    handle = hooked.register_hook(lambda gradient: gradient)
    after.register_post_accumulate_grad_hook(lambda parameter: None)
    assert (has_gradient_hook(hooked), has_gradient_hook(after), has_gradient_hook(free)) == (True, True, False)
    handle.remove()
    assert not has_gradient_hook(hooked)


def test_forward_hooks_are_seen():
    module = nn.Identity()
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *_: None)
        assert has_forward_hook(module), "torch keeps forward hooks elsewhere"
        handle.remove()
        assert not has_forward_hook(module)


def test_changes_in_place_are_counted_through_views_too():
    x = torch.zeros(2, 2)
    before = version(x)
    x[0].add_(1)
    assert version(x) > before, "torch counts changes in place elsewhere"


def test_transforms_are_seen():
    seen = []

    def look(x):
        seen.append(transformed())
        return x.sum()

    for transform in (torch.func.grad, torch.func.vmap, torch.func.jacrev):
        transform(look)(torch.ones(2))
    assert seen == [True] * 3, "torch tells elsewhere whether a transform is running"
    look(torch.ones(2))
    assert seen[-1] is False


def test_batch_norms_have_one_base_and_check_their_input():
    for kind, dims in ((nn.BatchNorm1d, 3), (nn.BatchNorm2d, 4), (nn.BatchNorm3d, 5), (nn.SyncBatchNorm, 4)):
        norm = kind(2)
        assert isinstance(norm, BatchNorm)
        check_dims(norm, torch.zeros((1, 2, 3, 3, 3)[:dims]))
        with pytest.raises(ValueError, match="1D"):
            check_dims(norm, torch.zeros(2))

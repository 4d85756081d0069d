"""What the package has to know of torch's modules and tensors, which torch may change."""

import torch
from torch import nn

from bnnlight.nn.become import become, has_gradient_hook


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

"""What a finetuning callback has frozen is put back; what was never trained or counted stays as it is."""

import torch
from torch import nn

from bnnlight.guards.callback_states import frozen_parts, restore_frozen_parts


def test_frozen_parts_are_put_back():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    model[2].track_running_stats = False
    kept = frozen_parts(model)
    assert kept == {"parameters": ["0.weight"], "norms": ["2"]}
    model.requires_grad_(False)
    model[2].track_running_stats = True
    restore_frozen_parts(model, kept)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.weight"]
    assert not model[2].track_running_stats and model[1].track_running_stats


def test_norms_that_never_kept_statistics_are_not_made_to():
    model = nn.ModuleList([nn.InstanceNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)])
    kept = frozen_parts(model)
    assert kept["norms"] == []
    restore_frozen_parts(model, kept)
    assert not any(norm.track_running_stats for norm in model)


def test_a_layer_that_counts_something_else_is_left_alone():
    layer = nn.Identity()
    layer.track_running_stats = False
    restore_frozen_parts(nn.Sequential(layer), frozen_parts(nn.Sequential(layer)))
    assert not layer.track_running_stats

import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from medical_vqa.errors import MissingDependencyError
from medical_vqa.training.optimizer import WeightAverage, adamw, schedule


def test_only_matrices_decay_and_frozen_weights_are_left_out():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    decayed, plain = adamw(module, learning_rate=1e-3, weight_decay=0.1).param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert decayed["weight_decay"] == 0.1
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0.0


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero():
    rates = [schedule(step, total=100, warmup=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_the_average_lags_behind_and_is_swapped_in_and_out():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    average = WeightAverage(module, decay=0.5)
    nn.init.constant_(module.weight, 1.0)
    average.update()  # first decay is min(0.5, 1 / 10): nine tenths of the way
    with average.swapped_in():
        assert module.weight.item() == pytest.approx(0.9)
    assert module.weight.item() == 1.0


def test_decay_zero_follows_the_weights():
    module = nn.Linear(1, 1)
    average = WeightAverage(module, decay=0.0)
    nn.init.constant_(module.weight, 5.0)
    average.update()
    with average.swapped_in():
        assert module.weight.item() == 5.0


def test_buffers_are_averaged_and_counters_copied():
    module = nn.BatchNorm1d(2)
    average = WeightAverage(module, decay=0.9)
    module(torch.ones(4, 2))
    average.update()
    with average.swapped_in():
        assert module.num_batches_tracked.item() == 1


def test_the_state_survives_a_checkpoint():
    module = nn.Linear(2, 2)
    average = WeightAverage(module, decay=0.9)
    nn.init.constant_(module.weight, 1.0)
    average.update()
    other = WeightAverage(nn.Linear(2, 2), decay=0.9)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.state_dict()["average"]["weight"], average.state_dict()["average"]["weight"])
    assert other.state_dict()["updates"] == 1


def test_an_optimizer_of_bitsandbytes_says_what_to_install_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match=r"optimizer adamw-8bit needs bitsandbytes.*train,qlora"):
        adamw(nn.Linear(2, 2), learning_rate=1e-3, weight_decay=0.0, name="adamw-8bit")

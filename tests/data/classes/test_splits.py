import random

import numpy as np
import pytest
import torch

from bnnlight.data.classes.splits import choose_stratified

CLASSES = ["ant", "bee", "cat"]
LABELS = [0] * 60 + [1] * 30 + [2] * 10


def choose(num_chosen=20, seed=0, labels=LABELS):
    return choose_stratified(labels, num_chosen, seed, CLASSES, "val_size")


def test_parts_are_disjoint_and_complete():
    chosen, others = choose()
    assert sorted([*chosen, *others]) == list(range(100))
    assert len(chosen) == 20


def test_every_class_keeps_its_share():
    chosen, others = choose()
    labels = np.array(LABELS)
    # 20 of 100 images: a fifth of 60, 30 and 10.
    assert np.bincount(labels[chosen]).tolist() == [12, 6, 2]
    assert np.bincount(labels[others]).tolist() == [48, 24, 8]


def test_choice_ignores_global_random_state():
    choices = []
    for run_seed in (1, 2):
        random.seed(run_seed)
        np.random.seed(run_seed)
        torch.manual_seed(run_seed)
        choices.append(choose()[0].tolist())
    assert choices[0] == choices[1]


def test_another_seed_chooses_others():
    assert choose(seed=0)[0].tolist() != choose(seed=1)[0].tolist()


def test_choice_is_random_within_a_class():
    chosen, _ = choose()
    assert chosen[:12].tolist() != list(range(12))


@pytest.mark.parametrize("num_chosen", [-1, 0, 2, 98, 100, 500])
def test_impossible_number_is_an_error_that_gives_the_range(num_chosen, check_one_line):
    with pytest.raises(ValueError) as error:
        choose(num_chosen)
    check_one_line(error, f"val_size asks for {num_chosen} of 100", "from 3 to 97")


@pytest.mark.parametrize("num_chosen", [3, 97])
def test_ends_of_the_range_are_possible(num_chosen):
    assert len(choose(num_chosen)[0]) == num_chosen


def test_single_image_of_a_class_is_an_error_that_names_the_class(check_one_line):
    with pytest.raises(ValueError) as error:
        choose(labels=[0] * 10 + [1] + [2] * 10)
    check_one_line(error, "class bee has a single image")

"""What of configs is compared, and what the columns are called."""

import pytest

from bnnlight.tracking.settings import as_text, differences, flatten, settings, short_names


@pytest.mark.parametrize(("config", "expected"), [({}, {}), ({"a": {}}, {"a": {}}), ({"a": {"b": [1]}}, {"a.b": [1]})])
def test_flatten(config, expected):
    assert flatten(config) == expected


def test_what_stands_in_a_list_is_named_by_its_class():
    callbacks = [
        {"class_path": "x.Turn", "init_args": {"every": 1}},
        {"class_path": "y.Sharpen"},
        {"class_path": "x.Turn", "init_args": {"every": 2, "parts": [{"class_path": "z.Part"}]}},
    ]
    config = flatten({"trainer": {"callbacks": callbacks, "pairs": [[1, 2], [3]]}, "model": {"sizes": [1, 2]}})
    assert settings(config) == {
        "trainer.callbacks": "Turn, Sharpen, Turn[1]",
        "trainer.callbacks.Turn.init_args.every": 1,
        "trainer.callbacks.Turn[1].init_args.every": 2,
        "trainer.callbacks.Turn[1].init_args.parts": "Part",
        "trainer.pairs[0]": [1, 2],
        "trainer.pairs[1]": [3],
        "model.sizes": [1, 2],
    }


def test_differences_model_first():
    first = {"trainer": {"max_epochs": 1, "logger": 1}, "data": {"size": 8}, "model": {"rank": 1.0, "kind": "a"}}
    second = {"trainer": {"max_epochs": 2, "logger": 2}, "data": {"size": 9}, "model": {"rank": 0.5, "kind": "a"}}
    configs = [flatten(config) for config in ({**first, "same": 1}, {**second, "same": 1.0})]
    assert differences(configs) == ["model.rank", "data.size", "trainer.max_epochs"]
    assert differences([*configs, {}])[:2] == ["model.rank", "model.kind"]


def test_what_only_some_have_comes_last_and_nothing_is_as_good_as_not_there():
    first = {"model.blocks": 2, "data.size": 8, "model.parts": [], "data.flip": None}
    assert differences([first, {"data.size": 9, "data.flip": 0}]) == ["data.size", "model.blocks", "data.flip"]


def test_names_are_as_short_as_they_can_be():
    keys = ["model.class_path", "model.init_args.backbone.init_args.latent.init_args.rank", "data.size", "x.size"]
    assert list(short_names(keys).values()) == ["model", "rank", "data.size", "x.size"]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [("a.class_path", "x.y.Z", "Z"), ("a", None, ""), ("a", [], ""), ("a", True, "true"), ("a", "x.y", "x.y")],
)  # fmt: skip
def test_settings_as_they_are_shown(key, value, text):
    assert as_text(key, value) == text

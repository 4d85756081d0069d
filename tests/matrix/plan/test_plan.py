"""Reading a plan, and every mistake in one as one line."""

import pytest

from bnnlight.matrix.plan.plan import read_plan
from bnnlight.matrix.runs.run import check_folders, final_runs, handed_on, slug


def test_a_plan_as_it_is_read(content, write, tmp_path):
    (tmp_path / "overlay.yaml").write_text("{}")
    content["methods"]["low"] = {"configs": ["overlay.yaml"], "seeds": [3], "rate_of": "dense", "group": "ranks"}
    content["search"]["values"] = ["3e-2", 0.01, 0.03]  # YAML 1.1 takes 3e-2 for a text
    plan = read_plan(write(content))
    assert plan.search.values == (0.01, 0.03) and plan.direction == "max"
    low, dense = plan.methods["low"], plan.methods["dense"]
    assert (low.configs, low.seeds, low.rate_of) == ((tmp_path / "overlay.yaml",), (3,), "dense")
    assert (low.group, dense.group) == ("ranks", "")
    assert (dense.seeds, dense.rate_of, dense.configs) == ((0, 1), "dense", ())
    assert list(plan.methods) == ["dense", "Tucker, rank ½", "low"]


def test_paths_are_relative_to_the_file(content, write, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.yaml").write_text("{}")
    content["config"] = "../base.yaml"
    path = write(content, "deep/plan.yaml")
    monkeypatch.chdir(tmp_path)
    assert read_plan(path).configs == (tmp_path / "base.yaml",)


def test_overlays_of_the_experiment_stand_in_front_of_a_methods(content, write, tmp_path):
    for name in ("over.yaml", "own.yaml"):
        (tmp_path / name).write_text("{}")
    content["config"] = [content["config"], "over.yaml"]
    content["methods"]["dense"]["configs"] = ["own.yaml"]
    plan = read_plan(write(content))
    (run, *_) = final_runs(plan, plan.methods["dense"], 0.1, tmp_path, {})
    assert run.configs == (*plan.configs, tmp_path / "own.yaml") and plan.configs[1] == tmp_path / "over.yaml"


def remove(key):
    return lambda content: content.pop(key)


def put(*keys, value):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


MISTAKES = {
    "unknown key": (put("metrik", value=1), ("'metrik'", "did you mean 'metric'?")),
    "unknown key of a method": (
        put("methods", "dense", "option", value={}), ("methods, dense", "'option'", "did you mean 'options'?")
    ),
    "unknown key of the search": (put("search", "value", value=[1]), ("search", "'value'", "did you mean 'values'?")),
    "no baseline": (remove("baseline"), ("no baseline is given",)),
    "another baseline": (put("baseline", value="denze"), ("baseline", "'denze'", "did you mean 'dense'?")),
    "no methods": (put("methods", value={}), ("methods", "empty")),
    "no seeds": (put("seeds", value=[]), ("seeds", "at least one")),
    "a seed twice": (put("seeds", value=[1, 1]), ("seeds", "different")),
    "seeds of a method": (put("methods", "dense", "seeds", value=[]), ("methods, dense: seeds",)),
    "no search seeds": (put("search", "seeds", value=[]), ("search: seeds",)),
    "no values": (put("search", "values", value=[]), ("search: values is empty",)),
    "values that are none": (put("search", "values", value=["fast"]), ("search: values", "numbers")),
    "no config": (put("config", value="lost.yaml"), ("config", "no such file", "lost.yaml")),
    "no config at all": (put("config", value=[]), ("config is empty",)),
    "no overlay of the experiment": (put("config", value=["lost.yaml"]), ("config", "no such file", "lost.yaml")),
    "no overlay": (put("methods", "dense", "configs", value=["x.yaml"]), ("methods, dense: configs", "x.yaml")),
    "one overlay": (put("methods", "dense", "configs", value="x.yaml"), ("methods, dense", "list of files")),
    "a direction": (put("direction", value="up"), ("direction", "max or min")),
    "own options": (put("options", value={"seed_everything": 1}), ("options", "seed_everything", "itself")),
    "searched option": (
        put("methods", "dense", "options", value={"model.init_args.optimizer.init_args.lr": 1}),
        ("methods, dense", "model.optimizer.lr", "search chooses"),
    ),
    "rate of nobody": (put("methods", "dense", "rate_of", value="Tuker"), ("methods, dense: rate_of", "'Tuker'")),
    "a curve of nobody": (
        put("curve", value={"name": "rank", "values": {"denze": 1}}), ("curve: values", "'denze'", "'dense'?")
    ),
    "a curve through zero": (put("curve", value={"name": "rank", "values": {"dense": 0}}), ("curve: values, dense",)),
    "a curve without a name": (put("curve", value={"values": {"dense": 1}}), ("curve: no name is given",)),
    "a list": (lambda content: content.update(methods=["dense"]), ("methods",)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(content, write, check_one_line, mistake):
    change, parts = MISTAKES[mistake]
    change(content)
    path = write(content)
    with pytest.raises(ValueError) as error:
        read_plan(path)
    check_one_line(error, path, *parts)


def test_a_value_cannot_be_lent_on(content, write, check_one_line):
    content["methods"]["dense"]["rate_of"] = "Tucker, rank ½"
    content["methods"]["low"] = {"rate_of": "dense"}
    with pytest.raises(ValueError) as error:
        read_plan(write(content))
    check_one_line(error, "methods, low", "'dense'", "no search of its own")


def test_no_yaml_is_one_line(tmp_path, check_one_line):
    (tmp_path / "bad.yaml").write_text("a: [1,\nb: 2")
    for name, kind, part in (("lost.yaml", OSError, "no such file"), ("bad.yaml", ValueError, "not valid YAML")):
        with pytest.raises(kind) as error:
            read_plan(tmp_path / name)
        check_one_line(error, name, part)


def test_names_become_folders_that_differ(content, write, check_one_line):
    assert slug("Tucker, rank ½") == "tucker-rank-1-2" and slug("dense, learned α") == "dense-learned-α"
    content["methods"]["Dense!"] = {}
    with pytest.raises(ValueError) as error:
        check_folders(read_plan(write(content)))
    check_one_line(error, "'dense'", "'Dense!'")


def test_options_for_every_run():
    assert handed_on(["--data.root=a=b", "--trainer.max_epochs", "3"]) == {"data.root": "a=b", "trainer.max_epochs": 3}
    for wrong in (["data.root=x"], ["--data.root"], ["--run_dir=x"], ["--config=x"]):
        with pytest.raises(ValueError, match="after --"):
            handed_on(wrong)

"""Optimizers as an axis: which rows and runs a plan has, what each is asked for, and every mistake as one line."""

import json

import pytest

from bnnlight.experiment import matrix_check
from bnnlight.matrix.plan.plan import read_plan
from bnnlight.matrix.runs.run import check_folders, final_runs, find_methods, search_runs

SGD = {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}}


@pytest.fixture
def plan(content):
    """Two methods with AdamW, the plan's own; one of them with SGD, at rates of its own."""
    content["optimizers"] = {
        "AdamW": None,
        "SGD": {"options": {"model.optimizer": SGD}, "values": ["1e-1", 1.0, 0.3], "methods": ["dense"]},
    }
    return content


@pytest.fixture
def matrix(bnnlight, write, content, fake, tmp_path, monkeypatch):
    """Run the verb on a plan in this process, a stand-in in place of `bnnlight fit`; networks are not built before."""
    monkeypatch.setattr(matrix_check, "check", lambda plan, names, *_: {name: {"trained": 9} for name in names})
    return lambda *args: bnnlight("matrix", write(content), "--runs", tmp_path / "runs", *args)


def test_each_pair_is_a_row_with_rates_of_its_own(plan, write, tmp_path):
    (tmp_path / "late.yaml").write_text("{}")
    plan["optimizers"]["SGD"] |= {"configs": ["late.yaml"], "methods": ["dense", "low"]}
    plan["methods"]["low"] = {"rate_of": "dense", "seeds": [5], "group": "ranks", "optimizers": ["SGD"]}
    read = read_plan(write(plan))
    check_folders(read)
    rows = {name: (m.base, m.optimizer.name, m.rate_of, m.search.values) for name, m in read.methods.items()}
    rates = (0.1, 0.3, 1.0)
    assert rows == {
        "dense": ("dense", "AdamW", "dense", (0.01, 0.03)),
        "Tucker, rank ½": ("Tucker, rank ½", "AdamW", "Tucker, rank ½", (0.01, 0.03)),
        "dense, SGD": ("dense", "SGD", "dense, SGD", rates),
        "low, SGD": ("low", "SGD", "dense, SGD", rates),
    }
    searched = list(search_runs(read, read.methods["dense, SGD"], tmp_path, {}))
    assert [run.name for run in searched] == [f"dense-sgd/search_lr{lr}_seed7" for lr in ("0.1", "0.3", "1")]
    (run,) = final_runs(read, read.methods["low, SGD"], 0.3, tmp_path, {"data.root": "x"})
    assert (run.name, run.configs[-1].name, run.seed) == ("low-sgd/lr0.3_seed5", "late.yaml", 5)
    # the class in front of its rate
    assert list(run.options)[-3:] == ["model.optimizer", "model.optimizer.lr", "data.root"]
    asked = run.asked()
    assert asked["model.optimizer.class_path"] == "torch.optim.SGD" and asked["model.optimizer.lr"] == 0.3
    assert find_methods(read, ["SGD"]) == ["dense, SGD", "low, SGD"] and find_methods(read, ["dense"]) == ["dense"]
    with pytest.raises(ValueError, match=r"--only: 'SGB' is not among the rows and optimizers: did you mean 'SGD'\?"):
        find_methods(read, ["SGB"])


def test_a_pair_whose_best_rate_was_at_the_edge_gets_more_of_them_alone(plan, write, tmp_path):
    plan["optimizers"]["SGD"] |= {"values": {"dense": [0.1, "3e-1", 0.03]}, "methods": ["dense", "Tucker, rank ½"]}
    read = read_plan(write(plan))
    values = {name: row.search.values for name, row in read.methods.items() if "SGD" in name}
    assert values == {"dense, SGD": (0.03, 0.1, 0.3), "Tucker, rank ½, SGD": (0.01, 0.03)}


def test_an_optimizer_may_have_seeds_and_take_the_rates_of_another(plan, write, tmp_path):
    plan["methods"]["low"] = {"rate_of": "dense"}
    plan["optimizers"]["SGD"]["methods"] = ["dense"]
    plan["optimizers"]["Nesterov"] = {
        "options": {"model.optimizer": {"class_path": "torch.optim.SGD", "init_args": {"nesterov": True}}},
        "methods": ["dense", "low"], "rate_of": "SGD", "seeds": [8, 9],
    }  # fmt: skip
    read = read_plan(write(plan))
    rows = {
        name: (row.rate_of, row.seeds, row.search.values) for name, row in read.methods.items() if "Nesterov" in name
    }
    taken = ("dense, SGD", (8, 9), (0.1, 0.3, 1.0))
    assert rows == {"dense, Nesterov": taken, "low, Nesterov": taken}
    assert read.methods["dense, SGD"].seeds == read.methods["dense"].seeds != (8, 9)
    assert not list(search_runs(read, read.methods["dense, Nesterov"], tmp_path, {}))
    assert [run.seed for run in final_runs(read, read.methods["low, Nesterov"], 0.3, tmp_path, {})] == [8, 9]


def test_an_optimizer_takes_the_place_of_the_plans_with_all_that_belongs_to_it(plan, write, tmp_path):
    plan["options"] |= {
        "model.optimizer": "torch.optim.Adam", "model.init_args.optimizer.init_args.amsgrad": True,
        "model.optimizer.lr": 5, "model.optimizer_lag": 1,
    }  # fmt: skip
    read = read_plan(write(plan))
    own, other = (next(final_runs(read, read.methods[name], 0.1, tmp_path, {})) for name in ("dense", "dense, SGD"))
    assert own.options["model.init_args.optimizer.init_args.amsgrad"] is True
    assert own.options["model.optimizer"] == "torch.optim.Adam" and own.options["model.optimizer.lr"] == 0.1
    left = [name for name in other.options if "optimizer" in name]
    assert left == ["model.optimizer_lag", "model.optimizer", "model.optimizer.lr"]
    assert other.options["model.optimizer"] == SGD and other.options["model.optimizer.lr"] == 0.1


def test_what_a_run_is_asked_for_has_nothing_of_an_optimizer_that_was_replaced(plan, write, tmp_path):
    """As `bnnlight fit` reads it: else a plan that says it by itself would take runs that were made without it."""
    (tmp_path / "adam.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.5, weight_decay: 0.1}}}}"
    )
    plan["methods"]["dense"] = {"configs": ["adam.yaml"]}
    plan["options"] |= {"model.optimizer.eps": 1e-3}
    plan["optimizers"]["kept"] = {"options": {"model.optimizer.amsgrad": True}}
    plan["optimizers"]["SGD"]["options"] |= {"model.optimizer.maximize": True}
    read = read_plan(write(plan))
    asked = {}
    for name in ("dense", "dense, SGD", "dense, kept"):
        found = next(final_runs(read, read.methods[name], 0.1, tmp_path, {})).asked()
        asked[name] = {k.removeprefix("model.optimizer."): v for k, v in found.items() if "optimizer" in k}
    of_adam = {"class_path": "torch.optim.Adam", "weight_decay": 0.1, "eps": 1e-3, "lr": 0.1}
    assert asked["dense"] == of_adam and asked["dense, kept"] == of_adam | {"amsgrad": True}
    of_sgd = {"class_path": "torch.optim.SGD", "momentum": 0.9, "maximize": True, "eps": 1e-3, "lr": 0.1}
    assert asked["dense, SGD"] == of_sgd


def test_finished_runs_are_kept_when_a_plan_gets_optimizers(matrix, content, starts, tmp_path):
    assert matrix()[0] == 0
    before = {name: len(told) for name, told in starts(tmp_path / "runs").items()}
    assert len(before) == 8
    ledger = (tmp_path / "runs/report.runs.jsonl").read_text().splitlines()
    content["optimizers"] = {"AdamW": {}, "SGD": {"options": {"model.optimizer": SGD}, "values": [0.1, 0.01]}}
    content["methods"]["Tucker, rank ½"]["optimizers"] = ["AdamW"]
    code, out, err = matrix()
    assert code == 0, err
    # two rates, two seeds
    assert "[4 of 4] dense, SGD, at 0.01, seed 1: " in out
    after = {name: len(told) for name, told in starts(tmp_path / "runs").items()}
    assert {name: after.pop(name) for name in before} == before
    assert set(after.values()) == {1} and {name.split("/")[0] for name in after} == {"dense-sgd"}
    assert (tmp_path / "runs/report.runs.jsonl").read_text().splitlines()[:8] == ledger
    report = json.loads((tmp_path / "runs/report.json").read_text())
    assert [row["method"] for row in report["methods"]] == ["dense", "Tucker, rank ½", "dense, SGD"]
    assert [row["search"]["value"] for row in report["methods"]] == [0.01, 0.01, 0.01]
    # and where the axis goes again, all of it is taken as it is
    del content["optimizers"], content["methods"]["Tucker, rank ½"]["optimizers"]
    code, out, err = matrix()
    assert code == 0 and out.startswith("report: "), err


def put(*keys, value):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def remove_all_options(content):
    content["optimizers"]["SGD"] = {}


def take_the_search_away(content):
    del content["search"]


def keep_apart(content):
    content["methods"]["low"] = {"rate_of": "Tucker, rank ½", "optimizers": ["SGD"]}
    content["optimizers"]["SGD"]["methods"] = ["dense", "low"]


def borrow_twice(content):
    content["optimizers"]["SGD"] = {"options": {"model.optimizer": SGD}, "rate_of": "AdamW"}
    content["optimizers"]["Nesterov"] = {"options": {"a": 1}, "rate_of": "SGD"}


MISTAKES = {
    "none": (put("optimizers", value={}), ("optimizers: empty",)),
    "nothing": (put("optimizers", value=None), ("optimizers: empty",)),
    "unknown key": (put("optimizers", "SGD", "value", value=[1]), ("optimizers, SGD: no key 'value'", "'values'")),
    "twice the plan's own": (remove_all_options, ("'AdamW' and 'SGD'", "configs nor options")),
    "unknown in a method": (
        put("methods", "dense", "optimizers", value=["SGB"]), ("methods, dense: optimizers: 'SGB'", "mean 'SGD'?")
    ),
    "none in a method": (put("methods", "dense", "optimizers", value=[]), ("methods, dense: optimizers is []",)),
    "one word in a method": (put("methods", "dense", "optimizers", value="SGD"), ("list of names",)),
    "twice in a method": (
        put("methods", "dense", "optimizers", value=["SGD", "SGD"]), ("methods, dense: optimizers: 'SGD'", "twice")
    ),
    "unknown method": (
        put("optimizers", "SGD", "methods", value=["denze"]), ("optimizers, SGD: methods: 'denze'", "mean 'dense'?")
    ),
    "no method": (put("optimizers", "SGD", "methods", value=[]), ("optimizers, SGD: methods is []",)),
    "an optimizer without a row": (
        put("methods", "dense", "optimizers", value=["AdamW"]), ("optimizers, SGD: no method is left for it",)
    ),
    "a method without a row": (
        put("methods", "Tucker, rank ½", "optimizers", value=["SGD"]), ("Tucker, rank ½: no optimizer is left for it",)
    ),
    "no rates": (put("optimizers", "SGD", "values", value=[]), ("optimizers, SGD: values is empty",)),
    "a rate of 0": (put("optimizers", "SGD", "values", value=[0.1, 0]), ("SGD: values has 0: give rates above 0",)),
    "a negative rate": (put("optimizers", "SGD", "values", value=[-0.1]), ("values has -0.1: give rates above 0",)),
    "a rate that is not finite": (put("optimizers", "SGD", "values", value=[float("inf")]), ("values has inf",)),
    "a rate that is no number": (put("optimizers", "SGD", "values", value=0.1), ("values is 0.1", "list of numbers")),
    "a searched rate of 0": (put("search", "values", value=[0.0]), ("search: values has 0",)),
    "rates of one that is not run with it": (
        put("optimizers", "SGD", "values", value={"Tucker, rank ½": [0.1]}),
        ("optimizers, SGD: values", "Tucker, rank ½", "dense"),
    ),
    "no rates at all": (put("optimizers", "SGD", "values", value={}), ("SGD: values is empty", "a list of numbers")),
    "a rate that is true": (put("optimizers", "SGD", "values", value=[True]), ("SGD: values is [True]", "numbers")),
    "rates of one that takes another's": (
        lambda content: (
            content["methods"].update(low={"rate_of": "dense"}),
            content["optimizers"]["SGD"].update(methods=["dense", "low"], values={"low": [0.1]}),
        ),
        ("optimizers, SGD: values names 'low'", "takes the rate of 'dense'"),
    ),
    "rates of one that names other optimizers": (
        lambda content: (
            content["methods"]["Tucker, rank ½"].update(optimizers=["AdamW"]),
            content["optimizers"]["SGD"].update(methods=["dense", "Tucker, rank ½"], values={"Tucker, rank ½": [0.1]}),
        ),
        ("optimizers, SGD: values names 'Tucker, rank ½'", "is not run with it"),
    ),
    "no rates of one": (put("optimizers", "SGD", "values", value={"dense": []}), ("values, dense: values is empty",)),
    "rates without a search": (take_the_search_away, ("optimizers, SGD: values is given, but nothing is searched",)),
    "the searched option": (
        put("optimizers", "SGD", "options", value={"model.optimizer.lr": 1}),
        ("optimizers, SGD: sets model.optimizer.lr",),
    ),
    "a name without letters": (put("optimizers", "+!", value={"options": {"a": 1}}), ("optimizers, +!", "no folder")),
    "a name that is no text": (put("optimizers", True, value={"options": {"a": 1}}), ("optimizers, True", "no folder")),
    "a method's name": (put("optimizers", "dense", value={"options": {"a": 1}}), ("optimizers, dense", "rename one")),
    "a row's name": (put("methods", "dense, SGD", value={}), ("'dense, SGD' is the name of two rows",)),
    "a rate of a row that is not there": (
        keep_apart, ("methods, low: its rate with 'SGD' is that of 'Tucker, rank ½'", "is not run with 'SGD'")
    ),
    "a rate of an optimizer that is not there": (
        put("optimizers", "SGD", "rate_of", value="Adam"), ("SGD: rate_of: 'Adam'", "mean 'AdamW'?")
    ),
    "a rate of two sources": (
        put("optimizers", "SGD", "rate_of", value="AdamW"), ("SGD: has values and rate_of", "remove one")
    ),
    "a rate of one that takes another's": (
        borrow_twice, ("optimizers, Nesterov: rate_of is 'SGD', which has no search of its own",)
    ),
    "no seeds": (put("optimizers", "SGD", "seeds", value=[]), ("optimizers, SGD: seeds",)),
    "a baseline of no row": (put("baseline", value="Tucker, rank ½, SGD"), ("baseline", "not among the rows")),
    "reach of a share": (put("reach", value=0.7), ("reach is 0.7: give a number in %",)),
    "reach of a word": (put("reach", value="best"), ("reach is 'best'", "or baseline")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(plan, write, check_one_line, mistake):
    change, parts = MISTAKES[mistake]
    change(plan)
    path = write(plan)
    with pytest.raises(ValueError) as error:
        read_plan(path)
    check_one_line(error, path, *parts)


def test_a_method_cannot_name_optimizers_where_there_are_none(content, write, check_one_line):
    content["methods"]["dense"]["optimizers"] = ["SGD"]
    with pytest.raises(ValueError) as error:
        read_plan(write(content))
    check_one_line(error, "methods, dense", "the plan has none")


def test_folders_differ_and_are_short_enough(plan, write, check_one_line):
    for name, parts in (("sgd!", ("'dense, SGD'", "'dense, sgd!'")), ("x" * 300, ("306 bytes", "at most 255"))):
        plan["optimizers"][name] = {"options": {"a": 1}, "methods": ["dense"]}
        with pytest.raises(ValueError) as error:
            check_folders(read_plan(write(plan)))
        check_one_line(error, *parts)
        del plan["optimizers"][name]


def test_a_name_that_stands_twice_is_named_with_its_line(plan, write, check_one_line):
    path = write(plan)
    path.write_text(path.read_text() + "  SGD: {options: {model.optimizer: torch.optim.Adam}}\n")
    with pytest.raises(ValueError) as error:
        read_plan(path)
    check_one_line(error, path, f"line {len(path.read_text().splitlines())}: 'SGD' appears twice")

"""Config files and values of a wrong form or order, `None` for null, and numbers out of range: one line each."""

import pytest
from jsonargparse import Namespace

from bnnlight.console.shipped_configs import find_config, is_file
from bnnlight.experiment.config.files import check_config_files, read_config
from bnnlight.experiment.config.option_ranges import DEVICES_PER_CORE, check_devices, check_ranges
from bnnlight.experiment.experiment import Experiment

OVERLAY = "model: {init_args: {backbone: {init_args: {scale: none}}}}\n"
WRONG = {
    "": "is empty",
    "# nothing but a comment\n": "is empty",
    "- model: 1\n": "holds a list",
    "words\n": "holds 'words'",
    "model: [1\n": "is not valid YAML: while parsing a flow sequence at line 1",
    "trainer: {max_epochs: 1}\nmodel: x\ntrainer:\n  devices: 1\n": "has trainer twice, in lines 1 and 3: keep one",
    "a:\n  - b: {c: 1,\n       c: 2}\n": "has c twice, in lines 2 and 3: keep one",
    "x-lr: &lr 0.1\nmodel: {lr: *lr}\n": "x-lr is no option, as anchors need no place of their own: write &NAME where",
    OVERLAY: "is an overlay",
    "data: {init_args: {batch_size: 3}}\n": "is an overlay",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_of_a_wrong_form_is_named(tmp_path, check_one_line, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    for args in ([f"--config={file}"], ["--trainer.max_epochs", "3", "--config", str(file)]):
        with pytest.raises(ValueError) as error:
            check_config_files(args)
        check_one_line(error, file, WRONG[text])


def test_names_that_are_not_twice_in_one_place(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "a: &one {x: 1, y: 2}\nb: {<<: *one, x: 3}\nc: [*one, *one, {x: 1}]\nd: {<<: [*one, {z: 1}], x: 0}\n"
    )
    assert read_config(file)["b"] == {"x": 3, "y": 2}


def test_a_config_as_long_text_is_not_taken_for_a_file(configs):
    text = f"trainer: {{max_epochs: 3}}  # {'long ' * 2000}"
    assert not is_file(text) and not is_file("a\0b") and is_file(configs / "quickstart.yaml")
    assert find_config(text) == text
    check_config_files(["--config", text])


def test_bytes_that_are_no_text(tmp_path, check_one_line):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(ValueError) as error:
        check_config_files([f"--config={tmp_path / 'mine.yaml'}"])
    check_one_line(error, tmp_path / "mine.yaml", "UTF-8")


def test_an_overlay_goes_behind_what_it_changes(tmp_path, configs, check_one_line):
    overlay, config = configs / "methods" / "bop.yaml", configs / "quickstart.yaml"
    check_config_files(["--config", str(config), f"--config={overlay}"])
    check_config_files(["--model=bnnlight.tasks.ClassificationTask", "--config", str(overlay)])
    with pytest.raises(ValueError) as error:
        check_config_files(["--config", str(overlay), f"--config={config}"])
    check_one_line(error, f"--config EXPERIMENT --config {overlay}")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("flip_rates", "--flip_rates.interval 1000000000"),
        ("alphas", "--alphas.interval 1000000000"),
        ("pictures", "--pictures.count 0"),
        ("progress", "--trainer.enable_progress_bar false"),
        ("last_checkpoint", "--trainer.enable_checkpointing false"),
        ("non_finite", "--non_finite.action skip"),
    ],
)
def test_for_a_callback_that_is_to_be_null_the_way_is_told(bnnlight_error, configs, tmp_path, name, instead):
    (tmp_path / "off.yaml").write_text(f"{name}: null\n")
    quickstart = ("fit", "--config", configs / "quickstart.yaml")
    for options in ([f"--{name}=null"], [f"--{name}", "None"], [f"--{name}=false"], ["--config", "off.yaml"]):
        code, line = bnnlight_error(*quickstart, *options)
        assert code == 2 and f"{name} cannot be null or false: " in line and instead in line
        assert ("off.yaml: " in line) == ("off.yaml" in options)
    # which is an option that there is
    words = instead.split()
    parsed(configs, f"{words[0]}={words[1]}")


def test_a_bare_trainer_is_told_what_it_clashes_with(bnnlight, bnnlight_error, configs):
    words = ["fit", "--config", configs / "quickstart.yaml", "--trainer.barebones=true", "--trainer.max_steps=1"]
    code, line = bnnlight_error(*words)
    left = "logger, enable_progress_bar, enable_checkpointing, log_every_n_steps"
    assert code == 2 and f"trainer.barebones clashes with {left}: leave it out, or give --trainer.logger false " in line
    # which is enough
    code, _, err = bnnlight(*words, *line.split(" or give ")[1].removesuffix(" besides").split())
    assert code == 0, err


@pytest.mark.parametrize("words", [["--config="], ["--config", ""], ["--config", " "]], ids=repr)
def test_a_config_of_an_empty_name(bnnlight_error, configs, words):
    code, line = bnnlight_error("fit", "--config", configs / "quickstart.yaml", *words)
    told = "--config is empty: give a file, or a name of `bnnlight configs`"
    assert code != 0 and line == f"bnnlight fit: error: {told}"


def test_the_command_line_says_so(bnnlight_error, configs, tmp_path):
    (tmp_path / "empty.yaml").touch()
    code, line = bnnlight_error("fit", "--config", configs / "quickstart.yaml", "--config", "empty.yaml")
    assert code == 2 and "empty.yaml is empty" in line
    code, line = bnnlight_error("fit", "--config", configs / "quickstart.yaml", "--data.batch_size=0")
    assert code == 2 and "data.batch_size is 0: give 1 or more" in line
    assert [path.name for path in tmp_path.iterdir()] == ["empty.yaml"]


def parsed(configs, *options):
    return Experiment("summary", "", ["--config", str(configs / "quickstart.yaml"), *options])


def test_none_is_null_where_a_value_may_be_null(configs, tmp_path):
    file = tmp_path / "overlay.yaml"
    file.write_text("trainer: {gradient_clip_val: None, default_root_dir: ./None}\n")
    latent = "{'class_path': 'bnnlight.nn.Tucker', 'init_args': {'rank': 1.0}}"
    experiment = parsed(
        configs,
        *("--trainer.gradient_clip_val=None", "--trainer.devices", "1", "--model.scheduler=None"),
        *("--model.backbone.image_size=None", "--checkpoint.dirpath=None", "--num_threads=None"),
        *(f"--model.backbone.latent={latent}", "--trainer.limit_predict_batches", "None"),
    )
    config = experiment.config
    assert config.trainer.gradient_clip_val is None and config.trainer.limit_predict_batches is None
    assert config.model.init_args.scheduler is None and config.model.init_args.backbone.init_args.image_size is None
    assert config.checkpoint.dirpath is None and config.num_threads is None
    read = experiment.parser.parse_args(["--config", str(configs / "quickstart.yaml"), "--config", str(file)])
    assert read.trainer.gradient_clip_val is None and str(read.trainer.default_root_dir) == "./None"


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("--data.batch_size=None", "data.batch_size"),
        ("--data.batch_size=null", "data.batch_size"),
        ("--model.backbone.width=None", "model.backbone.width"),
        ("--model.optimizer.lr=None", "model.optimizer.lr"),
        ("--model.backbone.latent={class_path: bnnlight.nn.Tucker, init_args: {rank: None}}", "backbone.latent.rank"),
        ("--flip_rates.interval=None", "flip_rates.interval"),
    ],
)
def test_what_needs_a_value_cannot_be_null(bnnlight_error, configs, option, place):
    code, line = bnnlight_error("summary", "--config", configs / "quickstart.yaml", option)
    assert code == 2 and place in line and "is null" in line.replace("null is not", "is null")


RANGES = {
    "seed_everything": (-1, 0, 2**32),
    "trainer.max_epochs": (-5, -1, 0, 1),
    "trainer.max_steps": (0, -1),
    "trainer.limit_train_batches": (0, 1, 0.0, 1.0),
    "trainer.accumulate_grad_batches": (0, 1),
    # Lightning takes a whole number of batches as a float too
    "trainer.limit_val_batches": (-2, 0, 1.5, 0.5, -0.5, 4.0),
    "trainer.val_check_interval": (0, 1, 0.0, 1.0),
    "trainer.check_val_every_n_epoch": (0, None),
    "trainer.devices": (0, -1, "0", "auto"),
    "data.batch_size": (0, 1),
    "data.num_workers": (-1, 0, -3, None),
    "model.warmup": (1.0, 0.0, float("nan"), 0.5),
    "model.optimizer.lr": (-0.1, 0.0),
    "model.optimizer.interval": (0, 1),
    "model.optimizer.last_renewal": (-1, None, -2, 0),
    "model.optimizer.covariance_beta": (1.0, 0.0, float("nan"), None),
    "model.optimizer.rms": (0.0, 0.2),
    "alphas.interval": (0, 1),
}


@pytest.mark.parametrize("option", RANGES)
def test_a_number_out_of_range_names_its_option(option, check_one_line):
    # a wrong one and a right one in turn
    for place, value in enumerate(RANGES[option]):
        config, *parts = value, *reversed(option.split("."))
        for depth, part in enumerate(parts):
            nested = depth < len(parts) - 1 and parts[-1] in ("model", "data")
            config = Namespace({part: config})
            config = Namespace(class_path="a.B", init_args=config) if nested else config
        if place % 2:
            check_ranges(config)
        else:
            with pytest.raises(ValueError) as error:
                check_ranges(config)
            check_one_line(error, f"{option} is {value}: give ")


def test_a_cpu_is_not_asked_for_a_hundred_processes(check_one_line, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for kind, num, is_right in (("cpu", 99, False), ("cpu", 2 * DEVICES_PER_CORE, True), ("cuda", 99, True)):
        trainer = Namespace(num_devices=num, strategy=Namespace(root_device=Namespace(type=kind)))
        if is_right:
            check_devices(trainer)
        else:
            with pytest.raises(ValueError) as error:
                check_devices(trainer)
            check_one_line(error, "trainer.devices is 99", "2 cores: give 8 or less")

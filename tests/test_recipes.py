"""Recipes of training through the real command: stopped and resumed, lean, and learning."""

import json

import pytest
import torch
import yaml


def told(step):
    return {"class_path": "noisy.Told", "init_args": {"hook": "on_train_batch_end", "step": step}}


def logged(run_dir, key):
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row[key] for row in rows if key in row}


SHARPEN = {"class_path": "bnnlight.callbacks.Sharpen", "init_args": {"start": 0.2, "end": 5.0, "interval": 3}}


def test_a_run_that_sharpens_goes_on_with_the_right_value_and_may_be_lean(tmp_path, fit_probe, same_run):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert fit_probe(whole, f"--trainer.callbacks={json.dumps([SHARPEN])}")[0] == 0
    # what is lean is the same bit for bit
    code, text = fit_probe(
        broken, f"--trainer.callbacks={json.dumps([SHARPEN, told(8)])}", "--model.backbone.lean=true"
    )
    assert code == 75, text
    code, text = fit_probe(broken, f"--trainer.callbacks={json.dumps([SHARPEN])}", "--model.backbone.lean=true")
    assert code == 0, text
    same_run(whole, broken)
    # three epochs of six steps
    expected = {step: pytest.approx(0.2 * 25 ** (step / 18)) for step in range(0, 19, 3)}
    assert logged(whole, "bnn/sharpness") == logged(broken, "bnn/sharpness") == expected


def callback(name, **options):
    return {"class_path": f"bnnlight.callbacks.{name}", "init_args": options}


def test_masks_frozen_signs_decay_and_mixed_pictures_go_on_as_if_nothing_had_stopped(tmp_path, fit_probe, same_run):
    # eighteen steps: four layers until the ninth, frozen from the fourteenth on; stopped within epochs, in either part
    staged = [
        callback("LayerByLayer", end=0.5, refresh=0.05, interval=3),
        callback("FreezeSigns", share=0.75),
        callback("WeightDecay", latent=0.01, real=0.02, until_binary=True),
    ]
    mixing = {"class_path": "bnnlight.tasks.Mixing", "init_args": {"mixup": 0.5, "cutmix": 1.0}}
    options = (f"--model.mixing={json.dumps(mixing)}",)
    assert fit_probe(tmp_path / "whole", f"--trainer.callbacks={json.dumps(staged)}", *options)[0] == 0
    for step in (8, 16):
        broken = tmp_path / f"at{step}"
        code, text = fit_probe(broken, f"--trainer.callbacks={json.dumps([*staged, told(step)])}", *options)
        assert code == 75, text
        code, text = fit_probe(broken, f"--trainer.callbacks={json.dumps(staged)}", *options)
        assert code == 0, text
        same_run(tmp_path / "whole", broken)
    assert logged(tmp_path / "whole", "bnn/binary_share")[6] == pytest.approx(2 / 3)
    assert logged(tmp_path / "whole", "bnn/signs_frozen") == {0: 0, 6: 0, 12: 0}
    rates = logged(tmp_path / "whole", "bnn/flip_rate_mean")
    assert rates[12] > 0 and rates[16] == rates[18] == 0
    # soft labels: of 64 pictures a batch, no whole number is right
    accuracies = logged(tmp_path / "whole", "train/acc").values()
    assert any(abs(64 * 6 * accuracy - round(64 * 6 * accuracy)) > 1e-3 for accuracy in accuracies)


@pytest.mark.parametrize("name", ["soap", "muon"])
def test_an_overlay_sets_the_optimizer_and_its_run_goes_on(tmp_path, fit_probe, same_run, configs, name):
    overlay = configs / "optimizers" / f"{name}.yaml"
    option = f"--config={overlay}"
    assert fit_probe(tmp_path / "whole", option)[0] == 0
    code, text = fit_probe(tmp_path / "broken", option, f"--trainer.callbacks={json.dumps([told(8)])}")
    assert code == 75, text
    assert fit_probe(tmp_path / "broken", option)[0] == 0
    same_run(tmp_path / "whole", tmp_path / "broken")
    asked, saved = (yaml.safe_load(p.read_text()) for p in (overlay, tmp_path / "whole/config.yaml"))
    wanted, found = (content["model"]["init_args"]["optimizer"] for content in (asked, saved))
    assert found["class_path"] == wanted["class_path"] and wanted["init_args"].items() <= found["init_args"].items()
    rates = logged(tmp_path / "whole", "bnn/flip_rate_mean")
    assert rates.keys() == set(range(2, 19, 2)) and max(rates.values()) > 0.005


def test_a_run_with_bop_goes_on_as_if_it_had_not_been_stopped(tmp_path, fit_probe, same_run, configs):
    method = f"--config={configs / 'methods/bop.yaml'}"
    assert fit_probe(tmp_path / "whole", method)[0] == 0
    code, text = fit_probe(tmp_path / "broken", method, f"--trainer.callbacks={json.dumps([told(8)])}")
    assert code == 75, text
    assert fit_probe(tmp_path / "broken", method)[0] == 0
    same_run(tmp_path / "whole", tmp_path / "broken")
    rates = logged(tmp_path / "whole", "bnn/flip_rate_mean")
    assert rates.keys() == set(range(2, 19, 2)) and rates[2] > 0.01
    assert 0 < rates[18] < rates[2]  # γ has fallen
    # its rate is logged beside AdamW's, and both end at zero
    assert logged(tmp_path / "whole", "lr-Bop/latent")[0] / logged(tmp_path / "whole", "lr-Bop/weight")[0] == (
        pytest.approx(1e-4 / 0.01)
    )


FINETUNING = {
    "class_path": "lightning.pytorch.callbacks.BackboneFinetuning",
    "init_args": {"unfreeze_backbone_at_epoch": 1},
}


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")  # batch norms
@pytest.mark.parametrize(
    ("method", "steps"),
    [("tucker", [9]), *(pytest.param(m, [3, 6, 12], marks=pytest.mark.slow) for m in ("tucker", "bop"))],
)
def test_a_backbone_that_is_set_free_later_has_its_rates_and_goes_on(
    tmp_path, fit_probe, same_run, configs, method, steps
):
    method = f"--config={configs / 'methods' / method}.yaml"
    code, text = fit_probe(tmp_path / "whole", method, f"--trainer.callbacks={json.dumps([FINETUNING])}")
    assert code == 0, text
    whole = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    groups = whole["optimizer_states"][0]["param_groups"]
    # batch norms from the start; then all else, by what it is
    assert [group["name"] for group in groups if "/added1" not in group["name"]] == ["norm"]
    assert {group["name"]: group["weight_decay"] for group in groups if group["weight_decay"]}.keys() == {
        "weight/added1"
    }
    assert {group["lr_scale"] for group in groups if group["name"] == "alpha/added1"} == {0.1}
    trained = {name for group in groups for name in group["param_names"]}
    assert trained == {name for name in whole["state_dict"] if "backbone" in name and not _is_buffer(name)}
    moved = logged(tmp_path / "whole", "bnn/flip_rate_mean")
    assert all(moved[step] == 0 for step in (2, 4, 6)) and any(moved[step] > 0 for step in range(8, 19, 2))

    # within an epoch that was begun before, the callback is not told of its start
    for step in steps:
        code, text = fit_probe(
            tmp_path / f"at{step}", method, f"--trainer.callbacks={json.dumps([FINETUNING, told(step)])}"
        )
        assert code == 75, text
        code, text = fit_probe(tmp_path / f"at{step}", method, f"--trainer.callbacks={json.dumps([FINETUNING])}")
        assert code == 0, text
        same_run(tmp_path / "whole", tmp_path / f"at{step}")


def _is_buffer(name):
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_factors_cannot_be_flipped_and_the_command_says_so(bnnlight, quick, configs, tmp_path):
    code, _, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", "--config", configs / "methods/bop.yaml"),
        *("--config", configs / "methods/tucker.yaml", f"--run_dir={tmp_path / 'run'}", *quick),
    )
    assert code != 0
    last = err.splitlines()[-1]
    assert last.startswith("bnnlight fit: error: Bop flips the weights themselves")
    assert "are factors: choose latent bnnlight.nn.Dense, or another optimizer" in last


@pytest.mark.parametrize("recipe", ["bop", "sharpened"])
def test_digits_are_learned(bnnlight, quick, configs, tmp_path, recipe):
    bop = ("--config", configs / "methods/bop.yaml")
    sharpened = (f"--trainer.callbacks={json.dumps([{**SHARPEN, 'init_args': {}}])}",)
    code, _, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", *(bop if recipe == "bop" else sharpened), *quick),
        *("--trainer.max_epochs=3", "--model.backbone.width=0.25", "--pictures.count=0"),
        f"--run_dir={tmp_path / 'run'}",
    )
    assert code == 0, err
    accuracy = json.loads((tmp_path / "run/results.json").read_text())["results"]["test/acc1"]
    assert accuracy > 0.8  # of ten classes

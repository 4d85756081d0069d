"""The configs that come with the package: listed, and found by name in any folder, as README writes them."""

import re
from pathlib import Path

import pytest
import yaml

from bnnlight.console.shipped_configs import find_config, shipped_configs, with_found_configs
from bnnlight.matrix.plan.plan import read_plan

ROOT = Path(__file__).parents[2]
FILES = {path.relative_to(ROOT / "configs").as_posix(): path for path in (ROOT / "configs").rglob("*.yaml")}
TEXTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *FILES.values()]
NAMED = r"(?:--config[= ]|bnnlight matrix |wandb sweep --project bnnlight )([\w./]+)"


def test_all_are_listed_with_what_they_are(bnnlight):
    code, out, _ = bnnlight("configs")
    assert code == 0
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert {f"{name}.yaml" for name in rows} == {*FILES}
    assert rows["quickstart"] == "Ten handwritten digits: the first run of a new installation."
    for name, title in rows.items():
        begin = " ".join(FILES[f"{name}.yaml"].read_text().replace("\n#", "").split())
        assert len(title) <= 90 and begin.startswith(f"# {title.removesuffix(' …')}")


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "configs/quickstart.yaml", "./configs/quickstart"])
def test_each_way_to_write_a_name_is_the_file(bnnlight, name):
    code, out, _ = bnnlight("configs", name, "methods/tucker")
    assert (code, out.split()) == (0, [str(FILES["quickstart.yaml"]), str(FILES["methods/tucker.yaml"])])


def test_every_command_that_is_written_down_finds_its_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = {name for text in TEXTS for name in re.findall(NAMED, text.read_text())}
    names = {name for name in written if re.fullmatch(r"configs/.*yaml", name)}
    assert len(names) > 30
    for name in names:
        assert Path(find_config(name)) == FILES[name.removeprefix("configs/")]


def test_a_file_goes_before_a_name_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()
    assert find_config("quickstart") == str(FILES["quickstart.yaml"])
    Path("configs").mkdir()
    Path("configs/quickstart.yaml").touch()
    assert find_config("configs/quickstart.yaml") == "configs/quickstart.yaml"


def test_all_ways_to_give_the_option():
    quickstart, tucker = str(FILES["quickstart.yaml"]), str(FILES["methods/tucker.yaml"])
    args = ["--config", "quickstart", "--config=methods/tucker", "-c", "quickstart", "--data.root", "quickstart"]
    found = ["--config", quickstart, f"--config={tucker}", "-c", quickstart, "--data.root", "quickstart"]
    assert with_found_configs(args) == found
    # options in place of a file, and what is cut off, are for the parser
    assert with_found_configs(["--config", "{seed_everything: 3}", "--config"]) == [
        *("--config", "{seed_everything: 3}", "--config")
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quikstart", "did you mean quickstart"),
        ("tuckr.yaml", "did you mean methods/tucker"),
        ("zzz", "`bnnlight configs`"),
    ],
)
def test_another_name_is_answered_with_the_nearest(bnnlight_error, name, hint):
    for verb in (("configs",), ("summary", "--config"), ("matrix",)):
        code, line = bnnlight_error(*verb, name)
        assert code == 2 and f"no such config: {name}; " in line and hint in line


def test_an_experiment_and_its_overlay_are_found_in_an_empty_folder(bnnlight, tmp_path):
    code, out, err = bnnlight("summary", "--config", "quickstart", "--config", "methods/learned_alpha", "--json")
    assert code == 0, err
    assert '"latent": "Dense"' in out and list(tmp_path.iterdir()) == []


def test_plans_name_files_beside_them_and_configs_of_the_package(tmp_path):
    path = FILES["matrix/quickstart.yaml"]
    assert read_plan(path).configs == (FILES["quickstart.yaml"],)
    content = yaml.safe_load(path.read_text())
    content["config"] = "quickstart"
    for method in content["methods"].values():
        method.pop("configs", None)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert read_plan(tmp_path / "mine.yaml").configs == (FILES["quickstart.yaml"],)
    # what lies beside the plan is meant first
    (tmp_path / "quickstart").touch()
    assert read_plan(tmp_path / "mine.yaml").configs == (tmp_path / "quickstart",)


def test_wheel_and_image_have_them():
    assert '"configs" = "bnnlight/configs"\n' in (ROOT / "pyproject.toml").read_text()
    assert "COPY configs /src/configs" in (ROOT / "Dockerfile").read_text()
    assert shipped_configs().keys() == {name.removesuffix(".yaml") for name in FILES}

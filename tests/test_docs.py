"""The documentation, read as Markdown: links lead somewhere, commands are run, public names are in the reference."""

import importlib
import pkgutil
import re
import runpy
import shlex
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import bnnlight as package
from bnnlight.matrix.plan.plan import read_plan

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, *sorted((ROOT / "results").glob("*.md")), ROOT / "models/README.md"]
PAGES += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
# older pages, whose commands belong to the tests of what they are about
OLDER = {"cluster", "install", "predictions", "recipes", "shipping", "tracking"}
NEW = {page.stem: page for page in DOCS if page.parent == ROOT / "docs" and page.stem not in OLDER}
RUN_HERE = ("tutorial", "own_data")
NOT_RUN = {
    "pip install '.[train]'": "takes an index and 6 GB; results/install.md is a run of it",
    "bnnlight fit --config photos.yaml --data.root DIR": "run below, on drawn pictures",
    "bnnlight fit --config examples/own.yaml": "run by tests/test_examples.py",
    "bnnlight fit --config configs/resnet18_imagenet.yaml --data.root DIR --trainer.devices 8": "eight GPUs; the "
    "config is trained for two steps by tests/test_configs.py",
    "bnnlight fit --config configs/resnet18_imagenet.yaml --data.root DIR --trainer.devices 8 --run_dir DIR/run "
    "--resume": "as above; tests/test_kill_resume.py resumes",
    "bnnlight fit --config configs/quickstart.yaml --trainer.accelerator cpu --trainer.devices 2": "two processes are "
    "started by tests/test_ddp.py",
    "bnnlight compare runs/a runs/b --output compare.html": "run by the tutorial's test with other runs",
    "make gpu-check": "needs a GPU; tests/test_gpu_acceptance.py runs its frame",
    "bnnlight matrix plan.yaml --jobs 2 --output digits": "twelve runs; the plan is read below, and "
    "tests/commands/test_matrix.py runs others",
    "bnnlight check --config C --data.root DIR": "C is the reader's; below, one is checked",
    "bnnlight check --config hg_coco --data.root DIR --data.train_annotations train.json "
    "--data.val_annotations val.json --data.images . --model.backbone.num_joints 21": "tests/commands/test_check.py",
    "bnnlight fit --config C --run_dir DIR --resume": "tests/test_kill_resume.py resumes",
    "bnnlight fit --config quickstart --trainer.max_epochs 5 --model.optimizer.lr 0.005 "
    "--model.backbone.latent.rank 0.5": "its options are read below",
    "bnnlight fit --config quickstart --config methods/xnor_net": "every method is run by tests/test_methods.py",
}


def fences(page, language):
    """The fenced blocks of one language, in order, each with the text before it."""
    parts = re.split(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [(parts[i - 1], parts[i + 1]) for i in range(1, len(parts), 3) if parts[i] == language]


def commands(page):
    """Commands of a page's `sh` blocks, without comments and line breaks."""
    lines = [line for _, block in fences(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [" ".join(line.split(" #")[0].split()) for line in lines if line.strip() and not line.startswith("#")]


def without_fences(page):
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def text_of(page):
    """A page without its fenced blocks and code."""
    return re.sub(r"`[^`\n]*`", "", without_fences(page))


def anchors(page):
    """Anchors that a code host and the site both make of a page's headings, and of what a reference page describes."""
    text = without_fences(page)
    titles = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", t) for t in re.findall(r"^#+ +(.*)$", text, flags=re.M)]
    host = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    ascii_titles = [unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() for title in titles]
    site = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in ascii_titles}
    return (host & site) | set(re.findall(r"^::: (\S+)$", text, flags=re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert dead == []


def test_links_are_looked_at():
    # an empty list would pass everything
    assert len(PAGES) > 50
    found = anchors(ROOT / "docs/method.md")
    assert "the-latent-weight" in found and "nowhere" not in found
    assert "bnnlight.nn.Tucker" in anchors(ROOT / "docs/reference/nn.md")


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!", ""))["nav"]

    def listed(entry):
        if isinstance(entry, str):
            return {entry}
        return set().union(*map(listed, entry.values() if isinstance(entry, dict) else entry))

    own = {page.relative_to(ROOT).as_posix().removeprefix("docs/") for page in PAGES} - {"README.md"}
    assert listed(nav) == own


def public_names():
    """`__all__` of every package of the house, as (package, name)."""
    found = []
    for info in pkgutil.walk_packages(package.__path__, "bnnlight."):
        if info.ispkg:
            module = importlib.import_module(info.name)
            found += [(module, name) for name in getattr(module, "__all__", ())]
    return [(package, name) for name in package.__all__] + found


def test_every_public_name_is_in_the_reference():
    pages = (ROOT / "docs/reference").glob("*.md")
    directives = [path for page in pages for path in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.M)]
    assert len(directives) == len(set(directives))
    described = []
    for path in directives:
        module, _, name = path.rpartition(".")
        described.append((name, getattr(importlib.import_module(module), name)))
    names = public_names()
    assert len(names) > 100
    lacking = [
        f"{module.__name__}.{name}"
        for module, name in names
        if not any(name == other and getattr(module, name) is thing for other, thing in described)
    ]
    assert lacking == []


def test_every_command_of_the_new_pages_is_run_or_listed_with_its_reason():
    written = {command for stem, page in NEW.items() if stem != "tutorial" for command in commands(page)}
    run = {command for stem in RUN_HERE for command in commands(NEW[stem])}
    assert len(run) > 12
    assert written - run - NOT_RUN.keys() == set()
    # a reason for what nobody writes any more goes
    assert NOT_RUN.keys() - written == set()


def test_code_on_the_pages_is_that_of_the_examples():
    for stem in ("own_code", "own_data"):
        blocks = fences(NEW[stem], "python")
        assert blocks
        for before, block in blocks:
            name = re.findall(r"examples/(\w+\.py)\)", before)[-1]
            lines = {line.strip().strip('"') for line in (ROOT / "examples" / name).read_text().splitlines()}
            assert [line for line in block.splitlines() if line.strip().strip('"') not in lines] == []


def save_files(page, folder):
    """Write the blocks that a page tells its reader to save, under the names that it gives."""
    for language in ("yaml", "python"):
        for before, block in fences(page, language):
            named = re.findall(r"Save (?:this|it) as\s+`([\w.]+)`", before.rstrip()[-200:])
            if named:
                (folder / named[-1]).write_text(block)


SHORT = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu")


@pytest.mark.slow
def test_the_tutorial_from_its_first_to_its_last_command(bnnlight, tmp_path):
    save_files(NEW["tutorial"], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml", "digits.py"}
    told = commands(NEW["tutorial"])
    assert [command.split()[1] for command in told].count("fit") == 3
    for command in told:
        program, *words = shlex.split(command)
        if program == "python":
            runpy.run_path(words[0])
            continue
        assert program == "bnnlight"
        words = [str(p) for w in words for p in (sorted(tmp_path.glob(w)) if "*" in w else [w])]
        if words[0] == "fit":
            words += SHORT
        code, out, err = bnnlight(*words)
        assert code == 0, (command, out, err)
    assert len(list((tmp_path / "digits").iterdir())) == 6
    assert (tmp_path / "answers/predictions.json").is_file() and (tmp_path / "compare.html").is_file()
    [(_, snippet)] = [pair for pair in fences(NEW["tutorial"], "python") if "Runtime" in pair[1]]
    first = next((tmp_path / "digits").glob("0_is_*.png")).name
    names = {}
    exec(snippet.replace("0_is_1.png", first), names)
    assert names["answer"]["classes"][0]["class"] in "0123456789"


def test_the_folder_of_pictures(bnnlight, draw_folder, tmp_path):
    save_files(NEW["own_data"], tmp_path)
    for split in ("train", "val"):
        draw_folder(split, classes=tuple("abcde"), root=tmp_path / "pictures")
    told = [command for command in commands(NEW["own_data"]) if "photos.yaml" in command]
    assert [command.split()[1] for command in told] == ["check", "fit"]
    small = ("--data.image_size=32", "--data.num_workers=0", "--model.backbone.width=0.125")
    for command in told:
        _, *words = shlex.split(command.replace("DIR", str(tmp_path / "pictures")))
        more = (*small, *SHORT, "--trainer.logger=false") if words[0] == "fit" else ("--num_workers=0",)
        code, out, err = bnnlight(*words, *more)
        assert code == 0, (out, err)


def test_the_plan_on_the_page_is_one(tmp_path):
    save_files(NEW["comparing"], tmp_path)
    plan = read_plan(tmp_path / "plan.yaml")
    assert [path.stem for path in plan.configs] == ["quickstart"]
    assert {name: row.seeds for name, row in plan.methods.items()} == {"dense": (0, 1, 2), "Tucker": (0, 1, 2)}


def test_options_on_the_command_line_are_laid_over_the_config(bnnlight):
    [command] = [command for command in commands(NEW["configs"]) if "--trainer.max_epochs 5" in command]
    code, out, err = bnnlight(*shlex.split(command)[1:], "--print_config")
    assert code == 0, err
    config = yaml.safe_load(out)
    network = config["model"]["init_args"]["backbone"]["init_args"]
    assert config["trainer"]["max_epochs"] == 5 and network["latent"]["init_args"]["rank"] == 0.5
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.005


def test_python_of_the_page(bnnlight, digits_run, tmp_path):
    run_dir, _ = digits_run
    shutil.copytree(run_dir, tmp_path / "runs/mine")
    code, _, err = bnnlight(
        *("export", "--ckpt_path", "runs/mine/checkpoints/best.ckpt", "--format", "packed"),
        *("--output", "model", "--num_check", "0"),
    )
    assert code == 0, err
    (tmp_path / "digits").mkdir()
    Image.new("L", (64, 64), 99).save(tmp_path / "digits/0_is_1.png")
    config = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    config["model"]["init_args"]["backbone"]["init_args"]["latent"]["init_args"]["rank"] = 0.5
    (tmp_path / "script.yaml").write_text(yaml.safe_dump(config))
    names = {}
    for _, block in fences(NEW["python"], "python"):
        exec(block.replace("max_epochs=20", "max_epochs=1, accelerator='cpu'"), names)
        if "trainer.fit(" in block:
            script = {name: value.clone() for name, value in names["network"].state_dict().items()}
    found = names["trained"].network.state_dict()
    assert script.keys() == found.keys() and all(torch.equal(script[name], found[name]) for name in script)
    rows = (tmp_path / "runs/script/metrics.jsonl").read_text()
    assert "bnn/flip_rate_mean" in rows and "test/acc1" in rows
    # the lesser rates of α and of factors reach the optimizer of a loop of one's own
    assert len({group["lr"] for group in names["optimizer"].param_groups}) > 1

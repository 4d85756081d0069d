import functools
import gzip
import pickle
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from bnnlight.data import CIFAR10DataModule, CIFAR100DataModule, FashionMNISTDataModule

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def fashion(root, **options):
    options = {"num_workers": 0, "val_size": 50, "batch_size": 16, **options}
    return FashionMNISTDataModule(str(root), **options)


def cifar10(root, **options):
    return CIFAR10DataModule(str(root), **{"num_workers": 0, "val_size": 50, **options})


@pytest.mark.parametrize(
    ("module_class", "num_channels", "image_size", "num_classes"),
    [
        (FashionMNISTDataModule, 1, 28, 10),
        (CIFAR10DataModule, 3, 32, 10),
        (CIFAR100DataModule, 3, 32, 100),
    ],
)
def test_attributes_are_there_before_any_data(module_class, num_channels, image_size, num_classes):
    data = module_class("nowhere")
    assert (data.num_channels, data.image_size) == (num_channels, image_size)
    output = data.eval_transform(Image.new("CMYK", (50, 40)))
    assert output.shape == (num_channels, image_size, image_size)
    assert len(set(data.classes)) == num_classes


class Fill(v2.Transform):
    """A picture of one value, as large as the one before; it draws that value."""

    def transform(self, picture, params):
        assert isinstance(picture, Image.Image) and picture.size == (28, 28)
        return Image.new("L", picture.size, int(torch.randint(256, ())))


def test_more_transforms_come_behind_the_augmentation_and_not_into_measuring(write_fashion):
    root = write_fashion()
    data, again, plain = fashion(root, more_transforms=[Fill()]), fashion(root, more_transforms=[Fill()]), fashion(root)
    batches = []
    for module in (data, again, plain):
        module.setup()
        batches.append(next(iter(module.train_dataloader()))[0])
    # each of one value, another for each picture, drawn from the run's seed; and without them none is
    flat = batches[0].flatten(1)
    assert (flat == flat[:, :1]).all() and len(set(flat[:, 0].tolist())) > 8
    assert torch.equal(batches[0], batches[1]) and batches[2][0].unique().numel() > 10
    assert torch.equal(data.val_set[3][0], plain.val_set[3][0])
    own = fashion(root, train_transforms=[], more_transforms=[Fill()])
    own.setup()
    assert own.train_set[0][0].unique().numel() == 1


def test_fashion_split_is_stratified_disjoint_and_complete(write_fashion):
    data = fashion(write_fashion())
    data.setup()
    val, train = data.val_set.indices, data.train_set.indices
    assert sorted([*val, *train]) == list(range(200))
    # Item i has label i % 10; 50 of 200 images are 5 of each class.
    assert np.bincount(val % 10).tolist() == [5] * 10
    assert [label for _, label in data.val_set] == (val % 10).tolist()
    assert len(data.test_set) == 30


def test_fashion_pixels_agree_with_numpy(write_fashion):
    root = write_fashion()
    data = fashion(root, train_transforms=[])
    data.setup()
    raw = (root / "FashionMNIST/raw/train-images-idx3-ubyte").read_bytes()[16:]
    expected = (np.frombuffer(raw, np.uint8).reshape(-1, 28, 28) / 255 - 0.2860) / 0.3530
    for view in (data.train_set, data.val_set):
        for position, index in enumerate(view.indices):
            np.testing.assert_allclose(view[position][0][0].numpy(), expected[index], atol=1e-5)


def test_split_follows_split_seed_and_not_the_run(write_fashion):
    root = write_fashion()

    def held_out(run_seed, **options):
        torch.manual_seed(run_seed)
        np.random.seed(run_seed)
        data = fashion(root, **options)
        data.setup("fit")
        return data.val_set.indices.tolist()

    assert held_out(1) == held_out(2)
    assert held_out(1) != held_out(1, split_seed=1)


def test_train_size_takes_a_stratified_part_and_leaves_validation_alone(write_fashion):
    root = write_fashion()
    whole, part = fashion(root), fashion(root, train_size=40)
    whole.setup("fit")
    part.setup("fit")
    assert part.val_set.indices.tolist() == whole.val_set.indices.tolist()
    assert set(part.train_set.indices) < set(whole.train_set.indices)
    assert np.bincount(part.train_set.indices % 10).tolist() == [4] * 10
    assert len(fitted(fashion(root, train_size=150)).train_set) == 150


def fitted(data):
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"val_size": 0}, ("val_size asks for 0 of 200", "from 10 to 190")),
        ({"val_size": 200}, ("val_size asks for 200 of 200", "from 10 to 190")),
        ({"train_size": 151}, ("train_size asks for 151 of 150", "from 10 to 140")),
    ],
)
def test_impossible_sizes_are_errors(write_fashion, check_one_line, options, parts):
    with pytest.raises(ValueError) as error:
        fashion(write_fashion(), **options).setup("fit")
    check_one_line(error, *parts)


def test_only_training_images_are_augmented(write_fashion):
    data = fitted(fashion(write_fashion()))
    assert any(not torch.equal(data.train_set[i][0], data.train_set[i][0]) for i in range(10))
    assert all(torch.equal(data.val_set[i][0], data.val_set[i][0]) for i in range(10))


def test_usual_augmentation_shifts_by_up_to_two_pixels_and_flips(write_fashion):
    data = fitted(fashion(write_fashion()))
    image = np.asarray(data.train_set.items[data.train_set.indices[0]][0])
    padded = np.pad(image, 2)
    windows = [padded[y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
    variants = {np.ascontiguousarray(w[:, ::step]).tobytes() for w in windows for step in (1, -1)}
    torch.manual_seed(0)
    seen = set()
    for _ in range(300):
        pixels = (data.train_set[0][0][0].numpy() * 0.3530 + 0.2860) * 255
        seen.add(np.rint(pixels).astype(np.uint8).tobytes())
    assert seen <= variants
    assert len(seen) > 40


def test_list_replaces_the_usual_augmentation(write_fashion):
    data = fitted(fashion(write_fashion(), train_transforms=[v2.RandomVerticalFlip(1.0)]))
    image = np.asarray(data.train_set.items[data.train_set.indices[0]][0])
    expected = (image[::-1] / 255 - 0.2860) / 0.3530
    np.testing.assert_allclose(data.train_set[0][0][0].numpy(), expected, atol=1e-5)


def test_fashion_missing(tmp_path, check_one_line):
    for stage in ("fit", "validate", "test", None):
        with pytest.raises(FileNotFoundError) as error:
            fashion(tmp_path).setup(stage)
        looked_for = tmp_path / "FashionMNIST" / "raw"
        check_one_line(error, "Fashion-MNIST not found", looked_for, "--data.root", "download true")


def test_home_is_expanded(write_fashion, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_fashion(root=tmp_path / "sets")
    data = FashionMNISTDataModule("~/sets", num_workers=0, val_size=50)
    data.setup("fit")
    assert len(data.val_set) == 50


@pytest.mark.parametrize("damage", ["cut", "missing", "garbage"])
def test_damaged_fashion_is_named(write_fashion, check_one_line, damage):
    root = write_fashion()
    file = root / "FashionMNIST/raw/train-images-idx3-ubyte"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "garbage":
        file.write_bytes(b"<html>not found</html>")
    else:
        file.unlink()
    with pytest.raises(OSError) as error:
        fashion(root).setup("fit")
    check_one_line(error, root / "FashionMNIST/raw", "incomplete or damaged", "replace it")


def test_cifar10_batches(write_cifar):
    root, test_images = write_cifar()
    data = cifar10(root)
    data.setup()
    assert data.classes == CIFAR10_NAMES
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (450, 50, 100)
    image, label = data.test_set[7]
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    expected = (test_images[7] / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-5)
    assert label == 7


def test_cifar100_batches(write_cifar):
    root, _ = write_cifar(datasets.CIFAR100, images_per_file=400)
    data = CIFAR100DataModule(str(root), num_workers=0, val_size=100)
    data.setup()
    assert np.bincount([label for _, label in data.val_set]).tolist() == [1] * 100
    assert len(data.train_set) == 300
    assert (data.classes[0], data.classes[47], data.classes[99]) == ("apple", "maple_tree", "worm")
    assert data.classes == sorted(data.classes)


def test_changed_cifar_batch_is_refused(write_cifar, check_one_line):
    root, _ = write_cifar()
    with open(root / "cifar-10-batches-py/data_batch_3", "ab") as file:
        file.write(b"x")
    with pytest.raises(OSError) as error:
        cifar10(root).setup("fit")
    check_one_line(error, "CIFAR-10", root / "cifar-10-batches-py", "incomplete or damaged")


def test_cifar10_class_folders(draw_folder):
    draw_folder("train", reversed(CIFAR10_NAMES), num_images=10, size=(32, 32))
    root = draw_folder("test", reversed(CIFAR10_NAMES), num_images=2, size=(32, 32))
    data = cifar10(root, val_size=20, train_transforms=[])
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (80, 20, 20)
    # Drawn in reverse order: red is ten times 9 - label.
    for view in (data.train_set, data.val_set, data.test_set):
        for image, label in view:
            red = round((image[0, 0, 0].item() * 0.2470 + 0.4914) * 255)
            assert red == 10 * (9 - label)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_class_folders_are_read_once_in_the_main_process(draw_folder, num_workers):
    draw_folder("train", CIFAR10_NAMES, num_images=10, size=(32, 32))
    root = draw_folder("test", CIFAR10_NAMES, num_images=2, size=(32, 32))
    data = cifar10(root, val_size=20, train_transforms=[], num_workers=num_workers, batch_size=10)
    data.setup()
    images = torch.cat([batch for batch, _ in data.test_dataloader()])
    assert all(torch.equal(image, again) for image, (again, _) in zip(images, data.test_set, strict=True))
    data.test_set.items[0][0].paste((255, 255, 255), (0, 0, 32, 32))
    kept = data.test_set.items.loader
    sent = pickle.loads(pickle.dumps(kept))
    shutil.rmtree(root / "test")
    # all were seen in this process, where they are kept; not so by a reader that was handed to another
    again = torch.stack([image for image, _ in data.test_set])
    assert torch.equal(images, again)
    with pytest.raises(OSError, match="cannot read image"):
        sent(data.test_set.items.samples[0][0])


def test_workers_keep_no_pictures(draw_folder):
    draw_folder("train", CIFAR10_NAMES, num_images=2, size=(32, 32))
    root = draw_folder("test", CIFAR10_NAMES, num_images=2, size=(32, 32))
    data = cifar10(root, val_size=10, num_workers=1, batch_size=20)
    data.setup("test")
    loader = data.test_dataloader()
    assert len(list(loader)) == 1
    shutil.rmtree(root / "test")
    with pytest.raises(OSError, match="cannot read image"):
        list(loader)


def test_batches_win_over_class_folders(write_cifar, draw_folder):
    root, _ = write_cifar()
    draw_folder("train", ["other"], root=root)
    data = cifar10(root)
    data.setup()
    assert len(data.test_set) == 100


def test_cifar_missing(tmp_path, check_one_line):
    for module_class, folder in (
        (CIFAR10DataModule, "cifar-10-batches-py"),
        (CIFAR100DataModule, "cifar-100-python"),
    ):
        with pytest.raises(FileNotFoundError) as error:
            module_class(str(tmp_path)).setup("fit")
        check_one_line(error, tmp_path / folder, tmp_path / "train", "--data.root", "download true")


def test_wrong_class_folders_are_named(draw_folder, check_one_line):
    root = draw_folder("train", [*CIFAR10_NAMES[:9], "unicorn"])
    with pytest.raises(ValueError) as error:
        cifar10(root).setup("fit")
    check_one_line(error, root / "train", "CIFAR-10", "truck is missing")
    shutil.rmtree(root / "train")
    draw_folder("train", [*CIFAR10_NAMES, "unicorn"])
    with pytest.raises(ValueError) as error:
        cifar10(root).setup("fit")
    check_one_line(error, root / "train", "unicorn does not belong")


def test_class_folders_without_test_are_found_out_before_training(draw_folder, check_one_line):
    root = draw_folder("train", CIFAR10_NAMES)
    with pytest.raises(FileNotFoundError) as error:
        cifar10(root).setup("fit")
    check_one_line(error, root / "test")


def test_download_only_if_asked_and_needed(draw_folder, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: calls.append(self.root))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: False)
    cifar10(tmp_path).prepare_data()
    assert calls == []
    with pytest.raises(OSError):
        cifar10(tmp_path, download=True).prepare_data()
    assert [str(root) for root in calls] == [str(tmp_path)]
    draw_folder("train", CIFAR10_NAMES)
    cifar10(tmp_path, download=True).prepare_data()
    assert len(calls) == 1


def test_download_unpacks_what_setup_reads(write_fashion, tmp_path, monkeypatch):
    source = write_fashion(root=tmp_path / "server") / "FashionMNIST/raw"
    for file in list(source.iterdir()):
        with gzip.open(f"{file}.gz", "wb") as packed:
            packed.write(file.read_bytes())
    resources = [(f"{file.name}.gz", None) for file in source.iterdir() if file.suffix != ".gz"]
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    handler = functools.partial(QuietHandler, directory=source)
    data = fashion(tmp_path / "new", download=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [mirror])
        data.prepare_data()
        server.shutdown()
    data.setup("fit")
    assert len(data.train_set) == 150


def test_failed_download_is_one_line(tmp_path, monkeypatch, check_one_line):
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"{(tmp_path / 'gone').as_uri()}/"])
    with pytest.raises(OSError) as error:
        fashion(tmp_path, download=True).prepare_data()
    check_one_line(error, "cannot download Fashion-MNIST", tmp_path, "check the connection")

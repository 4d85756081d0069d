"""Files with code in them: it is not run."""

import pickle
import zipfile

import pytest
import torch
from fixtures.sealed_files import MANIFEST, every_operation, parts, write

from bnnlight.deploy.formats.packed import load_packed, save_packed
from bnnlight.tasks.checkpoints import read_checkpoint


class Bomb:
    """What its pickle does when it is read: it creates a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def raw_pickle(bomb, file):
    file.write_bytes(pickle.dumps({"state_dict": bomb}, protocol=2))


def torch_zip(bomb, file):
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "hyper_parameters": bomb}, file)


def torch_legacy(bomb, file):
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "x": bomb}, file, _use_new_zipfile_serialization=False)


def bare_zip(bomb, file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": bomb}, protocol=2))
        archive.writestr("archive/version", "3")


def safetensors_with_pickle(bomb, file):
    # right up to the last entry of the header, whose text is a pickle
    program, manifest, tensors = parts(save_packed(every_operation(), MANIFEST, file.parent))
    program["steps"][0]["op"] = pickle.dumps(bomb, protocol=0).decode()
    write(file, program, manifest, tensors)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize("make", [raw_pickle, torch_zip, torch_legacy, bare_zip, safetensors_with_pickle])
def test_code_in_a_file_is_not_run(tmp_path, check_one_line, make, suffix):
    marker, file = tmp_path / "marker", tmp_path / f"bomb.{suffix}"
    make(Bomb(marker), file)
    with pytest.raises(ValueError) as error:
        load_packed(file)
    check_one_line(error, file)
    with pytest.raises(ValueError) as error:
        read_checkpoint(file)
    check_one_line(error, file)
    assert not marker.exists()


@pytest.mark.parametrize("make", [raw_pickle, torch_zip, torch_legacy])
def test_the_code_would_have_run(tmp_path, make):
    # else the test above would hold for any reader
    marker, file = tmp_path / "marker", tmp_path / "bomb"
    make(Bomb(marker), file)
    content = torch.load(file, weights_only=False) if make is not raw_pickle else pickle.loads(file.read_bytes())
    assert content and marker.exists()

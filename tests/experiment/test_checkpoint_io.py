"""Checkpoints are whole or not there, and damage shows."""

import os
import random
import zipfile

import pytest
import torch

from bnnlight.experiment.checkpoint_io import WholeCheckpointIO, damage
from bnnlight.experiment.run_dir import newest_checkpoint


def content(step=3):
    numbers = torch.Generator().manual_seed(step)
    weights = {"weight": torch.randn(64, 32, generator=numbers), "bias": torch.arange(64)}
    return {"global_step": step, "state_dict": weights, "optimizer_states": [], "rates": {"lr": 0.01}}


def same(one, other):
    for name, value in one["state_dict"].items():
        if not torch.equal(value, other["state_dict"][name]):
            return False
    return all(one[name] == other[name] for name in one if name != "state_dict")


def test_saved_as_torch_saves(tmp_path):
    path = tmp_path / "new" / "a.ckpt"
    WholeCheckpointIO().save_checkpoint(content(), path)
    assert same(torch.load(path, weights_only=True), content())
    assert damage(path) is None
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]


def test_no_bit_flips_unseen(tmp_path):
    """A file with one bit turned over is told, or still holds every number as it was saved."""
    checkpoints = tmp_path / "checkpoints"
    WholeCheckpointIO().save_checkpoint(content(), checkpoints / "last.ckpt")
    path = checkpoints / "last.ckpt"
    raw, rng, told = path.read_bytes(), random.Random(0), 0
    with zipfile.ZipFile(path) as archive:
        starts = [entry.header_offset for entry in archive.infolist()]
    # anywhere, and in the headers, the least of the file, more often
    places = [rng.randrange(len(raw)) for _ in range(150)]
    places += [min(len(raw) - 1, rng.choice(starts) + rng.randrange(60)) for _ in range(150)]
    places += [len(raw) - 1 - rng.randrange(600) for _ in range(150)]
    for place in places:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            found = newest_checkpoint(checkpoints)
        except ValueError as error:
            assert "is damaged" in str(error)
            told += 1
        else:
            assert found == str(path)
            assert same(torch.load(found, weights_only=True), content()), place
    assert told > len(places) / 2


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path, seen, move = tmp_path / "last.ckpt", [], os.replace
    WholeCheckpointIO().save_checkpoint(content(), path)

    def look(part, place):
        seen.append((torch.load(part, weights_only=True), torch.load(place, weights_only=True)))
        move(part, place)

    monkeypatch.setattr(os, "replace", look)
    WholeCheckpointIO().save_checkpoint(content(4), path)
    ((new, old),) = seen
    assert same(new, content(4)) and same(old, content())
    assert same(torch.load(path, weights_only=True), content(4))


@pytest.mark.parametrize("length", [0, 1, 100, -1, -30])
def test_cut_off_files_are_told(tmp_path, length):
    path = tmp_path / "a.ckpt"
    WholeCheckpointIO().save_checkpoint(content(), path)
    path.write_bytes(path.read_bytes()[:length])
    assert damage(path).startswith("cut off or overwritten")


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint(content(), path)
    (tmp_path / "last.ckpt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="cannot save a checkpoint: No space left on device") as error:
        WholeCheckpointIO().save_checkpoint(content(4), path)
    assert error.value.filename == str(path)
    assert same(torch.load(path, weights_only=True), content())
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_newest_is_the_one_with_the_most_steps(tmp_path):
    """Whatever the files' times say; of one step, the one that was written last."""
    assert newest_checkpoint(tmp_path / "none") is None
    assert newest_checkpoint(tmp_path) is None
    for name, step in (("previous", 8), ("best", 9), ("last", 9), ("other", 2)):
        WholeCheckpointIO().save_checkpoint(content(step), tmp_path / f"{name}.ckpt")
    (tmp_path / "next.ckpt.part").write_bytes(b"PK")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "last.ckpt")
    WholeCheckpointIO().save_checkpoint(content(9), tmp_path / "next.ckpt")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "next.ckpt")


def test_what_holds_weights_alone_is_nothing_to_go_on_from(tmp_path):
    WholeCheckpointIO().save_checkpoint(content(8), tmp_path / "last.ckpt")
    weights = {name: value for name, value in content(9).items() if name != "optimizer_states"}
    WholeCheckpointIO().save_checkpoint(weights, tmp_path / "best.ckpt")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt").unlink()
    assert newest_checkpoint(tmp_path) is None and (tmp_path / "best.ckpt").exists()


def test_damaged_ones_are_set_aside_and_named(tmp_path, capsys):
    for name, step in (("previous", 8), ("last", 9)):
        WholeCheckpointIO().save_checkpoint(content(step), tmp_path / f"{name}.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"nothing")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "previous.ckpt")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bnnlight fit: {tmp_path / 'last.ckpt'} is damaged: cut off or overwritten")
    assert line.endswith(f"going on from {tmp_path / 'previous.ckpt'}, step 8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt.damaged", "previous.ckpt"]


def test_another_kind_of_file_is_not_a_checkpoint(tmp_path):
    torch.save({"weights": 1}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last.ckpt is damaged: it cannot be read \('global_step'\)"):
        newest_checkpoint(tmp_path)

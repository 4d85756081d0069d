"""Shipped models called by many threads, in batches of many sizes, and in other processes."""

import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Semaphore

import numpy as np
import pytest
import torch
from fixtures.processes import LIMIT_S
from fixtures.trained_networks import trained
from torch import nn

from bnnlight.deploy import Runtime
from bnnlight.deploy.formats.onnx import save_onnx
from bnnlight.deploy.formats.openvino import openvino_signs, save_openvino
from bnnlight.deploy.formats.packed import packed_signs, save_packed
from bnnlight.deploy.formats.workers import MOST, Workers
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.nn import BinaryConv2d

SAVE = {"packed": save_packed, "openvino": save_openvino, "onnx": save_onnx}
SIZE, THREADS = 11, 4


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def network():
    """Whatever torch rounds otherwise in a batch than alone, and whose vectors do not end where a picture does."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.BatchNorm2d(8), BinaryConv2d(8, 16, 3, padding=1), nn.Tanh()
    more = nn.BatchNorm2d(16), BinaryConv2d(16, 16, 3), nn.PReLU(), nn.Conv2d(16, 33, 1), nn.AvgPool2d(2), Mean()
    return trained(nn.Sequential(*layers, *more, nn.Linear(33, 7)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    program = freeze(network(), (3, SIZE, SIZE))
    manifest = Manifest("classification", "x.Y", PictureInput(3, SIZE, (0.5,) * 3, (0.25,) * 3), tuple("abcdefg"))
    made = {}
    for name, save in SAVE.items():
        made[name] = tmp_path_factory.mktemp(name)
        save(program, manifest, made[name])
    return made


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).standard_normal((70, 3, SIZE, SIZE), dtype=np.float32)


@pytest.fixture(params=SAVE)
def folder(folders, request):
    return folders[request.param]


@pytest.mark.parametrize("cores", [1, 4])
@pytest.mark.parametrize("num_threads", [None, 1])
def test_each_thread_gets_its_own_answers(folder, pictures, num_threads, cores, monkeypatch):
    monkeypatch.setattr("bnnlight.deploy.formats.workers.num_cores", lambda: cores)
    runtime = Runtime(folder, num_threads)
    wanted = np.stack([runtime(picture[None])[0] for picture in pictures])
    assert len(np.unique(wanted, axis=0)) == len(pictures)
    together = Barrier(THREADS)

    def work(index):
        rng = np.random.default_rng(index)
        for _ in range(12):
            some = rng.choice(len(pictures), rng.integers(1, 6))
            together.wait(60)
            np.testing.assert_array_equal(runtime(pictures[some]), wanted[some])

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(work, index) for index in range(THREADS)]:
            done.result()


@pytest.mark.parametrize("num_threads", [None, 1])
def test_a_picture_gets_in_any_batch_what_it_gets_alone(folder, pictures, num_threads):
    runtime = Runtime(folder, num_threads)
    wanted = np.concatenate([runtime(picture[None]) for picture in pictures])
    for size in (2, 3, 7, MOST, MOST + 1, len(pictures)):
        np.testing.assert_array_equal(runtime(pictures[:size]), wanted[:size])
        np.testing.assert_array_equal(runtime(pictures[::-1][:size]), wanted[::-1][:size])


def test_signs_do_not_depend_on_the_batch(folders, pictures):
    for name, signs in (("packed", packed_signs), ("openvino", openvino_signs)):
        (file,) = (file for file in folders[name].iterdir() if file.suffix in (".xml", ".safetensors"))
        look = signs(file)
        whole = look(pictures[:20])
        assert len(whole) == 2
        for index in range(20):
            for step, alone in look(pictures[index : index + 1]).items():
                np.testing.assert_array_equal(alone[0], whole[step][index], strict=True)


def test_a_packed_model_is_the_network_that_ran_on_a_batch(folders, pictures):
    # torch takes other kernels for a single small picture, which round otherwise
    images = torch.from_numpy(pictures)
    stem, frozen = network()[0], freeze(network()[:1], (3, SIZE, SIZE))
    from bnnlight.deploy.formats.plain import FrozenNetwork

    with torch.no_grad():
        wanted = stem(images)
        found = torch.cat([FrozenNetwork(frozen)(picture[None]) for picture in images])
    assert torch.equal(found, wanted)


def test_what_is_kept_does_not_grow_with_the_batches_seen(folders, pictures, monkeypatch):
    import openvino as ov

    from bnnlight.deploy.formats import openvino

    compiled, requests = [], []
    compile_model, create = ov.Core.compile_model, ov.CompiledModel.create_infer_request
    monkeypatch.setattr(ov.Core, "compile_model", lambda *a: compiled.append(1) or compile_model(*a))
    monkeypatch.setattr(ov.CompiledModel, "create_infer_request", lambda *a: requests.append(1) or create(*a))
    openvino._check_arithmetic()
    compiled.clear(), requests.clear()
    runtime = Runtime(folders["openvino"])
    for size in range(1, len(pictures)):
        runtime(pictures[:size])
    assert len(compiled) == 1
    assert 1 <= len(requests) <= Workers(None).at_a_time


@pytest.mark.parametrize("name", ["packed", "onnx"])
def test_no_more_pictures_than_a_few_reach_a_network_at_once(folders, pictures, name, monkeypatch):
    runtime, sizes = Runtime(folders[name], 1), []
    network = runtime._engine()._network
    inner = network._network if name == "packed" else network._session
    if name == "packed":
        inner.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    else:
        monkeypatch.setattr(network, "_session", Spy(inner, sizes))
    runtime(pictures)
    assert sum(sizes) == len(pictures)
    assert max(sizes) <= (MOST if name == "packed" else 1)


class Spy:
    def __init__(self, session, sizes):
        self.session, self.sizes = session, sizes

    def run(self, names, given):
        self.sizes.append(len(given["input"]))
        return self.session.run(names, given)


def test_workers_compute_as_many_at_a_time_as_there_are_cores(monkeypatch):
    monkeypatch.setattr("bnnlight.deploy.formats.workers.num_cores", lambda: 6)
    for asked, per_picture, at_a_time in ((None, 1, 6), (1, 1, 6), (2, 2, 3), (4, 4, 1), (8, 8, 1)):
        workers = Workers(asked)
        assert (workers.per_picture, workers.at_a_time) == (per_picture, at_a_time)
    # without a number the pictures of one call meet: each waits for the two others
    together = Barrier(3)
    assert [*map(int, Workers(None)(lambda piece: together.wait(60) >= 0, np.zeros((3, 1, 1, 1))))] == [1, 1, 1]
    # with one they are computed one after the other
    running, most = [], []

    def run(piece):
        running.append(1)
        most.append(len(running))
        running.pop()
        return len(piece)

    assert sum(Workers(1)(run, np.zeros((40, 1, 1, 1)))) == 40
    assert set(most) == {1} and len(most) == -(-40 // MOST)


def test_workers_let_in_twice_as_many_callers_as_they_compute_at_a_time(monkeypatch):
    monkeypatch.setattr("bnnlight.deploy.formats.workers.num_cores", lambda: 3)
    workers, inside, let_in, go = Workers(1), [], Semaphore(0), Event()

    def run(piece):
        inside.append(1)
        let_in.release()
        assert go.wait(LIMIT_S)
        return len(piece)

    with ThreadPoolExecutor(9) as threads:
        calls = [threads.submit(workers, run, np.zeros((1, 1, 1, 1))) for _ in range(9)]
        assert all(let_in.acquire(timeout=LIMIT_S) for _ in range(6))
        assert not workers._free.acquire(blocking=False) and len(inside) == 6
        go.set()
        assert [call.result() for call in calls] == [[1]] * 9


def test_an_error_of_one_picture_reaches_its_caller_alone(folder, pictures):
    runtime = Runtime(folder)
    for wrong in (pictures[:, :2], pictures[0]):
        with pytest.raises(ValueError):
            runtime(wrong)
    assert runtime(pictures[:3]).shape == (3, 7)


def test_pickled_it_opens_its_file_anew(folder, pictures, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    runtime = Runtime(folder.name, num_threads=2)
    text = pickle.dumps(runtime)
    monkeypatch.chdir(tmp_path)  # in which the path would mean nothing
    again = pickle.loads(text)
    assert (again.file, again.format, again.manifest) == (runtime.file, runtime.format, runtime.manifest)
    np.testing.assert_array_equal(again(pictures), runtime(pictures))
    assert len(text) < 1000


def answer(runtime, pictures, answers):
    answers.put((os.getpid(), runtime(pictures)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_process_that_is_forked_gets_the_same_answers(folder, pictures):
    runtime = Runtime(folder)
    wanted = runtime(pictures)  # its threads run
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=answer, args=(runtime, pictures, answers))
    child.start()
    process, found = answers.get(timeout=LIMIT_S)
    child.join(LIMIT_S)
    assert process != os.getpid() and child.exitcode == 0
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(runtime(pictures), wanted)

"""cluster/torchrun.sh, really run."""

import shlex

import pytest
from fixtures.free_port import free_port


def test_its_example_trains_in_two_processes(cluster, example, on_digits, run, steps, tmp_path):
    script = cluster / "torchrun.sh"
    _, digits, found = on_digits(example(script, "cluster/torchrun.sh"), tmp_path / "a")
    assert set(found) == {"--config", "--data.root", "--run_dir"}
    done = run(script, *digits, DEVICES=2)
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "a") == 2


def test_two_machines_meet(cluster, machines, on_digits, example, steps, tmp_path):
    script = cluster / "torchrun.sh"
    _, digits, _ = on_digits(example(script, "cluster/torchrun.sh"), tmp_path / "a")
    variables = {"NODES": "2", "HEAD": f"127.0.0.1:{free_port()}", "DEVICES": "1"}
    codes, said = machines([script, *digits], [variables] * 2)
    assert codes == [0, 0], said
    assert steps(tmp_path / "a") == 2


@pytest.fixture
def told(program, run, cluster):
    """What torchrun is given, in the place of which a stub writes its words."""

    def ask(*args, **variables):
        program("python3", '#!/bin/bash\nprintf "%q " "$@"\n')
        done = run(cluster / "torchrun.sh", *args, **variables)
        return shlex.split(done.stdout) if done.returncode == 0 else done

    return ask


@pytest.mark.parametrize(("gpus", "expected"), [("GPU 0\nGPU 1\nGPU 2\n", "3"), ("", "1")])
def test_one_process_for_each_gpu(told, program, gpus, expected):
    program("nvidia-smi", f"#!/bin/bash\nprintf '{gpus}'\n")
    words = told("--config", "C")
    assert words[words.index("--nproc-per-node") + 1] == expected
    assert words[words.index("--trainer.devices") + 1] == expected
    assert "--standalone" in words


def test_the_port_may_be_named_and_is_known_else(told):
    for head, endpoint in (("node1", "node1:29400"), ("node1:5", "node1:5")):
        words = told(NODES=2, HEAD=head, DEVICES=4, JOB="b", MAX_RESTARTS=0, ADDRESS="10.0.0.1")
        options = dict(zip(words[2:14:2], words[3:14:2], strict=True))
        assert options == {
            **{"--nnodes": "2", "--rdzv-backend": "c10d", "--rdzv-endpoint": endpoint, "--rdzv-id": "b"},
            **{"--local-addr": "10.0.0.1", "--nproc-per-node": "4"},
        }
        assert words[words.index("--max-restarts") + 1] == "0"
        assert words[-5:] == ["--resume", "--trainer.devices", "4", "--trainer.num_nodes", "2"]


def test_several_machines_without_a_place_to_meet(told):
    done = told(NODES=2)
    assert done.returncode == 1
    assert "set HEAD to the machine where all of them meet" in done.stderr

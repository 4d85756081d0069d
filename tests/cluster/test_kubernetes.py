"""cluster/kubernetes/job.yaml: by Kubernetes' own schemas, and its command line really run."""

import re

import kubernetes_validate
import pytest
import yaml
from fixtures.free_port import free_port


@pytest.fixture
def manifests(cluster):
    text = (cluster / "kubernetes" / "job.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture
def pod(manifests):
    return manifests["Job"]["spec"]["template"]["spec"]


@pytest.fixture
def variables(pod):
    return {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"] if "value" in entry}


def test_kubernetes_knows_all_that_stands_in_it(manifests):
    assert set(manifests) == {"Service", "Job"}
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, "1.31", strict=True)
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_pods_find_the_first_one_by_name(manifests, pod):
    job, service = manifests["Job"], manifests["Service"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completionMode"] == "Indexed"
    first = f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert f"--rdzv-endpoint={first}:29400" in pod["containers"][0]["args"]


def test_the_sizes_that_stand_in_several_places_agree(manifests, pod, variables):
    spec, resources = manifests["Job"]["spec"], pod["containers"][0]["resources"]
    assert {str(spec["completions"]), str(spec["parallelism"])} == {variables["NODES"]}
    gpus = {str(resources[kind]["nvidia.com/gpu"]) for kind in ("requests", "limits")}
    assert gpus == {variables["DEVICES"]}


def outcome(policy, code, disrupted=False):
    """What Kubernetes does with a pod that failed: the first rule that fits, as its documentation says."""
    for rule in policy["rules"]:
        if disrupted and {"type": "DisruptionTarget", "status": "True"} in rule.get("onPodConditions", []):
            return rule["action"]
        if code in rule.get("onExitCodes", {}).get("values", []):
            assert rule["onExitCodes"]["operator"] == "In"
            return rule["action"]
    return "Count"


def test_only_errors_of_ours_end_the_job(manifests, pod):
    policy = manifests["Job"]["spec"]["podFailurePolicy"]
    assert pod["restartPolicy"] == "Never"  # Kubernetes admits a policy with no other
    outcomes = {code: outcome(policy, code) for code in (1, 2, 75, 143, 137, 139)}
    assert outcomes == {1: "FailJob", 2: "FailJob", 75: "Ignore", 143: "Ignore", 137: "Count", 139: "Count"}
    # a pod that is moved away may end with anything
    assert {outcome(policy, code, disrupted=True) for code in (1, 2, 75, 137)} == {"Ignore"}
    names = {rule["onExitCodes"]["containerName"] for rule in policy["rules"] if "onExitCodes" in rule}
    assert names == {pod["containers"][0]["name"]}


def test_is_not_root_and_writes_only_where_something_is_mounted(pod):
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    assert writable == {"/runs", "/dev/shm", "/tmp"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"


def test_its_key_comes_from_a_secret_that_may_be_missing(pod):
    entry = next(entry for entry in pod["containers"][0]["env"] if entry["name"] == "WANDB_API_KEY")
    assert entry["valueFrom"]["secretKeyRef"] == {"name": "wandb", "key": "api-key", "optional": True}


def test_its_pods_train_as_one_run(pod, variables, machines, on_digits, steps, tmp_path):
    container = pod["containers"][0]
    # two pods of one process each, on this machine
    variables |= {"DEVICES": "1", "ADDRESS": "127.0.0.1"}
    words = [re.sub(r"\$\((\w+)\)", lambda m: variables[m[1]], word) for word in container["args"]]
    words = [re.sub(r"bnnlight-0\.bnnlight:\d+", f"127.0.0.1:{port}", word) for port in [free_port()] for word in words]
    words, digits, found = on_digits(words, tmp_path / "a")
    assert "--resume" in words
    assert found["--data.root"] == "/data"
    assert found["--run_dir"].startswith("/runs/")
    # tini hands on what follows
    assert container["command"][:2] == ["tini", "--"]
    command = [*container["command"][2:], *words, *digits]
    index = [variables | {"JOB_COMPLETION_INDEX": str(number)} for number in range(int(variables["NODES"]))]
    codes, said = machines(command, index)
    assert codes == [0, 0], said
    assert steps(tmp_path / "a") == 2

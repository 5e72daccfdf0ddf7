"""The rendered files pass the checkers of their platforms, and those checkers find planted mistakes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from medical_vqa.deploying.engines import ENGINES, engine_card
from medical_vqa.deploying.render import complete_values, render
from medical_vqa.errors import ConfigError
from medical_vqa.runtime.environment import package_version
from medical_vqa.serving.settings import PREFIX, Settings

sys.path.insert(0, str(Path(__file__).parent))
from rendered import CASES, WHEEL, rendered

SCHEMAS = Path(__file__).parent / "schemas"
# https://huggingface.co/docs/hub/spaces-config-reference: the keys a Docker Space may have
SPACE_KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "app_port", "pinned", "license", "short_description", "tags",
    "models", "datasets", "base_path", "fullWidth", "header", "thumbnail", "suggested_hardware", "suggested_storage",
    "hf_oauth", "custom_headers", "preload_from_hub", "startup_duration_timeout", "disable_embedding",
}  # fmt: skip
SPACE_COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def schema(name):
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))


def problems(name, document):
    return [error.message for error in schema(name).iter_errors(document)]


def dockerfiles():
    return [
        (case, name, text) for case in CASES for name, text in rendered(case).items() if name.startswith("Dockerfile")
    ]


# --- containers -------------------------------------------------------------------------------------------------------


def test_every_dockerfile_passes_hadolint(tool):
    files = dockerfiles()
    assert len(files) >= 10
    for case, name, text in files:
        status, output = tool("hadolint", "--failure-threshold", "style", "-", stdin=text)
        assert status == 0, f"{case}/{name}: {output}"


def test_hadolint_finds_planted_mistakes(tool):
    text = rendered("compose")["Dockerfile"].replace("USER 1000", "USER root").replace(":3.11.14-slim-bookworm", "")
    status, output = tool("hadolint", "--failure-threshold", "style", "-", stdin=text)
    assert status == 1
    assert "DL3006" in output
    assert "DL3002" in output


def test_every_container_is_pinned_multi_stage_and_runs_as_1000():
    for case, name, text in dockerfiles():
        images = re.findall(r"^FROM (\S+)", text, re.M)
        assert len(images) >= 2, (case, name)
        assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm|build", image) for image in images)
        last = text[text.rindex("\nFROM") :]
        assert re.findall(r"^USER (.*)", last, re.M) == ["1000"]
        assert "HEALTHCHECK" in last
        assert "--constraint constraints.txt" in text


def test_only_a_model_that_needs_torch_brings_torch():
    for case, name, text in dockerfiles():
        needs_torch = case.endswith("-gpu") and name == "Dockerfile"
        assert ("train" in re.findall(r"\[(\S+)\]", text)[0].split(",")) is needs_torch, (case, name)


def test_the_gpu_container_takes_weights_from_a_mount_or_bakes_them_in():
    text = rendered("cloud-run-gpu")["Dockerfile"]
    assert "ARG BAKE=0" in text
    assert "hf download Salesforce/blip2-flan-t5-xl --revision main" in text
    assert "HF_HUB_OFFLINE=1" in text


def test_the_package_comes_from_the_wheel_or_from_the_index():
    assert f'"./{WHEEL}[serve]"' in rendered("cloud-run")["Dockerfile"]
    assert f'"medical-vqa[serve]=={package_version()}"' in rendered("cloud-run", wheel=None)["Dockerfile"]


def test_the_context_holds_nothing_but_what_is_copied():
    assert rendered("compose")[".dockerignore"].split() == ["*", "!model", "!packages"]


def test_the_server_knows_every_setting_that_the_files_name():
    """It refuses unknown ones at the start."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX + "HOME"}
    page = {PREFIX + "BACKEND", PREFIX + "API_KEY"}
    for case in CASES:
        for name, text in rendered(case).items():
            variables = set(re.findall(rf"\b{PREFIX}[A-Z_]+", text))
            assert variables <= known | page, (case, name)
            if name == "Dockerfile" and "space" not in case:
                assert not variables & page, (case, name)


# --- Cloud Run --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["cloud-run", "cloud-run-gpu"])
def service(request):
    return yaml.safe_load(rendered(request.param)["service.yaml"])


def test_the_cloud_run_service_fits_googles_description(service):
    assert problems("cloud_run", service) == []


@pytest.mark.parametrize(
    "path",
    ["spec.template.spec.containerConcurency", "spec.template.spec.containers.0.startupProbe.httpGet.pth",
     "spec.template.spec.volumes.0.csi.volumeAttribute", "specs"],
)  # fmt: skip
def test_a_planted_typo_in_the_service_is_found(service, path):
    *parents, last = path.split(".")
    node = service
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    node[last] = "x"
    assert any(last in problem for problem in problems("cloud_run", service))


def test_a_number_where_google_wants_a_word_is_found(service):
    service["spec"]["template"]["spec"]["containerConcurrency"] = "many"
    assert problems("cloud_run", service)
    service["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"] = 4
    assert any("4 is not of type 'string'" in problem for problem in problems("cloud_run", service))


def test_the_service_has_boost_probes_a_shared_store_and_its_keys(service):
    template = service["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert template["metadata"]["annotations"]["run.googleapis.com/startup-cpu-boost"] == "true"
    assert {"startupProbe", "livenessProbe"} <= set(container)
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert all("bucketName" in volume["csi"]["volumeAttributes"] for volume in template["spec"]["volumes"])
    env = {one["name"]: one for one in container["env"]}
    assert env["MEDICAL_VQA_STORE"]["value"] == mounted["images"]
    assert env["MEDICAL_VQA_API_KEYS"]["valueFrom"]["secretKeyRef"]["key"] == "latest"
    assert template["spec"]["timeoutSeconds"] > Settings.model_fields["deadline"].default


def test_probes_stay_within_cloud_runs_bounds(service):
    (container,) = service["spec"]["template"]["spec"]["containers"]
    for probe in (container["startupProbe"], container["livenessProbe"]):
        assert probe.get("initialDelaySeconds", 0) <= 240
        assert probe["timeoutSeconds"] <= probe["periodSeconds"] <= 240


@pytest.mark.parametrize("target", ["cloud-run", "cloud-run-gpu"])
def test_the_server_derives_its_limits_from_the_memory_that_its_container_gets(target):
    (container,) = yaml.safe_load(rendered(target)["service.yaml"])["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    gibibytes = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert int(env["MEDICAL_VQA_MEMORY_BYTES"]) == gibibytes * 1024**3


def test_the_gpu_service_asks_for_an_l4_with_the_least_it_goes_with():
    spec = yaml.safe_load(rendered("cloud-run-gpu")["service.yaml"])["spec"]["template"]["spec"]
    limits = spec["containers"][0]["resources"]["limits"]
    assert spec["nodeSelector"] == {"run.googleapis.com/accelerator": "nvidia-l4"}
    assert limits["nvidia.com/gpu"] == "1"
    assert int(limits["cpu"]) >= 4
    assert int(limits["memory"].removesuffix("Gi")) >= 16


# --- Kubernetes -------------------------------------------------------------------------------------------------------


ON_KUBERNETES = {
    "kubernetes": 9, "kubernetes-gpu": 9, "kubernetes-vllm": 14, "kubernetes-sglang": 14, "kubernetes-ollama": 13,
}  # fmt: skip


@pytest.fixture(params=list(ON_KUBERNETES))
def manifest(request):
    documents = list(yaml.safe_load_all(rendered(request.param)["medical-vqa.yaml"]))
    assert len(documents) == ON_KUBERNETES[request.param]
    return documents


def test_the_manifest_fits_kubernetes_own_schemas(manifest):
    assert [problem for document in manifest for problem in problems("kubernetes", document)] == []


def test_a_planted_typo_in_the_manifest_is_found(manifest):
    for document in manifest:
        document["specs"] = document.pop("spec")
        assert problems("kubernetes", document), document["kind"]
    backend = manifest[0]
    backend["spec"] = backend.pop("specs")
    backend["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    assert any("livenessProb" in problem for problem in problems("kubernetes", backend))
    assert problems("kubernetes", {"kind": "Deploymnet", "apiVersion": "apps/v1"})


def test_selectors_select_the_pods_they_are_for(manifest):
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in manifest if d["kind"] == "Deployment"]
    for document in manifest:
        selector = document["spec"].get("selector") or document["spec"].get("podSelector") or {}
        labels_needed = selector.get("matchLabels", selector)
        if labels_needed:
            assert sum(labels_needed.items() <= labels.items() for labels in pods) == 1, document["kind"]


def test_every_pod_is_unprivileged_and_writes_only_where_a_volume_is(manifest):
    for deployment in (d for d in manifest if d["kind"] == "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


# --- compose ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["compose", "compose-gpu", "compose-vllm", "compose-sglang", "compose-ollama"])
def test_the_compose_file_fits_the_compose_specification(case, tool, tmp_path):
    path = tmp_path / "compose.yaml"
    path.write_text(rendered(case)["compose.yaml"], encoding="utf-8")
    status, output = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert status == 0, output
    path.write_text(rendered(case)["compose.yaml"].replace("depends_on:", "depend_on:"), encoding="utf-8")
    status, output = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert status == 1
    assert "depend_on" in output


def test_the_proxy_sends_api_requests_to_the_backend_and_the_rest_to_the_page():
    services = yaml.safe_load(rendered("compose")["compose.yaml"])["services"]
    assert set(services) == {"proxy", "app", "backend"}
    assert "ports" not in services["backend"]
    proxied = rendered("compose")["Caddyfile"]
    assert proxied.index("backend:8000") < proxied.index("app:8501")
    trusted = services["backend"]["environment"]["MEDICAL_VQA_TRUSTED_PROXIES"]
    assert services["proxy"]["networks"]["default"]["ipv4_address"] == trusted


# --- engines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "address"),
    [("vllm", "http://engine:8000/v1"), ("sglang", "http://engine:30000/v1"), ("ollama", "http://engine:11434/v1")],
)
def test_an_engine_is_a_service_that_the_backend_alone_asks(engine, address):
    services = yaml.safe_load(rendered(f"compose-{engine}")["compose.yaml"])["services"]
    assert services["backend"]["environment"]["MEDICAL_VQA_BASE_URL"] == address
    assert services["backend"]["environment"]["MEDICAL_VQA_MODEL"] == "openai:google/medgemma-4b-it"
    assert "ports" not in services["engine"]
    assert services["backend"]["stop_grace_period"] == "130s"  # an answer may take 120 s, and a stop loses none
    waits_for = services["backend"]["depends_on"]
    assert waits_for in (
        {"engine": {"condition": "service_healthy"}},
        {"model": {"condition": "service_completed_successfully"}},
    )
    (device,) = services["engine"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    manifest = list(yaml.safe_load_all(rendered(f"kubernetes-{engine}")["medical-vqa.yaml"]))
    named = {(document["kind"], document["metadata"]["name"]): document for document in manifest}
    container = named["Deployment", "engine"]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert named["PersistentVolumeClaim", "weights"]["spec"]["resources"]["requests"]["storage"] == "100Gi"
    peers = named["NetworkPolicy", "engine"]["spec"]["ingress"][0]["from"]
    assert peers[0]["podSelector"]["matchLabels"]["part"] == "backend"
    env = {
        one["name"]: one.get("value")
        for one in named["Deployment", "backend"]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert env["MEDICAL_VQA_BASE_URL"] == address


@pytest.mark.parametrize(
    ("engine", "metric"), [("vllm", "vllm_num_requests_waiting"), ("sglang", "sglang_num_queue_reqs")]
)
def test_engines_scale_on_their_queue(engine, metric):
    manifest = list(yaml.safe_load_all(rendered(f"kubernetes-{engine}")["medical-vqa.yaml"]))
    scaler = next(d for d in manifest if d["kind"] == "HorizontalPodAutoscaler" and d["metadata"]["name"] == "engine")
    assert scaler["spec"]["metrics"][0]["pods"]["metric"]["name"] == metric


def test_the_server_in_front_of_an_engine_has_neither_torch_nor_weights():
    text = rendered("compose-vllm")["Dockerfile"]
    assert f'"./{WHEEL}[serve,remote]"' in text
    assert "COPY model/" not in text
    assert "MEDICAL_VQA_MODEL" not in text
    assert rendered("compose-vllm")[".dockerignore"].split() == ["*", "!packages"]


@pytest.mark.parametrize("target", ["cloud-run", "space"])
def test_a_target_without_engines_says_which_have_them(target):
    with pytest.raises(ConfigError, match="choose one of compose, kubernetes"):
        render(target, engine_card("m"), values=complete_values(target, {}), wheel=None, engine=ENGINES["vllm"])


@pytest.mark.parametrize("model_id", ["", "a b", "x'; rm", "{{ x }}"])
def test_a_model_id_that_no_engine_takes(model_id):
    with pytest.raises(ConfigError, match="expected the id of a model"):
        engine_card(model_id)


# --- Spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["space", "space-app"])
def test_the_space_has_the_metadata_that_the_platform_reads(case):
    files = rendered(case)
    head = yaml.safe_load(files["README.md"].split("---\n")[1])
    assert set(head) <= SPACE_KEYS
    assert head["sdk"] == "docker"
    assert {head["colorFrom"], head["colorTo"]} <= SPACE_COLORS
    assert len(head["short_description"]) <= 60
    assert f"PORT={head['app_port']}" in files["Dockerfile"]
    assert "STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION=false" in files["Dockerfile"]
    assert ("COPY model/" in files["Dockerfile"]) is (case == "space")


def test_a_model_that_needs_a_gpu_cannot_run_in_a_space_but_may_be_its_backend(monkeypatch):
    monkeypatch.setitem(CASES, "space-gpu", ("space", "gpu", {}))
    with pytest.raises(ConfigError, match=r"choose a compact one, or a backend"):
        rendered("space-gpu")
    assert "COPY model/" not in rendered("space-gpu", backend="https://x.example")["Dockerfile"]


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_fill_the_names_in():
    text = rendered("cloud-run", project="mine", region="us-east4")["service.yaml"]
    assert "us-east4-docker.pkg.dev/mine/medical-vqa/backend:" in text
    assert "bucketName: mine-medical-vqa-images" in text
    assert "PROJECT" not in text


def test_an_unknown_value_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'region'"):
        rendered("cloud-run", regoin="us-east4")

"""Derive the JSON schemas that the deployment tests check against, from two packages that bundle the originals.

    pip install google-api-python-client kubernetes-validate && python tools/make_deploy_schemas.py tests/deploy/schemas

``cloud_run.json`` is Google's API description of Cloud Run (run.v1), ``kubernetes.json`` the strict schemas of
Kubernetes for the kinds of our manifest. Both refuse unknown keys; descriptions are left out. Both are Apache-2.0.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

KUBERNETES = "v1.37.0-local-strict"
KINDS = {
    "Deployment": "deployment-apps-v1",
    "Service": "service-v1",
    "PersistentVolumeClaim": "persistentvolumeclaim-v1",
    "HorizontalPodAutoscaler": "horizontalpodautoscaler-autoscaling-v2",
    "PodDisruptionBudget": "poddisruptionbudget-policy-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
    "Ingress": "ingress-networking-v1",
}


def cloud_run() -> dict[str, Any]:
    """The `Service` of run.v1, closed: Google's description lists every field."""
    package = files("googleapiclient.discovery_cache.documents")
    about = json.loads((package / "run.v1.json").read_text(encoding="utf-8"))
    definitions = {name: _closed(schema) for name, schema in about["schemas"].items()}
    schema = {"$schema": _DRAFT, "$comment": f"run.v1 of {about['revision']}", "$ref": "#/$defs/Service"}
    return schema | {"$defs": _reached(definitions, ["Service"])}


def kubernetes() -> dict[str, Any]:
    """One schema for each kind, chosen by `kind`."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / KUBERNETES
    definitions = _here(_plain(json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))["$defs"]))
    for kind, name in KINDS.items():
        definitions[kind] = _here(_plain(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))))
    of_kind = [{"if": _kind(kind), "then": {"$ref": f"#/$defs/{kind}"}} for kind in KINDS]
    known = {"required": ["kind", "apiVersion"], "properties": {"kind": {"enum": list(KINDS)}}}
    schema = {"$schema": _DRAFT, "$comment": f"Kubernetes {KUBERNETES}", **known, "allOf": of_kind}
    return schema | {"$defs": _reached(definitions, list(KINDS))}


_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _kind(kind: str) -> dict[str, Any]:
    return {"properties": {"kind": {"const": kind}}}


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A discovery schema as JSON Schema: own references, no unknown keys, formats and enumerations kept."""
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    kept = {key: schema[key] for key in ("type", "enum") if key in schema and schema[key] != "any"}
    if "properties" in schema:
        kept["properties"] = {name: _closed(part) for name, part in schema["properties"].items()}
        kept["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            kept[key] = _closed(schema[key])
    return kept


def _plain(node: Any) -> Any:
    """Without descriptions and formats that no validator knows; a property may itself be called `description`."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _plain(part) for name, part in value.items()} if key == "properties" else _plain(value)
        for key, value in node.items()
        if key not in ("description", "format", "$schema", "$id") and not key.startswith("x-")
    }


def _here(node: Any) -> Any:
    if isinstance(node, list):
        return [_here(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: f"#/$defs/{value.rpartition('/')[2]}" if key == "$ref" and isinstance(value, str) else _here(value)
        for key, value in node.items()
    }


def _reached(definitions: dict[str, Any], roots: list[str]) -> dict[str, Any]:
    """Only what the roots lead to."""
    found: dict[str, Any] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = definitions[name]
            waiting += [ref.removeprefix("#/$defs/") for ref in _references(definitions[name])]
    return dict(sorted(found.items()))


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [ref for item in node for ref in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [ref for value in node.values() for ref in _references(value)]


if __name__ == "__main__":
    for made, name in ((cloud_run(), "cloud_run"), (kubernetes(), "kubernetes")):
        path = Path(sys.argv[1]) / f"{name}.json"
        path.write_text(json.dumps(made, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")

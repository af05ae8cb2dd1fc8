"""Schemas of custom resources, out of the definitions that their projects publish."""

import json
from pathlib import Path

import jsonschema
import yaml

METADATA = {"type": "object", "required": ["name"]}
# The file of eksctl, whose kind is none of the cluster's.
EKSCTL = "*eksctl*schema.json"
OURS = "tollgate.dev/v1alpha1"


def load(folder):
    """{(apiVersion, kind): validator} of every definition in the folder."""
    found = {}
    for path in sorted(Path(folder).rglob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            if document and document.get("kind") == "CustomResourceDefinition":
                found.update(versions(document["spec"]))
    for path in Path(folder).glob(EKSCTL):
        found["eksctl.io/v1alpha5", "ClusterConfig"] = jsonschema.Draft7Validator(json.loads(path.read_text()))
    for known in yaml.safe_load(Path(__file__).with_name("schemas.yaml").read_text()):
        schema = {"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", **known["spec"]}}}
        found[known["apiVersion"], known["kind"]] = validator(schema)
    return found


def versions(spec):
    for version in spec["versions"]:
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), validator(version["schema"]["openAPIV3Schema"])


def validator(schema):
    schema = strict(schema)
    schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": METADATA}
    return jsonschema.Draft202012Validator(schema)


def strict(schema):
    """As the API server prunes: what the schema does not know is an error here."""
    schema = dict(schema)
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.pop("nullable", False) and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    if "properties" in schema:
        schema["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = strict(schema["items"])
    return schema

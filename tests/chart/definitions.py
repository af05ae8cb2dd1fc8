"""Schemas of custom resources, out of the definitions that their projects publish."""

from pathlib import Path

import jsonschema
import yaml

METADATA = {"type": "object", "required": ["name"]}


def load(folder):
    """{(apiVersion, kind): validator} of every definition in the folder."""
    found = {}
    for path in sorted(Path(folder).rglob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            if document and document.get("kind") == "CustomResourceDefinition":
                found.update(versions(document["spec"]))
    return found


def versions(spec):
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": METADATA}
        key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
        yield key, jsonschema.Draft202012Validator(schema)


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

"""Validates files of YAML with the schema that an editor would use: what is right, and what is wrong with the path that is to blame."""

import json
import re
import sys
from pathlib import Path

import jsonschema
import yaml

ARGUMENT = json.loads(sys.argv[1])
ROOT = Path(ARGUMENT["root"])
SCHEMA = json.loads(Path(ARGUMENT["schema"]).read_text())
jsonschema.Draft202012Validator.check_schema(SCHEMA)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
API = "tollgate.dev/v1alpha1"
PARTS = {name: SCHEMA["$defs"][name]["properties"] for name in ("CredentialSpec", "GrantSpec", "StoreSpec", "Settings")}


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document is not None]


def problems(document, validator=VALIDATOR):
    return [f"{error.json_path}: {error.message[:160]}" for error in validator.iter_errors(document)]


def part(document):
    """A part of a resource or of settings, as pages show one: each of its fields by itself."""
    fields = document.get("spec", document) if set(document) == {"spec"} else document
    known = [name for name, known in PARTS.items() if set(fields) <= set(known)]
    if not known:
        return [f"no kind has all of {sorted(fields)}"]
    # Settings and grants have fields of one name: it is right as one of them.
    return min((wrong_as(kind, fields) for kind in known), key=len)


def wrong_as(kind, fields):
    found = []
    for name, value in fields.items():
        field = {"$defs": SCHEMA["$defs"], **PARTS[kind][name]}
        found += problems(value, jsonschema.Draft202012Validator(field))
    return found


def right():
    """Every text that has to be right, by the file that it stands in."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        if path.name != "values.yaml":
            yield path, path.read_text()
    for path in sorted((ROOT / "policy/tests/corpus").glob("*.yaml")):
        yield path, yaml.safe_load(path.read_text())["resources"]
    demo = ROOT / "gateway/src/cli/demo/resources.yaml"
    yield demo, demo.read_text().replace("PORT", "8443")
    for path in ARGUMENT["more"]:
        yield Path(path), Path(path).read_text()
    for path in sorted(ROOT.glob("*/README.md")) + [ROOT / "README.md"]:
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.M | re.S):
            yield path, block


count, wrong = 0, []
for path, text in right():
    for document in documents(text):
        if isinstance(document, list) or document.get("apiVersion", API) != API or "containers" in document.get("spec", {}):
            # Steps of a CI, or an object of Kubernetes or of another project, or what a pod is made of.
            continue
        count += 1
        if {"kind", "spec"} <= set(document):
            document.setdefault("apiVersion", API)
        whole = "kind" in document or {"listeners", "dataDir"} <= set(document)
        wrong += [f"{path}: {problem}" for problem in (problems if whole else part)(document)]

accepted = []
for place, text in ARGUMENT["wrong"]:
    found = [problem for document in documents(text) for problem in problems(document)]
    if not any(problem.startswith(place) for problem in found):
        accepted.append(f"{place}: {found}")

print(json.dumps({"count": count, "wrong": wrong, "accepted": accepted}))

"""Shows resources to a real API server that has the CustomResourceDefinitions: what it refuses, and with which words.

Nothing is stored but namespaces: all is sent as a dry run, with the strict validation that `kubectl apply` asks for.
"""

import http.client
import json
import re
import ssl
import sys
from pathlib import Path

import yaml

ARGUMENT = json.loads(sys.argv[1])
ROOT = Path(ARGUMENT["root"])
GROUP = "tollgate.dev/v1alpha1"
PLURALS = {
    "Destination": "destinations",
    "SecretStore": "secretstores",
    "Credential": "credentials",
    "Grant": "grants",
    "Approval": "approvals",
    "SourcePool": "sourcepools",
    "Budget": "budgets",
}
NAMESPACES = {"default"}
EXPECT = re.compile(r"# expect: line (\d+): (?:(\S+): )?(\S+): ")
CONTEXT = ssl.create_default_context(cafile=ARGUMENT["ca"])
HOST, PORT = ARGUMENT["address"].split(":")
SERVER = http.client.HTTPSConnection(HOST, int(PORT), context=CONTEXT)


def asked(path, document):
    """What the API server says of a new object: status, and the answer."""
    SERVER.request(
        "POST",
        path,
        body=json.dumps(document),
        headers={"authorization": f"Bearer {ARGUMENT['token']}", "content-type": "application/json"},
    )
    answer = SERVER.getresponse()
    return answer.status, json.loads(answer.read())


def refused(resource):
    """Why the API server does not take it; nothing if it does."""
    namespace = resource.get("metadata", {}).get("namespace", "default")
    if namespace not in NAMESPACES:
        NAMESPACES.add(namespace)
        asked("/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = f"/apis/{GROUP}/namespaces/{namespace}/{PLURALS[resource['kind']]}"
    status, said = asked(f"{path}?dryRun=All&fieldValidation=Strict", {"apiVersion": GROUP, **resource})
    return "" if status == 201 else said["message"]


def documents(text):
    """The resources of a text, each with the lines that it stands on. What is no YAML is nobody's."""
    lines = text.split("\n")
    starts = [0] + [index + 1 for index, line in enumerate(lines) if line.startswith("---")] + [len(lines) + 1]
    for start, end in zip(starts, starts[1:]):
        try:
            document = yaml.safe_load("\n".join(lines[start : end - 1]))
        except yaml.YAMLError:
            continue
        if isinstance(document, dict) and document.get("kind") in PLURALS and named(document):
            yield range(start + 1, end), document


def named(document):
    return isinstance(document.get("metadata"), dict) and isinstance(document["metadata"].get("name"), str)


def right():
    """Every text whose resources compile, by the file that it stands in."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        yield path, path.read_text()
    for path in sorted((ROOT / "policy/tests/corpus").glob("*.yaml")):
        yield path, yaml.safe_load(path.read_text())["resources"]
    demo = ROOT / "gateway/src/cli/demo/resources.yaml"
    yield demo, demo.read_text().replace("PORT", "8443")
    for path in sorted(ROOT.glob("*/README.md")) + [ROOT / "README.md"]:
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.M | re.S):
            yield path, block


def fields(path):
    """The names of the fields on a path, as `limits` and `per` of `spec.limits[0].per`."""
    return [name for name in re.split(r"[.\[\]0-9]+", path) if name and name != "spec"]


taken, told, stored = 0, 0, 0
wrong, unnamed = [], []
for path, text in right():
    for _, document in documents(text):
        if "spec" not in document:
            continue
        taken += 1
        why = refused(document)
        if why:
            wrong.append(f"{path.relative_to(ROOT)}: {document['kind']}/{document['metadata']['name']}: {why}")
for path in sorted((ROOT / "policy/tests/broken").glob("*.yaml")):
    text = path.read_text()
    expected = [(int(line), field) for line, _, field in EXPECT.findall(text)]
    for lines, document in documents(text):
        here = [field for line, field in expected if line in lines]
        name = f"{path.name}: {document['kind']}/{document['metadata']['name']}"
        why = refused(document)
        if not here:
            if why:
                wrong.append(f"{name}: {why}")
        elif not why:
            # Most of them are wrong because of what other resources say.
            stored += 1
        else:
            told += 1
            ends = {fields(field)[-1] for field in here if fields(field)} | {"name", "spec"}
            if not any(end in why for end in ends):
                unnamed.append(f"{name}: {here}: {why}")
print(json.dumps({"taken": taken, "wrong": wrong, "stored": stored, "told": told, "unnamed": unnamed}))

"""Renders the chart with Helm's own engine and says what is wrong with what comes out.

    render.py [--write]    compares every value set of `sets` with its golden file, or writes those anew
"""

import difflib
import re
import sys
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml

HERE = Path(__file__).resolve().parent
CHART = HERE.parent.parent / "charts/tollgate"
KUBERNETES = "1.34"
RELEASE = {"name": "tollgate", "namespace": "tollgate"}
# Made anew by each rendering without a cluster.
RANDOM = re.compile(r"^( *token: )[A-Za-z0-9+/=]{40,}$", re.M)


def sets():
    """{name: values} of every value set."""
    return {path.stem: yaml.safe_load(path.read_text()) or {} for path in sorted((HERE / "sets").glob("*.yaml"))}


def render(values, **release):
    """One text of YAML, with the notes at its end as a comment."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, **{**RELEASE, **release})
    notes = next(text for name, text in files.items() if name.endswith("NOTES.txt"))
    text = ""
    for name, content in sorted(files.items()):
        if name.endswith("NOTES.txt") or not documents(content):
            continue
        text += f"---\n# Source: {name}\n{content.strip()}\n"
    text += "".join(f"# {line}".rstrip() + "\n" for line in ["", *notes.strip().splitlines()])
    return RANDOM.sub(r"\1cmFuZG9t", text)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document is not None]


def lint():
    """What strict linting says of each value set, but for the icon that the chart does not have."""
    found = []
    for name, values in sets().items():
        report = helm_python.lint(CHART, values, strict=True, kube_version=f"v{KUBERNETES}.0")
        messages = [message for message in report["messages"] if message["error"] != "icon is recommended"]
        found += [f"{name}: {message}" for message in [*messages, *report["errors"]]]
    return found


def golden(write):
    """How what is rendered differs from the golden files."""
    found = []
    for name, values in sets().items():
        path = HERE / f"golden/{name}.yaml"
        rendered = render(values)
        wanted = path.read_text() if path.exists() else ""
        if write:
            path.write_text(rendered)
        elif rendered != wanted:
            lines = difflib.unified_diff(wanted.splitlines(), rendered.splitlines(), str(path.name), "rendered", lineterm="", n=1)
            found.append("\n".join(list(lines)[:40]))
    return found


def invalid(document, definitions):
    """What Kubernetes' own schema says of this object, or that of its definition."""
    name = f"{document['kind']} {document['metadata']['name']}"
    key = (document["apiVersion"], document["kind"])
    if key in definitions:
        return [f"{name}: {error.json_path}: {error.message[:200]}" for error in definitions[key].iter_errors(document)]
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{name}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{name}: no schema of {key} is known"]
    return []


def refused(values):
    """What the chart says of these values, or nothing if it takes them."""
    try:
        render(values)
    except helm_python.HelmError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    problems = golden("--write" in sys.argv)
    print("\n".join(problems) or "as in the golden files")
    sys.exit(1 if problems else 0)

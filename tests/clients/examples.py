"""Judges the examples for clusters: their values with the chart, their manifests with the schemas of whoever's they are, their Lua by Lua.
`job` says which; prints what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import lupa
import yaml

ARGUMENT = json.loads(sys.argv[1])
ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests/chart"))

import definitions  # noqa: E402
import render  # noqa: E402

EXAMPLES = ROOT / "examples"
# Read by kubectl alone.
KUSTOMIZATION = "kustomization.yaml"
# The gateway's own, for no API server.
SETTINGS = "tollgate.yaml"


def folders():
    return [path.parent for path in sorted(EXAMPLES.glob("*/README.md"))]


def manifests():
    """Every manifest by the schema of its kind, what `kubectl kustomize` makes of those that it reads, and what the chart makes of the
    values."""
    known, wrong, blind, counts = {}, [], set(), {}
    for definitions_folder in ARGUMENT["definitions"]:
        known |= definitions.load(definitions_folder)
    for folder in folders():
        found = []
        manifests = [path for path in sorted(folder.glob("*.yaml")) if path.name != SETTINGS]
        if not manifests:
            # It is for no cluster.
            continue
        for path in manifests:
            if path.name == "values.yaml":
                found += render.documents(render.render(yaml.safe_load(path.read_text())))
            elif path.name != KUSTOMIZATION:
                found += render.documents(path.read_text())
            elif (made := kustomized(folder)) is not None:
                found += made
            else:
                wrong.append(f"{folder.name}: kubectl kustomize failed")
        for one in found:
            wrong += [f"{folder.name}: {problem}" for problem in render.invalid(one, known)]
            one.get("spec", one)["fieldThatIsNone"] = 1
            blind |= set() if render.invalid(one, known) else {one["kind"]}
        counts[folder.name] = len(found)
    return {"wrong": wrong, "blind": sorted(blind), "counts": counts}


def kustomized(folder):
    done = subprocess.run([ARGUMENT["kubectl"], "kustomize", str(folder)], capture_output=True, text=True, check=False)
    return render.documents(done.stdout) if done.returncode == 0 else None


def values():
    """Argo CD's values of the chart are the chart's."""
    found = render.documents((EXAMPLES / "argo-cd/application.yaml").read_text())
    chosen = [helm["valuesObject"] for one in found if (helm := one["spec"]["source"].get("helm"))]
    return {"objects": [len(render.documents(render.render(each))) for each in chosen]}


def health():
    """What Argo CD's script says of each object, with nothing but what Argo CD gives it."""
    text = (EXAMPLES / "argo-cd/health.lua").read_text()
    said = []
    for one in ARGUMENT["objects"]:
        lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        lua.globals().obj = lua.table_from(one, recursive=True)
        # Argo CD opens no libraries but these.
        lua.execute("os, io, require, dofile, loadfile, package, debug = nil")
        made = lua.execute(text)
        said.append({"status": made["status"], "message": made["message"]})
    return {"said": said}


print(json.dumps(globals()[ARGUMENT["job"]]()))

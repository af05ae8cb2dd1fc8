"""Judges the chart: with Helm's engine, Kubernetes' schemas, and its golden files. `job` says which; prints what is wrong."""

import json
import sys
from pathlib import Path

ARGUMENT = json.loads(sys.argv[1])
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chart"))

import definitions  # noqa: E402
import helm_python  # noqa: E402
import render  # noqa: E402
import values  # noqa: E402
import yaml  # noqa: E402


def rendered():
    """Every value set, by strict linting, golden files and schemas."""
    known = definitions.load(ARGUMENT["definitions"])
    counts, wrong = {}, render.lint() + render.golden(ARGUMENT["write"])
    for name, chosen in render.sets().items():
        objects = render.documents(render.render(chosen))
        counts[name] = len(objects)
        wrong += [f"{name}: {problem}" for one in objects for problem in render.invalid(one, known)]
    return {"wrong": wrong, "counts": counts}


def written():
    """Schema and README, made of the comments of `values.yaml`."""
    settings = json.loads(Path(ARGUMENT["settings"]).read_text())
    return {"stale": values.drift(render.CHART, settings, ARGUMENT["write"])}


def refused():
    """What is said of each of the wrong values."""
    return {"said": [render.refused(each) for each in ARGUMENT["values"]]}


def settings():
    """`tollgate.yaml` of each value set, and the resources that stand beside it."""
    found = {}
    for name, chosen in render.sets().items():
        maps = [one for one in render.documents(render.render(chosen)) if one["kind"] == "ConfigMap"]
        found[name] = {key: text for one in maps for key, text in one["data"].items()}
    return {"settings": found}


def objects():
    """What each value set makes, as YAML, with the pods of its workload as objects of their own."""
    found = {}
    for name, chosen in render.sets().items():
        made = render.documents(render.render(chosen))
        pods = [pod(one["metadata"], one["spec"]) for one in made if "template" in one.get("spec", {})]
        pods += [one for one in made if one["kind"] == "Pod"]
        found[name] = {"objects": yaml.safe_dump_all(made), "pods": yaml.safe_dump_all(pods)}
    return {"sets": found}


def pod(metadata, workload):
    names = {"name": metadata["name"], "namespace": metadata["namespace"]}
    template, claims = workload["template"], workload.get("volumeClaimTemplates", [])
    volumes = [{"name": (name := claim["metadata"]["name"]), "persistentVolumeClaim": {"claimName": name}} for claim in claims]
    spec = {**template["spec"], "volumes": [*template["spec"]["volumes"], *volumes]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], **names}, "spec": spec}


def install():
    """`helm install` into a cluster, and `helm upgrade` with the same values: the two manifests."""
    config = helm_python.Config(kubeconfig_path=ARGUMENT["kubeconfig"], namespace=ARGUMENT["namespace"])
    with config:
        made = config.install(
            render.CHART, "tollgate", ARGUMENT["values"], namespace=ARGUMENT["namespace"], create_namespace=True
        )
        again = config.upgrade(render.CHART, "tollgate", ARGUMENT["values"], namespace=ARGUMENT["namespace"])
    return {"installed": made["manifest"], "upgraded": again["manifest"], "notes": made.get("notes", "")}


def broken():
    """The schemas see an object that is wrong: what they say of one of each kind with a field too many."""
    known = definitions.load(ARGUMENT["definitions"])
    said, kinds = {}, set()
    for chosen in render.sets().values():
        for one in render.documents(render.render(chosen)):
            if "spec" in one and one["kind"] not in kinds:
                kinds.add(one["kind"])
                one["spec"]["fieldThatIsNone"] = 1
                said[one["kind"]] = render.invalid(one, known)
    return {"said": said}


print(json.dumps(globals()[ARGUMENT["job"]]()))

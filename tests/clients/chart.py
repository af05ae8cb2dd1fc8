"""Judges the chart: with Helm's engine, Kubernetes' schemas, and its golden files. `job` says which; prints what is wrong."""

import json
import sys
from pathlib import Path

ARGUMENT = json.loads(sys.argv[1])
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chart"))

import definitions  # noqa: E402
import render  # noqa: E402
import values  # noqa: E402


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

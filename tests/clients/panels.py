"""Draws the panels of the chart's dashboard as Grafana lays them out, from a Prometheus that scrapes a gateway, into one picture for
people to look at. Prints what of it cannot be read: panels without a series, and series that two legends do not tell apart."""

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ARGUMENT = json.loads(sys.argv[1])
ROOT = Path(__file__).resolve().parent.parent.parent
DASHBOARD = ROOT / "charts/tollgate/monitoring/dashboard.json"
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "10s", "$__range": "1m", "$destination": ".*", "$namespace": ".*"}
# Seconds that are shown, and between two points.
SHOWN, STEP = 60, 1
# Inches of one of Grafana's 24 columns, and of a row.
WIDE, HIGH = 1.1, 0.42
UNITS = {
    "reqps": " req/s", "ops": " ops/s", "Bps": " B/s", "s": " s", "currencyUSD": " USD", "percentunit": "", "short": "", "bytes": " B",
}  # fmt: skip


def ask(path, **query):
    url = f"http://{ARGUMENT['prometheus']}/api/v1/{path}?" + urllib.parse.urlencode(query)
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)["data"]["result"]


def series(target, now):
    """(labels, points) of each series that has a number."""
    expression = target["expr"]
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    if target.get("instant"):
        found = [(one["metric"], [one["value"]]) for one in ask("query", query=expression, time=now)]
    else:
        query = {"query": expression, "start": now - SHOWN, "end": now, "step": STEP}
        found = [(one["metric"], one["values"]) for one in ask("query_range", **query)]
    found = [(labels, [(at - now, float(value)) for at, value in points]) for labels, points in found]
    return [(labels, points) for labels, points in found if any(math.isfinite(value) for _, value in points)]


def legend(target, labels):
    return re.sub(r"\{\{ *(\w+) *\}\}", lambda match: labels.get(match[1], ""), target.get("legendFormat", "")).strip()


def shown(value, defaults):
    for mapping in defaults.get("mappings", []):
        text = mapping.get("options", {}).get(str(int(value))) if value == int(value) else None
        if text:
            return text["text"]
    unit = defaults.get("unit", "short")
    return f"{value:.0%}" if unit == "percentunit" else f"{value:.4g}{UNITS[unit]}"


def draw(axes, panel, now):
    """One panel; what of it cannot be read."""
    defaults = panel["fieldConfig"]["defaults"]
    found = [(target, labels, points) for target in panel["targets"] for labels, points in series(target, now)]
    names = [legend(target, labels) for target, labels, _ in found]
    axes.set_title(panel["title"], fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    if panel["type"] == "timeseries":
        for name, (_, _, points) in zip(names, found, strict=True):
            marker = "." if len(points) < 3 else None
            axes.plot(*zip(*points, strict=True), label=name or "?", linewidth=1, marker=marker)
        axes.set_xlim(-SHOWN, 1)
        axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
        axes.set_ylabel(defaults.get("unit", "short") + UNITS[defaults.get("unit", "short")], fontsize=6)
        axes.legend(fontsize=5, loc="upper left", ncols=2)
    else:
        axes.axis("off")
        hidden = {name for it in panel.get("transformations", []) for name in it["options"].get("excludeByName", {})}
        for at, (name, (_, labels, points)) in enumerate(zip(names, found, strict=True)):
            values = "" if "Value" in hidden else shown(points[-1][1], defaults)
            cells = "  |  ".join(f"{label}: {labels[label]}" for label in sorted(labels)) if panel["type"] == "table" else name
            axes.text(0, 0.92 - at * 0.1, f"{cells}    {values}", fontsize=6, transform=axes.transAxes)
    wrong = [] if found else ["no series"]
    if panel["type"] != "table":
        wrong += [f"`{name}` is the name of several series" for name in sorted(set(names)) if names.count(name) > 1]
        wrong += ["a series without a name"] if "" in names else []
    return wrong


def main():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    row, chosen = "", []
    for panel in panels:
        row = panel["title"] if panel["type"] == "row" else row
        if (row == "Cluster") == ARGUMENT["cluster"]:
            chosen.append(panel)
    top = min(panel["gridPos"]["y"] for panel in chosen)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in chosen) - top
    figure = pyplot.figure(figsize=(24 * WIDE, height * HIGH), dpi=70)
    now, wrong, count = time.time(), [], 0
    for panel in chosen:
        place = panel["gridPos"]
        left, bottom = place["x"] / 24, 1 - (place["y"] - top + place["h"]) / height
        if panel["type"] == "row":
            figure.text(0.005, bottom + 0.2 / height, panel["title"], fontsize=11, weight="bold")
            continue
        size = (place["w"] / 24 - 0.04, place["h"] / height - 1.4 / height)
        axes = figure.add_axes((left + 0.03, bottom + 0.7 / height, *size))
        wrong += [f"{panel['title']}: {problem}" for problem in draw(axes, panel, now)]
        count += 1
    figure.savefig(ARGUMENT["picture"])
    return {"wrong": wrong, "count": count}


print(json.dumps(main()))

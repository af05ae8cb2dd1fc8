"""The chart's alerts and its dashboard, by promtool and by a Prometheus that scrapes a gateway. `job` says which; prints what is wrong."""

import json
import math
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

ARGUMENT = json.loads(sys.argv[1])
ROOT = Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "charts/tollgate/monitoring"
RULES = MONITORING / "rules.yaml"
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "10s", "$__range": "1m", "$destination": ".*", "$namespace": ".*"}
PATIENCE = 40


def known_metrics():
    """The names of the table in the gateway's README, and what a histogram makes of its own."""
    table = re.findall(r"^\| `(tollgate_[a-z_]+)` \| (\w+)", (ROOT / "gateway/README.md").read_text(), re.M)
    return {name for name, _ in table} | {f"{name}_bucket" for name, kind in table if kind == "histogram"}


def unknown(expressions):
    names = set(re.findall(r"\btollgate_[a-z_]+", " ".join(expressions)))
    return [f"{name}: no such metric" for name in sorted(names - known_metrics())]


def dashboard_queries():
    """Row, panel and expression of each."""
    found, row = [], ""
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        found += [(row, panel["title"], target["expr"]) for target in panel.get("targets", [])]
    return found


def alerts():
    """Every rule passes promtool, names metrics that there are, stays quiet where all is well, and fires in a test."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    wrong = unknown([rule["expr"] for rule in rules]) + unknown([expression for _, _, expression in dashboard_queries()])
    wrong += promtool("check", "rules", str(RULES))
    tests = yaml.safe_load((ROOT / "tests/chart/rules_test.yaml").read_text())
    said = [case for test in tests["tests"] for case in test["alert_rule_test"]]
    for rule in rules:
        cases = [case for case in said if case["alertname"] == rule["alert"]]
        if not any(case.get("exp_alerts") for case in cases) or all(case.get("exp_alerts") for case in cases):
            wrong.append(f"{rule['alert']}: needs a test in which it fires and one in which it does not")
    # promtool compares annotations too, which are prose here.
    bare = Path(ARGUMENT["folder"], "rules.yaml")
    groups = [{"name": "tollgate", "rules": [{k: v for k, v in rule.items() if k != "annotations"} for rule in rules]}]
    bare.write_text(yaml.safe_dump({"groups": groups}))
    tests["rule_files"] = [str(bare)]
    test = Path(ARGUMENT["folder"], "rules_test.yaml")
    test.write_text(yaml.safe_dump(tests))
    return {"wrong": wrong + promtool("test", "rules", str(test)), "rules": len(rules)}


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [f"promtool {arguments[0]}: {done.stdout}{done.stderr}"[:4000]]


def dashboard():
    """Every query of these rows answers with numbers: of the row for clusters, or of all others."""
    queries = [query for query in dashboard_queries() if (query[0] == "Cluster") == ARGUMENT["cluster"]]
    left, deadline = queries, time.monotonic() + PATIENCE
    count = len(left)
    while left and time.monotonic() < deadline:
        left = [query for query in left if not answers(query[2])]
        time.sleep(0.5 if left else 0)
    return {"silent": [": ".join(query) for query in left], "count": count}


def answers(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    url = f"http://{ARGUMENT['prometheus']}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return any(math.isfinite(float(series["value"][1])) for series in found)


print(json.dumps(globals()[ARGUMENT["job"]]()))

"""The schema of the chart's values and the table of its README, made from `values.yaml` and its comments.

    values.py CHART SETTINGS [--write]    says what is not as it would be written, and writes it

A comment above a value is its description. A line `# @schema {…}` in it adds to what the default says of the type; `"$settings"` in it
names parts of the settings' own schema, which the file SETTINGS has, as `tollgate schema` prints it.
"""

import json
import re
import sys
from pathlib import Path

import yaml

LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?P<rest>.*)$")
BEGIN, END = "<!-- values -->", "<!-- end -->"
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
SETTINGS_ANNOTATION = "$settings"
# The chart's own: they follow from its other values.
LEDGER_OWN = "sealKeyFile"


def described(text):
    """{path: (description, extra)} of every value that has a line of its own."""
    found, stack, comment = {}, [], []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped[1:].strip())
            continue
        match = LINE.match(line)
        if match:
            depth = len(match["indent"]) // 2
            stack[depth:] = [match["key"]]
            if comment or not match["rest"].strip().startswith("{"):
                if not comment:
                    raise SystemExit(f"values.yaml:{number}: {match['key']} has no comment")
                words = " ".join(word for word in comment if not word.startswith("@schema"))
                extra = [json.loads(word.removeprefix("@schema")) for word in comment if word.startswith("@schema")]
                found[tuple(stack)] = (words, extra[0] if extra else {})
        comment = []
    return found


def schema_of(value, path, comments, settings):
    description, extra = comments[path]
    made = {"description": description}
    if "enum" not in extra:
        made["type"] = TYPES[type(value)]
    extra = dict(extra)
    names = extra.pop(SETTINGS_ANNOTATION, None)
    if names:
        return {**made, **settings_schema(names, settings)}
    if isinstance(value, dict):
        keys = [key for key in value if (*path, key) in comments]
        if keys:
            made["properties"] = {key: schema_of(value[key], (*path, key), comments, settings) for key in keys}
            made["additionalProperties"] = False
    return {**made, **extra}


def settings_schema(names, settings):
    """These parts of the settings' schema, with what they refer to."""
    whole = settings["$defs"]["Settings"]["properties"]
    parts = json.loads(json.dumps({name: whole[name] for name in names}))
    definitions = json.loads(json.dumps(settings["$defs"]))
    definitions["LedgerSettings"]["properties"].pop(LEDGER_OWN, None)
    used, wanted = {}, references(parts)
    while wanted:
        name = wanted.pop()
        if name not in used:
            used[name] = definitions[name]
            wanted |= references(definitions[name])
    text = json.dumps({"properties": parts, "additionalProperties": False, "definitions": dict(sorted(used.items()))})
    # The chart's schema is of a draft that knows `definitions`; they stand at its root.
    return json.loads(text.replace("#/$defs/", "#/definitions/"))


def references(part):
    return set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(part)))


def schema(values, comments, settings):
    properties = {key: schema_of(values[key], (key,), comments, settings) for key in values}
    definitions = {}
    for part in properties.values():
        definitions.update(part.pop("definitions", {}))
    # Helm itself adds `global`, for charts that have this one as a part.
    properties["global"] = {"description": "Values of every chart of a release.", "type": "object"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart tollgate",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "definitions": definitions,
    }


def table(values, comments):
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, (description, extra) in comments.items():
        value = values
        for key in path:
            value = value[key]
        has_parts = isinstance(value, dict) and any(other[: len(path)] == path and other != path for other in comments)
        default = "" if has_parts or value in ("", {}, []) else f"`{json.dumps(value, ensure_ascii=False).strip(chr(34))}`"
        words = description
        if "enum" in extra:
            words += " One of " + ", ".join(f"`{word}`" for word in extra["enum"]) + "."
        for field, part in extra.get("items", {}).get("properties", {}).items():
            if "description" in part:
                words += f" `{field}`: {part['description'][0].lower()}{part['description'][1:]}"
        rows.append(f"| `{'.'.join(path)}` | {default} | {words} |".replace("|  |", "| |"))
    return "\n".join(rows)


def written(chart, settings):
    """{file: what would be written there}."""
    text = (chart / "values.yaml").read_text()
    values, comments = yaml.safe_load(text), described(text)
    readme = (chart / "README.md").read_text()
    before, rest = readme.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return {
        chart / "values.schema.json": json.dumps(schema(values, comments, settings), indent=2, ensure_ascii=False) + "\n",
        chart / "README.md": f"{before}{BEGIN}\n{table(values, comments)}\n{END}{after}",
    }


def drift(chart, settings, write):
    """The files that are not as they would be written; `write` writes them."""
    stale = {path: text for path, text in written(chart, settings).items() if not path.exists() or path.read_text() != text}
    if write:
        for path, text in stale.items():
            path.write_text(text)
    return sorted(str(path.name) for path in stale)


if __name__ == "__main__":
    stale = drift(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), "--write" in sys.argv)
    print("\n".join(stale) or "as they would be written")
    sys.exit(1 if stale and "--write" not in sys.argv else 0)

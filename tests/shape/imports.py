"""Which file of a crate imports which, and what functions take: circles and hidden arguments."""

import re

from . import rust

USE = re.compile(r"\buse\s+([^;]+);")
REEXPORT = re.compile(r"\bpub(?:\([^)]*\))?\s+use\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])(\w+(?:::\w+)+)")
FUNCTION = re.compile(r"\bfn\s+(\w+)")
TEST_ITEM = re.compile(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?(?:use|mod)\s+[^;{]+;")
# Re-exports of re-exports that are followed.
DEEPEST = 8
OPEN, CLOSE = "([{<", ")]}>"


def module(name):
    """The path of a file's module, from the crate's root: `a/src/foo/bar.rs` is `(foo, bar)`."""
    parts = name.split("/src/", 1)[1].removesuffix(".rs").split("/")
    return () if parts in (["lib"], ["main"]) else tuple(parts)


def edges(files):
    """{module: modules that it imports} of one crate's files, {name: text}. A name that a module passes on counts as its definer's."""
    code = {module(name): TEST_ITEM.sub("", rust.without_tests(rust.code_only(text))) for name, text in files.items()}
    passed = {own: dict(passed_on(text)) for own, text in code.items()}
    return {own: {found for path in paths(text) if (found := resolve(path, own, passed)) not in (None, own)}
            for own, text in code.items()}


def passed_on(text):
    """(name, path) of what a module re-exports."""
    for found in REEXPORT.finditer(text):
        for path in expand(re.sub(r"\s+as\s+", "@", found.group(1))):
            last, _, name = path[-1].partition("@")
            yield name or last, [*path[:-1], last]


def paths(text):
    """Every path that is written, those of `use` with their braces expanded."""
    for found in USE.finditer(text):
        yield from expand(re.sub(r"\s+as\s+\w+", "", found.group(1)))
    for found in PATH.finditer(USE.sub("", text)):
        yield found.group(1).split("::")


def expand(tree):
    """The paths of a tree of `use`."""
    tree = re.sub(r"\s", "", tree)
    head, brace, rest = tree.partition("{")
    if not brace:
        yield [word for word in tree.removesuffix("::").split("::") if word != "*"]
        return
    for part in split(rest[: rest.rindex("}")]):
        yield from expand(head if part == "self" else head + part)


def split(text):
    """What stands between the commas outside of all brackets."""
    depth, start, text = 0, 0, text.replace("->", "  ")
    for i, char in enumerate(text):
        depth += (char in OPEN) - (char in CLOSE)
        if char == "," and not depth:
            yield text[start:i].strip()
            start = i + 1
    if text[start:].strip():
        yield text[start:].strip()


def resolve(path, own, passed, depth=0):
    """The module that a path comes from, seen from the module `own`; `None` where it names none of this crate."""
    at, rest = own, list(path)
    if "tests" in path:
        return None
    if rest[0] == "crate":
        at, rest = (), rest[1:]
    elif rest[0] in ("super", "self"):
        while rest and rest[0] in ("super", "self"):
            at, rest = (at[:-1] if rest[0] == "super" else at), rest[1:]
    elif (*own, rest[0]) not in passed:
        return None
    while rest and (*at, rest[0]) in passed:
        at, rest = (*at, rest[0]), rest[1:]
    if rest and depth < DEEPEST and rest[0] in passed.get(at, {}):
        return resolve(passed[at][rest[0]], at, passed, depth + 1) or at
    return at if at in passed else None


def circles(graph):
    """Groups of modules of which each imports, by way of others, each other. A module and those below it may: what is below uses what its
    own module has in common. So arrows to a module from below it count only where a circle leaves that module."""
    is_below = lambda one, other: len(one) > len(other) and one[: len(other)] == other
    downward = {own: {to for to in found if not is_below(own, to)} for own, found in graph.items()}
    found = components(downward)
    for group in components(graph):
        if not any(all(own == one or is_below(own, one) for own in group) for one in group):
            found += [group] if not any(set(known) <= set(group) for known in found) else []
    return sorted(found)


def components(graph):
    """The strongly connected parts of more than one node."""
    reach = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for to in graph.get(todo.pop(), ()):
                if to not in seen:
                    seen.add(to)
                    todo.append(to)
        reach[start] = seen
    groups = {tuple(sorted(to for to in reach[own] if own in reach.get(to, ()))) for own in graph if own in reach[own]}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def arguments(text):
    """(line, function, number of arguments), each element of a tuple pattern counted as one."""
    code = rust.code_only(text)
    for found in FUNCTION.finditer(code):
        start = parameters(code, found.end())
        if start is not None:
            inside = code[start + 1 : closing(code, start)]
            yield code.count("\n", 0, found.start()) + 1, found.group(1), sum(map(count, split(inside)))


def parameters(code, i):
    """Where the list of parameters opens, after the generics."""
    depth = 0
    while i < len(code):
        if code.startswith("->", i):
            i += 2
            continue
        depth += (code[i] == "<") - (code[i] == ">")
        if code[i] == "(" and not depth:
            return i
        if code[i] in "{;":
            return None
        i += 1
    return None


def closing(code, i):
    """Where the bracket that opens at `i` closes."""
    depth = 0
    for j in range(i, len(code)):
        depth += (code[j] in "([{") - (code[j] in ")]}")
        if not depth:
            return j
    return len(code)


def count(parameter):
    """How many arguments a parameter is."""
    parameter = re.sub(r"^(?:#\[[^\]]*\]\s*)*(?:&\s*)?", "", parameter)
    if not parameter.startswith("("):
        return 1
    return sum(map(count, split(parameter[1 : closing(parameter, 0)])))

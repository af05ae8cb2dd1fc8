"""The shape of the documentation: links that lead somewhere, lines that fit, and a README of one page."""

import re

README_LINES = 150
LINE = 120
LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
FENCE = re.compile(r"\s*(```|~~~)")
HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*$")


def documents(root):
    """(path, name, text) of every page."""
    for path in sorted(root.rglob("*.md")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] not in {"target", ".git"}:
            yield path, name, path.read_text(errors="replace")


def prose(text):
    """(line number, line) of what is in no block of code."""
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            code = not code
        elif not code:
            yield number, line


def anchors(text):
    """The anchors of the headings, as GitHub makes them."""
    seen, found = {}, set()
    for _, line in prose(text):
        heading = HEADING.match(line)
        if heading:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            count = seen[anchor] = seen.get(anchor, -1) + 1
            found.add(f"{anchor}-{count}" if count else anchor)
    return found


def links_lead_somewhere(root):
    """Every link within the tree names a file that is there, and a heading that it has."""
    found = []
    for path, name, text in documents(root):
        for number, line in prose(text):
            for target in LINK.findall(re.sub(r"`[^`]*`", lambda code: code[0] if "](" not in code[0] else "", line)):
                problem = None if re.match(r"[a-z][a-z0-9+.-]*:", target) else broken(path, text, target)
                found += [f"{name}:{number}: {target}: {problem}"] if problem else []
    return found


def broken(path, text, target):
    """What is wrong with a link from this page; `None`: nothing."""
    file, _, anchor = target.partition("#")
    page = path.parent / file if file else path
    if not page.exists():
        return "there is no such file"
    if anchor and (page.suffix != ".md" or anchor not in anchors(page.read_text() if file else text)):
        return "there is no such heading"
    return None


def readme_is_a_page(root):
    path = root / "README.md"
    count = len(path.read_text().splitlines()) if path.exists() else 0
    return [f"README.md: {count} lines, at most {README_LINES}"] if count > README_LINES else []


def documents_have_short_lines(root):
    """But for tables, code, and a line that an address alone makes long."""
    found = []
    for _, name, text in documents(root):
        for number, line in prose(text):
            words = re.sub(r"https?://\S+|\]\([^)]*\)", "", line)
            if len(words) > LINE and not line.startswith("|"):
                found.append(f"{name}:{number}: {len(line)} characters, at most {LINE}")
    return found

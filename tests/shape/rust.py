"""Just enough Rust lexing to tell code from comments, strings and test modules."""

import re

RAW_STRING = re.compile(r'(?:b|c)?r(#*)"')
TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*mod\s+\w+\s*\{")


def code_only(text, keep_strings=False):
    """The text with comments (and, unless kept, the insides of strings) blanked; lines stay where they were."""
    out, i, end = [], 0, len(text)
    while i < end:
        j, kept = token(text, i, keep_strings)
        out.append(text[i:j] if kept else re.sub(r"[^\n]", " ", text[i:j]))
        i = j
    return "".join(out)


def token(text, i, keep_strings):
    """(end, kept) of the comment, string or single character that starts at `i`."""
    if text.startswith("//", i):
        stop = text.find("\n", i)
        return (len(text) if stop < 0 else stop), False
    if text.startswith("/*", i):
        return block_comment(text, i), False
    raw = RAW_STRING.match(text, i)
    if raw and not (i and (text[i - 1].isalnum() or text[i - 1] == "_")):
        stop = text.find('"' + raw.group(1), raw.end())
        return (len(text) if stop < 0 else stop + 1 + len(raw.group(1))), keep_strings
    if text[i] == '"':
        return string(text, i), keep_strings
    if text[i] == "'":
        char = re.compile(r"'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^\\'\n])'").match(text, i)
        return (char.end(), keep_strings) if char else (i + 1, True)
    return i + 1, True


def block_comment(text, i):
    depth, i = 1, i + 2
    while i < len(text) and depth:
        if text.startswith("/*", i):
            depth, i = depth + 1, i + 2
        elif text.startswith("*/", i):
            depth, i = depth - 1, i + 2
        else:
            i += 1
    return i


def string(text, i):
    i += 1
    while i < len(text) and text[i] != '"':
        i += 2 if text[i] == "\\" else 1
    return min(i + 1, len(text))


def without_tests(code):
    """Blanks `#[cfg(test)] mod … { … }` in text that `code_only` has been over."""
    while True:
        found = TEST_MODULE.search(code)
        if not found:
            return code
        depth, i = 1, found.end()
        while i < len(code) and depth:
            depth += {"{": 1, "}": -1}.get(code[i], 0)
            i += 1
        code = code[: found.start()] + re.sub(r"[^\n]", " ", code[found.start() : i]) + code[i:]


def lines_of_code(text):
    """Lines that hold more than blanks and comments."""
    return sum(1 for line in code_only(text, keep_strings=True).splitlines() if line.strip())


def matches(pattern, text):
    """(line number, matched text) of each match."""
    return [(text.count("\n", 0, found.start()) + 1, found.group(0)) for found in re.finditer(pattern, text)]

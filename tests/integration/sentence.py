# SPDX-License-Identifier: MIT
"""What makes an error message a sentence for the user, as a checklist."""

import re

# Words that only the authors of a library understand.
INTERNALS = re.compile(r"GGML_ASSERT|\bggml_\w+\(|\bgguf_\w+[:(]|llama_model_load|std::|"
                       r"basic_string|vector::|what\(\)|\(null\)|0x[0-9a-f]{8,}|map::at|"
                       r"__func__|[\w/]+\.(c|cpp|h):\d+")


def complaint(text, name, says=()):
    """None when `text` is a good sentence about the file `name`, else what is wrong."""
    if not text.strip():
        return "no sentence at all"
    unprintable = [c for c in text if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0]
    if unprintable:
        return f"control characters {unprintable!r} in {text!r}"
    if name and name not in text:
        return f"does not name the file {name}: {text!r}"
    found = INTERNALS.search(text)
    if found:
        return f"speaks of internals ({found.group()}): {text!r}"
    # without the path, whose folders may hold the very words that are looked for
    rest = re.sub(r"\S*" + re.escape(name), "", text) if name else text
    if len(re.findall(r"[A-Za-z]{2,}", rest)) < 3:
        return f"says too little: {text!r}"
    if text.endswith("..."):
        return f"is cut off: {text!r}"
    for pattern in says:
        if not re.search(pattern, rest):
            return f"does not say {pattern!r}: {text!r}"
    return None


def one_line(stderr):
    """(line, None) or (None, what is wrong) for the bytes a program wrote to stderr."""
    try:
        text = stderr.decode()
    except UnicodeDecodeError as error:
        return None, f"stderr is not UTF-8 ({error.reason}): {stderr[:300]!r}"
    if not text.endswith("\n"):
        return None, f"stderr does not end its line: {text[-300:]!r}"
    lines = text[:-1].split("\n")
    if len(lines) != 1:
        return None, f"{len(lines)} lines on stderr: {text[:600]!r}"
    return lines[0], None

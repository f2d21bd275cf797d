"""What stands between tags in a policy's text, found in time that grows with its length alone.

An expression such as `<answer>(.*?)</answer>` looks for an end behind every beginning: a text of beginnings without an end
costs the square of its length.
"""

from __future__ import annotations


def tagged(text: str, name: str) -> list[str]:
    """Return what each <name>...</name> holds, in order: a tag ends at the first end behind it, the next begins after that."""
    opened, closed = f"<{name}>", f"</{name}>"
    found, end = [], 0
    while (start := text.find(opened, end)) >= 0 and (stop := text.find(closed, start + len(opened))) >= 0:
        found.append(text[start + len(opened) : stop])
        end = stop + len(closed)
    return found

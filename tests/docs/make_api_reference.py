"""Writes docs/reference/api.md and errors.md out of docstrings.

::

    python -m tests.docs.make_api_reference
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from ckptstore import (
    Cache,
    Checkpoint,
    Guard,
    History,
    Keep,
    Package,
    PendingSave,
    Resumed,
    Run,
    Store,
    errors,
    leave_to_guard,
    remember_init,
)
from ckptstore.audit import Audit, Overridden, StateLeft
from ckptstore.catalog.later import TagMove
from ckptstore.entry import Entry
from ckptstore.format.facts import Retired
from ckptstore.format.imported import ImportedFrom
from ckptstore.format.timings import Timings
from ckptstore.history import Logged
from ckptstore.importing.imported import Imported
from ckptstore.importing.options import ImportOptions
from ckptstore.key_report import KeyReport
from ckptstore.opened import Opened
from ckptstore.reading import LazyTensor, LoadOptions
from ckptstore.storage.base import Leftover, Stored
from ckptstore.storage.cache import CachedStore
from ckptstore.upkeep.collected import Collected
from ckptstore.upkeep.copied import Copied, CopiedVersion
from ckptstore.upkeep.findings import Finding, Report
from ckptstore.upkeep.garbage import Tally
from ckptstore.upkeep.pruned import Pruned
from ckptstore.upkeep.retention import Candidate, Decision
from tests.docs.pages import ROOT

API = ROOT / "docs" / "reference" / "api.md"
ERRORS = ROOT / "docs" / "reference" / "errors.md"
MADE = "<!-- Made by `python -m tests.docs.make_api_reference`. Change the docstrings instead. -->"
SUBJECTS = {
    "Store": Store,
    "Run": Run,
    "Guard": Guard,
    "PendingSave": PendingSave,
    "Cache": Cache,
    "CachedStore": CachedStore,
    "Checkpoint and Package": Entry,
    "Checkpoint": Checkpoint,
    "Package": Package,
    "History": History,
    "Resumed": Resumed,
    "Audit": Audit,
    "Overridden": Overridden,
    "StateLeft": StateLeft,
    "KeyReport": KeyReport,
    "LoadOptions": LoadOptions,
    "LazyTensor": LazyTensor,
    "Timings": Timings,
    "Logged": Logged,
    "TagMove": TagMove,
    "Retired": Retired,
    "Keep": Keep,
    "Pruned": Pruned,
    "Decision": Decision,
    "Candidate": Candidate,
    "Collected": Collected,
    "Stored": Stored,
    "Leftover": Leftover,
    "Tally": Tally,
    "Report": Report,
    "Finding": Finding,
    "Imported": Imported,
    "ImportOptions": ImportOptions,
    "ImportedFrom": ImportedFrom,
    "Copied": Copied,
    "CopiedVersion": CopiedVersion,
}
START = f"""\
# The Python interface

{MADE}

```py
from ckptstore import (
    Cache, Checkpoint, Guard, History, Keep, Package, PendingSave, Resumed, Run, Store, errors,
    leave_to_guard, remember_init,
)
```

What is on this page is public. Options are keyword-only. Every error derives from
`ckptstore.CkptStoreError`; they stand on [a page of their own](errors.md).
"""
WIDTH = 96


def api() -> str:
    """The page as the program is now."""
    pieces = [START]
    for title, subject in SUBJECTS.items():
        pieces.append(f"## {title}\n\n{markdown(subject.__doc__)}")
        if subject is Store:  # the only one that is made by hand
            pieces.append(constructor(class_node(Opened), "Store"))
        for each in (subject, *shared(subject)):
            pieces += list(members(class_node(each), title))
    pieces.append(f"## leave_to_guard\n\n{markdown(leave_to_guard.__doc__)}")
    pieces.append(f"## remember_init\n\n{markdown(remember_init.__doc__)}")
    return "\n\n".join(piece.strip() for piece in pieces) + "\n"


def error_page() -> str:
    """The page of errors as the program is now."""
    first, _, tree = errors.__doc__.partition("::\n")
    pieces = [f"# Errors and warnings\n\n{MADE}\n\n{markdown(first)}"]
    pieces.append(f"```text\n{textwrap.dedent(tree).strip()}\n```")
    pieces.append(
        "All are attributes of `ckptstore.errors`. Many derive from the built-in that fits them as "
        "well, so code that knows nothing of ckptstore can handle them."
    )
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, (errors.CkptStoreError, Warning)):
            bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
            pieces.append(f"## {name}\n\nA kind of {bases}.\n\n{markdown(kind.__doc__)}")
    return "\n\n".join(piece.strip() for piece in pieces) + "\n"


def class_node(subject: Any) -> ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(subject))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def shared(subject: Any) -> list[Any]:
    """The classes a class is put together from that have no section of their own."""
    return [
        base
        for base in inspect.getmro(subject)[1:]
        if base.__module__.startswith("ckptstore.") and base not in SUBJECTS.values()
    ]


def constructor(tree: ast.ClassDef, name: str) -> str:
    made = next(node for node in tree.body if getattr(node, "name", "") == "__init__")
    assert isinstance(made, ast.FunctionDef)
    return f"```py\n{signature(made, name=name)}\n```"


def members(tree: ast.ClassDef, title: str) -> Iterator[str]:
    """What a class offers, in the order of its source."""
    prefix = "" if " " in title else f"{title}."
    facts = []
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            facts.append(listed(f"{node.target.id}: {docstring(following)}"))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
            said = markdown(ast.get_docstring(node))
            if "property" in marks and node.returns:
                yield f"### {prefix}{node.name}\n\n`{ast.unparse(node.returns)}`. {said}"
            elif "overload" not in marks:
                yield f"### {prefix}{node.name}\n\n```py\n{signature(node)}\n```\n\n{said}"
    if any(": " in fact for fact in facts):  # else the docstring says what they are
        yield "\n".join(facts)


def docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return inspect.cleandoc(str(node.value.value))
    return ""


def signature(node: ast.FunctionDef, name: str = "") -> str:
    """A function's head, on one line or with one parameter a line."""
    node.args.args = [each for each in node.args.args if each.arg not in {"self", "cls"}]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and not name else ""
    parameters = [spaced(each) for each in split(ast.unparse(node.args), ",")]
    one = f"{name or node.name}({', '.join(parameters)}){returns}"
    if len(one) <= WIDTH:
        return one
    lines = "".join(f"    {each},\n" for each in parameters)
    return f"{name or node.name}(\n{lines}){returns}"


def spaced(parameter: str) -> str:
    """A parameter with its default as it is written in source."""
    return " = ".join(split(parameter, "=")) if ":" in parameter else parameter


def split(text: str, mark: str) -> list[str]:
    """Cut *text* at marks that stand in no bracket."""
    pieces, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == mark and depth == 0:
            pieces.append(text[start:index].strip())
            start = index + 1
    return [piece for piece in [*pieces, text[start:].strip()] if piece]


def markdown(said: str | None) -> str:
    """A docstring in Google style as Markdown."""
    text = inspect.cleandoc(said or "")
    pieces = []
    for block in re.split(r"\n(?=(?:Args|Returns|Raises|Attributes):\n)", text):
        head = re.match(r"(Args|Returns|Raises|Attributes):\n", block)
        if head is None:
            pieces.append(prose(block))
        elif head[1] == "Returns":
            pieces.append(f"Returns: {one_line(textwrap.dedent(block[head.end() :]))}")
        else:
            items = re.split(r"\n(?=\S)", textwrap.dedent(block[head.end() :]).strip())
            title = {"Args": "Arguments", "Raises": "Raises", "Attributes": "Attributes"}[head[1]]
            pieces.append(f"{title}:\n\n" + "\n".join(map(listed, items)))
    return "\n\n".join(piece.strip() for piece in pieces)


def listed(item: str) -> str:
    name, _, said = item.partition(":")
    return f"- `{name}`: {one_line(said)}" if said.strip() else f"- `{name}`"


def prose(text: str) -> str:
    """Paragraphs, and what follows ``::`` as a block of code."""
    pieces = []
    for paragraph in text.split("\n\n"):
        if paragraph.strip() == "::":
            continue
        if paragraph.startswith("    "):
            pieces.append(f"```py\n{textwrap.dedent(paragraph).rstrip()}\n```")
        else:
            pieces.append(one_line(paragraph))
    return "\n\n".join(pieces)


def one_line(text: str) -> str:
    text = re.sub(r":(?:class|meth|attr|func|data|mod):`[~.]?([^`]*)`", named, text)
    return " ".join(text.replace("``", "`").split())


def named(role: re.Match[str]) -> str:
    """What a reference to a name shows: the name without the modules it lies in."""
    parts = role[1].split(".")
    kept = [
        part for index, part in enumerate(parts) if part[:1].isupper() or index == len(parts) - 1
    ]
    return f"`{'.'.join(kept)}`"


if __name__ == "__main__":
    API.write_text(api())
    ERRORS.write_text(error_page())

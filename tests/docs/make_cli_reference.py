"""Writes docs/reference/cli.md out of the program: ``python -m tests.docs.make_cli_reference``."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from ckptstore.cli import app
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "cli.md"

START = """\
# The command line

<!-- Made by `python -m tests.docs.make_cli_reference`. Change ckptstore/cli instead. -->

`pip install` brings the command `ckptstore`. Of it `log`, `verify`, `copy`, `import` load torch.

```sh
ckptstore history checkpoints
ckptstore best s3://bucket/prefix 'sweep/*' --metric accuracy --mode max
ckptstore show checkpoints digits@prod
ckptstore history checkpoints digits --json | jq .metrics.val_loss
```

"""


def reference() -> str:
    """The page as the program is now."""
    group: Any = get_command(app)
    pieces = [START, f"{prose(group.help)}\n\n"]
    pieces += [f"## ckptstore {name}\n\n{section(name, group.commands[name])}" for name in names()]
    return "".join(pieces).rstrip() + "\n"


def names() -> list[str]:
    """The commands, in the order in which help lists them."""
    group: Any = get_command(app)
    return list(group.commands)


def section(name: str, command: Any) -> str:
    usage = ["ckptstore", name, *(in_usage(param) for param in command.params)]
    facts = [f"- `{spelling(param)}`: {prose(param.help)}" for param in command.params]
    return (
        f"```text\n{' '.join(usage)}\n```\n\n{prose(command.help)}\n\n" + "\n".join(facts) + "\n\n"
    )


def in_usage(param: Any) -> str:
    shown = spelling(param) + (" …" if param.multiple else "")
    return shown if param.required else f"[{shown}]"


def spelling(param: Any) -> str:
    """How a command line spells *param*: ``STORE``, ``--json``, ``--mode min|max``."""
    if param.param_type_name == "argument":
        return str(param.metavar)
    return param.opts[0] if param.is_flag else f"{param.opts[0]} {param.metavar}"


def prose(text: str) -> str:
    """Help as Markdown: what looks like HTML or emphasis to Markdown is escaped."""
    for mark in "\\*_<>":
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(reference())

from __future__ import annotations

import io

from rich.console import Console

from ckptstore.cli.bar import bytes_bar, count_bar


def test_a_terminal_is_shown_how_far_it_is(monkeypatch):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)

    with bytes_bar() as progress:
        progress(3_000_000, 6_000_000, "packs/aa/x")
        terminal.bell()

    assert "3.0/6.0 MB" in shown.getvalue()
    monkeypatch.undo()
    with bytes_bar() as nobody:
        assert nobody is None


def test_a_bar_of_things_says_what_is_being_done(monkeypatch):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)

    with count_bar() as progress:
        progress(1000, None, "listing packs")
        progress(3, 6, "reading [red]")
        terminal.bell()

    assert "reading [red]" in shown.getvalue()
    assert "3/6" in shown.getvalue()
    monkeypatch.undo()
    with count_bar() as nobody:
        assert nobody is None

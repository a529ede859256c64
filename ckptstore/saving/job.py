"""One save that goes on in the background: what it does, what came of it, what to say of that."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from ckptstore.call_sites import CallSite, call_site, on_behalf_of


class Job:
    """One save on its way.

    Args:
        what: What it is, for messages: ``the save of run 'digits', epoch 3``.
        work: Saves it; returns the new version.
        let_go: Called once when that has ended, whichever way.
        size_bytes: How much memory it holds until then.
    """

    def __init__(
        self,
        what: str,
        work: Callable[[], object],
        let_go: Callable[[], object],
        size_bytes: int,
    ) -> None:
        self.what = what
        self.size_bytes = size_bytes
        self.is_done = False
        self.is_elsewhere = False
        """Whether it is the parent's of this process, which was forked since."""
        self.told_error: BaseException | None = None
        """An error that somebody was told of before the save came to its end."""
        self.error: BaseException | None = None
        self.result: Any = None
        self.site: CallSite = call_site()
        self._note: str | None = None
        self._work: Callable[[], object] | None = work
        self._let_go: Callable[[], object] | None = let_go

    @classmethod
    def done(cls, what: str, result: object) -> Job:
        """Return one that was made already."""
        job = cls(what, lambda: result, lambda: None, 0)
        job.do()
        job.is_done = True
        return job

    def do(self) -> None:
        """Save it. Nothing is raised: see :attr:`error`."""
        work, let_go, self._work, self._let_go = self._work, self._let_go, None, None
        try:
            with on_behalf_of(self.site):
                if work is not None:
                    self.result = work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, whoever asks for it gets it
            self.error = error
        finally:
            try:
                if let_go is not None:
                    let_go()
            except BaseException as error:  # noqa: BLE001 - as above, and the thread must go on
                self._could_not_let_go(error)
            if self.error is not None:
                _let_go_of_frames(self.error)

    def _could_not_let_go(self, error: BaseException) -> None:
        if self.error is not None:
            self.error.add_note(f"ckptstore: its copy could not be let go of either: {error!r}")
            return
        error.add_note(f"ckptstore: this is of letting go of the copy; saved was {self.result!r}")
        self.error = error

    def told(self) -> str:
        """Return what to say of it beside its error."""
        return f"ckptstore: {self.what}, called at {self.site}, failed in the background"

    def noted(self, more: str = "") -> BaseException | None:
        """Return its error with a note of what this is about, in the place of an earlier such note.

        Args:
            more: What else to say of it this time.
        """
        if self.error is not None:
            notes = getattr(self.error, "__notes__", [])
            if self._note in notes:
                notes.remove(self._note)
            self._note = self.told() + more
            self.error.add_note(self._note)
        return self.error


def _let_go_of_frames(error: BaseException | None) -> None:
    """Let the lines that an error went through keep nothing: a copy as large as the state."""
    left, seen = [error], set[int]()
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            left += [each.__cause__, each.__context__]

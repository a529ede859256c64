"""What keeps saves in the background in order, told of and waited for, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

_STORE = "tests/test_in_background.py::"
_QUEUE = "tests/saving/test_pending.py::"
_POOLS = "tests/test_in_background_pools.py::"

MUTANTS = [
    Mutant(
        "a save in a forked child waits for nobody of its parent",
        "saving/rest.py",
        "return self._pid != os.getpid()",
        "return False",
        by="tests/saving/test_snapshot.py::test_a_step_in_a_forked_child_copies_nothing_and_waits_for_nobody",
    ),
    Mutant(
        "a skipped call is checked",
        "in_background.py",
        "                self._captured(writer, given, keywords, **{**options, **without})\n",
        "",
        by=f"{_STORE}test_what_is_wrong_with_a_call_that_is_skipped_is_raised_all_the_same",
    ),
    Mutant(
        "a process waits before its pools close",
        "saving/pending.py",
        'getattr(threading, "_register_atexit", atexit.register)',
        "atexit.register",
        by=f"{_POOLS}test_names_are_looked_up_in_a_pool_until_all_is_saved",
    ),
    Mutant(
        "one too many waits for a place",
        "saving/pending.py",
        "self._changed.wait_for(lambda: self._entered < self._max_pending)",
        "pass",
        by=f"{_QUEUE}test_one_too_many_waits_for_a_place",
    ),
    Mutant(
        "copies wait for room",
        "saving/pending.py",
        "self._changed.wait_for(lambda: self._has_room(size_bytes))",
        "pass",
        by=f"{_QUEUE}test_copies_wait_for_room_in_the_budget",
    ),
    Mutant(
        "readers wait for saves of any store at that place",
        "saving/pending.py",
        "            queue.wait()\n",
        "            pass\n",
        by=f"{_QUEUE}test_readers_wait_for_saves_of_any_store_at_that_place",
    ),
    Mutant(
        "a forked child has none of the parent's saves",
        "saving/pending.py",
        "os.register_at_fork(after_in_child=_leave_saves_to_parent)",
        "pass",
        by=f"{_STORE}test_a_forked_child_has_none_of_the_parents_saves",
    ),
    Mutant(
        "a save that is kept keeps no copy",
        "saving/snapshot.py",
        "                part.tensors.clear()",
        "                pass",
        by=f"{_STORE}test_a_save_that_is_kept_keeps_no_copy",
    ),
]

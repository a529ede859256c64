"""What makes a copy of a state one moment's, and nobody else's memory, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

_OVERLAP = "tests/saving/test_overlap.py::"
_REST = "tests/saving/test_rest.py::"
_SNAPSHOT = "tests/saving/test_snapshot.py::"
_STAGING = "tests/saving/test_staging.py::"

MUTANTS = [
    Mutant(
        "what forward writes to is copied at once: buffers",
        "saving/overlap.py",
        "    yield from module.buffers()\n",
        "    yield from ()\n",
        by=f"{_OVERLAP}test_what_forward_writes_to_does_not_wait",
    ),
    Mutant(
        "what forward writes to is copied at once: embeddings of bounded norm",
        "saving/overlap.py",
        "and each.max_norm is not None",
        "and False",
        by=f"{_OVERLAP}test_what_forward_writes_to_does_not_wait",
    ),
    Mutant(
        "a step that isn't torch's own waits for nothing, so nothing waits for it",
        "saving/overlap.py",
        "    return is_own or",
        "    return True or",
        by=f"{_OVERLAP}test_an_optimizer_whose_step_is_not_hooked_has_nothing_that_waits",
    ),
    Mutant(
        "the copy is there before other hooks write",
        "saving/overlap.py",
        "    hooks.move_to_end(hook.handle.id, last=False)",
        "    pass",
        by=f"{_OVERLAP}test_hooks_of_the_training_come_after_and_stay",
    ),
    Mutant(
        "no hook goes while torch goes through several",
        "saving/overlap.py",
        " and len(hooks) == 1",
        "",
        by=f"{_OVERLAP}test_hooks_of_the_training_come_after_and_stay",
    ),
    Mutant(
        "a write too early is noticed",
        "saving/snapshot.py",
        "if live._version != version",
        "if False",
        by=f"{_SNAPSHOT}test_a_write_too_early_is_told_by_name_and_ends_the_save",
    ),
    Mutant(
        "memory that something else looks into is copied at once",
        "saving/snapshot.py",
        "if storage_of(slot.source) not in written]",
        "]",
        by=f"{_SNAPSHOT}test_a_tensor_that_shares_memory_with_one_that_is_copied_at_once_is_copied_at_once_too",
    ),
    Mutant(
        "nothing is copied into memory that was given back",
        "saving/snapshot.py",
        "        self._rest.give_up()\n",
        "",
        by=f"{_SNAPSHOT}test_a_step_copies_nothing_into_memory_that_was_given_back",
    ),
    Mutant(
        "an interrupted piece is copied again",
        "saving/rest.py",
        "                        self._pieces.appendleft(held)",
        "                        pass",
        by=f"{_REST}test_an_interrupted_piece_is_copied_again",
    ),
    Mutant(
        "giving up waits for who is copying",
        "saving/rest.py",
        "                self._turn.wait_for(lambda: not self._held or self._is_done)\n",
        "",
        by=f"{_REST}test_giving_up_waits_for_who_is_copying",
    ),
    Mutant(
        "what is given back twice is lent once",
        "saving/staging.py",
        "= self._staging, self._stretch, None, None",
        "= self._staging, self._stretch, self._staging, self._stretch",
        by=f"{_STAGING}test_what_is_given_back_twice_is_lent_once",
    ),
    Mutant(
        "what is too small goes before something larger is made",
        "saving/staging.py",
        "            self._let_go_of_all_but(taken)\n            if taken",
        "            if taken",
        by=f"{_STAGING}test_a_smaller_buffer_is_gone_before_a_larger_one_is_made",
    ),
]

"""What keeps a copy from being another than its original, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

HERE = "tests/upkeep/test_copying_guards.py::"

CARRYING = [
    Mutant(
        "digest of a tensor that is copied",
        "upkeep/carrying.py",
        "        if found != want.stretch.digest:",
        "        if False:",
        by="tests/upkeep/test_carrying.py::test_bytes_that_do_not_match_leave_nothing_behind",
    ),
    Mutant(
        "digest of a large tensor that is copied alone",
        "upkeep/carrying.py",
        "            self._check(wants[0], found)\n",
        "            pass\n",
        by="tests/upkeep/test_carrying.py::test_bytes_that_do_not_match_leave_nothing_behind",
    ),
    Mutant(
        "digest of small tensors that are copied together",
        "upkeep/carrying.py",
        "            self._check(want, digest(piece[begin:end]))\n",
        "            pass\n",
        by="tests/upkeep/test_carrying.py::test_bytes_that_do_not_match_leave_nothing_behind",
    ),
    Mutant(
        "digest of an opaque file that is copied",
        "upkeep/carrying.py",
        "            if found != file.digest:",
        "            if False:",
        by=f"{HERE}test_a_file_that_is_not_what_was_saved_is_not_copied",
    ),
    Mutant(
        "digest of a tensor without elements",
        "upkeep/carrying.py",
        "                if not chunk.length and chunk.digest != NOTHING:",
        "                if False:",
        by=f"{HERE}test_no_bytes_have_the_digest_of_some",
    ),
    Mutant(
        "digest of the header of a pack that is copied",
        "upkeep/version_bytes.py",
        "        if digest(header) != pack.header_digest:",
        "        if False:",
        by="tests/upkeep/test_version_bytes.py::test_a_pack_that_is_not_as_it_was_saved_is_named",
    ),
    Mutant(
        "size of a pack that is copied",
        "upkeep/version_bytes.py",
        "        if size != pack.size_bytes:",
        "        if False:",
        by="tests/upkeep/test_version_bytes.py::test_a_pack_that_is_not_as_it_was_saved_is_named",
    ),
    Mutant(
        "what a copy shares is as long",
        "upkeep/carrying.py",
        "if each and each.length == want.stretch.length]",
        "if each]",
        by=f"{HERE}test_what_has_one_digest_and_another_length_is_not_shared",
    ),
    Mutant(
        "a header that can be read",
        "upkeep/carrying.py",
        "        if len(layout.header) > MAX_HEADER_BYTES:",
        "        if False:",
        by="tests/upkeep/test_carrying.py::test_a_header_that_nobody_could_read_is_refused",
    ),
]

COPYING = [
    Mutant(
        "a look whether a version is live before it is copied",
        "upkeep/transfer.py",
        "        self._check_live(item)\n        with _blaming_source():",
        "        with _blaming_source():",
        by=f"{HERE}test_what_is_retired_while_others_are_copied_is_left",
    ),
    Mutant(
        "a look whether a version is live once it is damaged",
        "upkeep/transfer.py",
        "                if self._is_retired(item):",
        "                if False:",
        by="tests/upkeep/test_transfer.py::test_a_version_whose_data_are_collected_while_it_is_read_is_retired",
    ),
    Mutant(
        "half the grace period of a copy",
        "upkeep/transfer.py",
        "        begun, since, save_id = datetime.now(UTC), Moment.now(), uuid7()",
        "        begun, since, save_id = datetime.now(UTC), Moment(1e15, 1e15), uuid7()",
        by="tests/upkeep/test_copying_guards.py::test_a_copy_is_as_old_as_its_first_byte",
    ),
    Mutant(
        "a copy is as old as its look at what it shares",
        "upkeep/transfer.py",
        "        since = earliest([since, *(moment for _, moment in bases)])\n",
        "",
        by=f"{HERE}test_a_copy_is_as_old_as_its_look_at_what_it_shares_with",
    ),
    Mutant(
        "nobody brought it under a smaller number",
        "upkeep/transfer.py",
        "            arrivals.check(number, original.origin)\n",
        "",
        by="tests/upkeep/test_transfer.py::test_what_comes_while_it_is_copied_is_not_copied_twice",
    ),
    Mutant(
        "a version that is there is not copied",
        "upkeep/arrivals.py",
        "        if origin in self._found and self._found[origin].version < number:",
        "        if False:",
        by="tests/upkeep/test_arrivals.py::test_a_number_is_refused_once_somebody_brought_it_under_a_smaller_one",
    ),
    Mutant(
        "what came meanwhile is looked at",
        "upkeep/arrivals.py",
        "        if number - 1 > self._seen:\n            self._look()\n",
        "",
        by="tests/upkeep/test_arrivals.py::test_a_number_is_refused_once_somebody_brought_it_under_a_smaller_one",
    ),
    Mutant(
        "what is damaged or late there is copied again",
        "upkeep/arrivals.py",
        "        if identity.damage is None and not is_late:",
        "        if True:",
        by="tests/upkeep/test_arrivals.py::test_what_was_retired_is_there_and_what_is_damaged_or_late_is_not",
    ),
    Mutant(
        "word to the run of a copy's parent",
        "upkeep/transfer.py",
        "            writer.announce(parent, save_id)\n",
        "            pass\n",
        by=f"{HERE}test_a_parent_in_another_run_keeps_its_place_where_it_was_copied_to",
    ),
    Mutant(
        "a copy's parent is that save's",
        "upkeep/transfer.py",
        "        is_it = known is not None and known.save_id == parent.save_id\n",
        "        is_it = known is not None\n",
        by=f"{HERE}test_a_parent_that_was_replaced_is_not_who_has_its_number_now",
    ),
    Mutant(
        "a store is not copied into itself",
        "upkeep/transfer.py",
        "        if self._target_id == self._store_id and is_same(source.storage, target.storage):",
        "        if False:",
        by="tests/upkeep/test_transfer.py::test_a_store_is_not_copied_into_itself",
    ),
    Mutant(
        "damage of the source ends no copy of the rest",
        "upkeep/transfer.py",
        "        raise _DamagedError(str(error), ref=error.ref) from error",
        "        raise",
        by="tests/upkeep/test_transfer.py::test_damage_is_named_and_the_rest_is_copied",
    ),
]

RETELLING = [
    Mutant(
        "what was told is known by who wrote it",
        "upkeep/retelling.py",
        "        return entry.writer in self._writers",
        "        return False",
        by="tests/upkeep/test_retelling.py::test_told_once_it_is_not_told_again_not_even_back",
    ),
    Mutant(
        "what another copy told meanwhile is known too",
        "upkeep/retelling.py",
        "        if self.known.has(self.entry) or self._is_so(facts):",
        "        if self._is_so(facts):",
        by=f"{HERE}test_what_another_copy_tells_meanwhile_is_not_told_twice",
    ),
    Mutant(
        "a look at the journal as it stands",
        "upkeep/retelling.py",
        "        self.known.look()\n",
        "",
        by=f"{HERE}test_what_another_copy_tells_meanwhile_is_not_told_twice",
    ),
    Mutant(
        "what the other store decided stays",
        "upkeep/retelling.py",
        "        return None if last is None or last.writer in self._ours else last",
        "        return None",
        by="tests/upkeep/test_retelling.py::test_what_the_other_store_decided_itself_stays_and_is_said",
    ),
    Mutant(
        "no copied tag on what is retired there",
        "upkeep/retelling.py",
        "            if known is not None and known.retired is not None:",
        "            if False:",
        by="tests/upkeep/test_retelling.py::test_a_tag_is_not_set_on_what_is_retired_there",
    ),
]

MUTANTS = [*CARRYING, *COPYING, *RETELLING]

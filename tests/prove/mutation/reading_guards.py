"""What keeps a reader from believing damage or lies, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

FORMAT = [
    Mutant(
        "digest of a manifest's head",
        "format/manifest.py",
        """    if start[end + 1 : expected_end] != b'"' + digest(line).encode() + b'"\\n':""",
        "    if False:",
        by="tests/format/test_manifest.py::test_a_flipped_bit_anywhere_is_refused",
    ),
    Mutant(
        "digest of a part's line",
        "format/part.py",
        "    if len(line) != info.length or digest(line) != info.digest:",
        "    if len(line) != info.length:",
        by="tests/loading/test_fetch_damage.py::test_a_flipped_bit_anywhere_in_a_manifest_is_found",
    ),
    Mutant(
        "digest of ckptstore.json and of journal entries",
        "format/sealed.py",
        "    if not found or tail != digest(body).encode() + END:",
        "    if not found:",
        by="tests/format/test_journal.py::test_flipped_or_cut_anywhere_it_is_refused",
    ),
    Mutant(
        "a longest first line",
        "format/manifest.py",
        "    if end > MAX_LINE_BYTES or (end < 0 and len(start) > MAX_LINE_BYTES):",
        "    if False:",
        by="tests/format/test_manifest.py::test_a_first_line_without_end_is_refused",
    ),
    Mutant(
        "a longest line",
        "format/digest.py",
        "    if len(line) > MAX_LINE_BYTES:",
        "    if False:",
        by="tests/format/test_digest.py::test_a_line_of_more_than_64_mib_is_refused_unread",
    ),
    Mutant(
        "a longest part",
        "format/manifest.py",
        "    if length > MAX_LINE_BYTES:",
        "    if False:",
        by="tests/format/test_manifest.py::test_a_head_that_the_format_has_not_is_refused",
    ),
    Mutant(
        "a deepest nesting",
        "format/digest.py",
        "            if depth > MAX_DEPTH:",
        "            if False:",
        by="tests/format/test_digest.py::test_deep_nesting_is_refused_before_it_is_parsed",
    ),
    Mutant(
        "no key twice",
        "format/digest.py",
        "    if len(value) != len(pairs):",
        "    if False:",
        by="tests/format/test_digest.py::test_a_line_that_ckptstore_would_not_write_is_refused",
    ),
    Mutant(
        "no NaN",
        "format/digest.py",
        "            parse_constant=_refuse_constant,\n",
        "",
        by="tests/format/test_digest.py::test_a_line_that_ckptstore_would_not_write_is_refused",
    ),
    Mutant(
        "no overflow",
        "format/digest.py",
        "    if value - value != 0.0:",
        "    if False:",
        by="tests/format/test_digest.py::test_a_line_that_ckptstore_would_not_write_is_refused",
    ),
    Mutant(
        "no lone surrogate",
        "format/digest.py",
        """        if b"\\\\u" in line:""",
        "        if False:",
        by="tests/format/test_digest.py::test_a_line_that_ckptstore_would_not_write_is_refused",
    ),
    Mutant(
        "a chunk lies in its pack",
        "format/part.py",
        "    if not packs[pack].header_bytes <= start <= packs[pack].size_bytes - length:",
        "    if False:",
        by="tests/format/test_part.py::test_a_tensor_that_cannot_be_is_refused_before_anything_is_allocated",
    ),
    Mutant(
        "a chunk is as long as its shape",
        "format/part.py",
        "    if length != prod(shape) * itemsize:",
        "    if False:",
        by="tests/format/test_part.py::test_a_tensor_that_cannot_be_is_refused_before_anything_is_allocated",
    ),
    Mutant(
        "chunks cover their tensor once",
        "format/part.py",
        "    if not _cover(shape, chunks):",
        "    if False:",
        by="tests/format/test_part.py::test_chunks_cover_a_tensor_exactly_once",
    ),
    Mutant(
        "a header that fits its pack",
        "format/manifest.py",
        "    if pack.header_bytes > min(pack.size_bytes, 100_000_008):",
        "    if False:",
        by="tests/format/test_manifest.py::test_a_head_that_the_format_has_not_is_refused",
    ),
    Mutant(
        "a run's name out of a manifest",
        "format/manifest.py",
        '        run = check_run(fields.text("run"))\n    except InvalidNameError as error:\n'
        '        raise IntegrityError(f"{where}: {error}") from error\n    parts',
        '        run = fields.text("run")\n    except InvalidNameError as error:\n'
        '        raise IntegrityError(f"{where}: {error}") from error\n    parts',
        by="tests/format/test_manifest.py::test_a_head_that_the_format_has_not_is_refused",
    ),
]

LOADING = [
    Mutant(
        "digest of a tensor",
        "loading/reader.py",
        "        if not self._verify or found == chunk.digest:",
        "        if True:",
        by="tests/loading/test_fetch_damage.py::test_a_flipped_bit_anywhere_in_a_pack_is_found",
    ),
    Mutant(
        "digest of a mapped tensor",
        "loading/reader.py",
        "        self._check(place, self._chunk(place), view_bytes(flat), threads)\n",
        "        pass\n",
        by="tests/loading/test_fetch_damage.py::test_a_flipped_bit_anywhere_in_a_pack_is_found",
    ),
    Mutant(
        "digest of a tensor read among others",
        "loading/reader.py",
        "            self._check(want.place, want.chunk, piece)\n",
        "",
        by="tests/loading/test_fetch.py::test_a_damaged_chunk_names_its_tensor",
    ),
    Mutant(
        "digest of a tensor read by itself",
        "loading/reader.py",
        "        self._compare(place, chunk, out, hasher.hexdigest())\n",
        "",
        by="tests/loading/test_fetch_damage.py::test_a_flipped_bit_anywhere_in_a_pack_is_found",
    ),
    Mutant(
        "digest of a pack's header",
        "loading/reader.py",
        "        if blake3(header).hexdigest() != pack.header_digest:",
        "        if False:",
        by="tests/loading/test_fetch_damage.py::test_a_flipped_bit_anywhere_in_a_pack_is_found",
    ),
    Mutant(
        "size of a pack",
        "loading/reader.py",
        "            if size != pack.size_bytes:",
        "            if False:",
        by="tests/loading/test_fetch_damage.py::test_a_pack_cut_short_anywhere_is_found",
    ),
    Mutant(
        "tensors that are not tied share no memory",
        "loading/fetch.py",
        "        if pack != last_pack or start >= end:",
        "        if True:",
        by="tests/loading/test_fetch.py::test_tensors_that_are_not_tied_share_no_memory",
    ),
    Mutant(
        "no module is built of bytes that are still unchecked",
        "loading/build.py",
        "    check()\n",
        "",
        by="tests/loading/test_load.py::test_no_loading_code_sees_damaged_bytes",
    ),
    Mutant(
        "damage before what does not fit",
        "loading/load.py",
        "        chosen.check()\n        raise\n",
        "        raise\n",
        by="tests/loading/test_load.py::test_damage_is_told_before_what_does_not_fit",
    ),
    Mutant(
        "training is given no mapped memory",
        "loading/restore.py",
        '    return {"take": functools.partial(_copied_at_once, memo={})}\n',
        "    return {}\n",
        by="tests/loading/test_resume.py::test_training_memory_is_never_mapped",
    ),
    Mutant(
        "loading code is given no mapped memory",
        "loading/restore.py",
        "        is_own = bool(found.custom or prefixes(module, _sets_extra_state))\n",
        "        is_own = False\n",
        by="tests/loading/test_restore.py::test_code_that_keeps_what_it_is_given_gets_no_mapped_memory",
    ),
    Mutant(
        "values made of tensors are made of checked ones",
        "loading/chosen.py",
        "            fetched.check()\n",
        "            pass\n",
        by="tests/loading/test_chosen.py::test_values_are_made_of_checked_tensors",
    ),
    Mutant(
        "the manifest is the version's own",
        "manifest.py",
        "    if run_path(head.run) != run_path(run) or head.version != version:",
        "    if False:",
        by="tests/test_manifest.py::test_another_versions_manifest_is_refused",
    ),
    Mutant(
        "the manifest is that save's",
        "manifest.py",
        "    if save_id is not None and head.save_id != save_id:",
        "    if False:",
        by="tests/test_manifest.py::test_another_save_under_the_same_number_is_refused",
    ),
    Mutant(
        "a manifest cut short",
        "manifest.py",
        "        if len(start) < length:\n            raise IntegrityError(",
        "        if False:\n            raise IntegrityError(",
        by="tests/loading/test_fetch_damage.py::test_a_manifest_cut_short_anywhere_is_found",
    ),
]

CATALOG = [
    Mutant(
        "lock before a transaction reads what it decides on",
        "catalog/engine.py",
        '"BEGIN IMMEDIATE" if writing else "BEGIN"',
        '"BEGIN"',
        by="tests/catalog/test_engine.py::test_a_transaction_that_writes_begins_as_one",
    ),
    Mutant(
        "wait for another process's lock",
        "catalog/engine.py",
        '            driver.execute(f"PRAGMA busy_timeout = {1000 * self.timeout_s:.0f}")\n',
        '            driver.execute("PRAGMA busy_timeout = 0")\n',
        by="tests/catalog/test_engine.py::test_connections_are_set_up_as_sqlite_needs_it",
    ),
    Mutant(
        "foreign keys",
        "catalog/engine.py",
        '        connection.execute("PRAGMA foreign_keys = ON")\n',
        "",
        by="tests/catalog/test_engine.py::test_connections_are_set_up_as_sqlite_needs_it",
    ),
    Mutant(
        "a shared database is not migrated unasked",
        "catalog/engine.py",
        "            if not self.is_sqlite:\n                revisions.check_known(",
        "            if False:\n                revisions.check_known(",
        by="tests/catalog/test_migrate.py::test_a_shared_database_is_migrated_by_hand",
    ),
    Mutant(
        "a second look at the tables under the lock",
        "catalog/engine.py",
        "            with self._transaction(writing=True) as connection:\n"
        "                found = revisions.revision(connection)\n"
        "                if found is None:",
        "            with self._transaction(writing=True) as connection:\n"
        "                if found is None:",
        by="tests/catalog/test_engine.py::test_tables_that_another_process_made_meanwhile_are_taken_as_they_are",
    ),
    Mutant(
        "one connection a process",
        "catalog/engine.py",
        "        if self._engine is not None and self._pid == os.getpid():",
        "        if self._engine is not None:",
        by="tests/catalog/test_engine.py::test_a_forked_child_opens_it_anew_and_leaves_the_parents_alone",
    ),
    Mutant(
        "a deleted database is noticed",
        "catalog/engine.py",
        "        return self._identity != _identity(self.path)",
        "        return False",
        by="tests/catalog/test_engine.py::test_a_file_that_was_deleted_or_replaced_is_noticed",
    ),
    Mutant(
        "a hole in a run's versions",
        "catalog/sync.py",
        "            if start is None and number < self._last(numbers, starts):\n"
        "                # It was created",
        "            if False:\n                # It was created",
        by="tests/catalog/test_sync.py::test_versions_committed_while_a_batch_is_read_leave_no_hole",
    ),
    Mutant(
        "a hole in a journal",
        "catalog/sync.py",
        "            if start is None and number < self._last(numbers, starts):\n"
        "                start = self._storage.read_many([key]",
        "            if False:\n                start = self._storage.read_many([key]",
        by="tests/catalog/test_sync.py::test_a_hole_that_comes_to_be_is_noticed_by_who_has_looked_for_one",
    ),
    Mutant(
        "a hole in a journal is noticed by every process",
        "catalog/index.py",
        "            broken = self._hole(database, path)\n",
        "            pass\n",
        by="tests/test_store_journal_damage.py::test_every_process_notices_a_hole_not_only_the_first",
    ),
    Mutant(
        "a journal that lost its end is noticed",
        "catalog/index.py",
        "        if error is None and known > last:",
        "        if False:",
        by="tests/test_store_journal_damage.py::test_which_end_of_a_journal_is_right_is_the_users_to_say",
    ),
    Mutant(
        "an entry in another's place",
        "format/journal.py",
        "        if own != place:",
        "        if False:",
        by="tests/test_store_journal_damage.py::test_an_entry_put_in_anothers_place_is_damage",
    ),
    Mutant(
        "what is indexed is still what is there",
        "catalog/sync.py",
        "        return start is not None and known.is_last(start)",
        "        return True",
        by="tests/catalog/test_sync.py::test_a_run_that_was_replaced_is_no_unchanged_one",
    ),
    Mutant(
        "a run that was replaced is looked at, among many",
        "catalog/sync.py",
        "last is not None and each.is_last(last)",
        "True",
        by="tests/catalog/test_sync.py::test_a_run_that_was_replaced_is_no_unchanged_one",
    ),
    Mutant(
        "no version is indexed before the one that precedes it",
        "catalog/changes.py",
        "    if new and new[0].number > following:\n        return False\n",
        "",
        by="tests/catalog/test_changes.py::test_a_batch_whose_beginning_was_removed_meanwhile_adds_nothing",
    ),
    Mutant(
        "no entry is indexed before the one that precedes it",
        "catalog/changes.py",
        "    if entries and entries[0].number > state.next_entry:\n        return False\n",
        "",
        by="tests/catalog/test_changes.py::test_a_batch_whose_beginning_was_removed_meanwhile_adds_nothing",
    ),
    Mutant(
        "another save under an indexed number",
        "catalog/changes.py",
        'return connection.execute(SAVE_ID, key).scalar() == version.columns["save_id"]',
        "return True",
        by="tests/catalog/test_changes.py::test_another_save_under_a_number_that_is_there_is_not_indexed",
    ),
]

MUTANTS = [*FORMAT, *LOADING, *CATALOG]

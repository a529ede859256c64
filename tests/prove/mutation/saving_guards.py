"""What keeps a save from being lost, doubled or late, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

COMMIT = [
    Mutant(
        "a failed fsync fails the save though the object can be read",
        "saving/commit.py",
        "    except DurabilityError:\n        raise\n",
        "",
        by="tests/saving/test_commit.py::test_a_failed_fsync_is_failure_even_where_it_can_be_read",
    ),
    Mutant(
        "comparison of what was read back",
        "saving/commit.py",
        "    if found == data:\n        return True",
        "    if found:\n        return True",
        by="tests/saving/test_commit.py::test_what_another_created_is_not",
    ),
    Mutant(
        "a name that exists and can't be read is unknown",
        "saving/commit.py",
        "        if isinstance(error, FileExistsError):\n",
        "        if False:\n",
        by="tests/saving/test_commit.py::test_a_name_said_to_exist_that_does_not_is_unknown",
    ),
    Mutant(
        "what can't be read back is unknown",
        "saving/commit.py",
        "    except StorageError as unread:\n"
        '        raise OutcomeUnknownError(f"{storage.url}/{key}", writer_id, error) from unread',
        "    except StorageError:\n        raise error from None",
        by="tests/saving/test_commit.py::test_what_cannot_be_read_back_is_unknown_and_names_what_to_look_for",
    ),
    Mutant(
        "a file torn by us is a failure",
        "saving/commit.py",
        "    if data.startswith(found) and not isinstance(error, FileExistsError):",
        "    if False:",
        by="tests/saving/test_commit.py::test_a_file_torn_by_us_spends_its_number_and_is_failure",
    ),
    Mutant(
        "a taken number is a second writer's where there must be one",
        "saving/commit.py",
        "        if not storage.exclusive:",
        "        if False:",
        by="tests/saving/test_commit.py::test_a_taken_number_is_a_second_writer_where_there_must_be_one",
    ),
    Mutant(
        "refusal of untrusted storage",
        "saving/founding.py",
        '    _check_trust(storage, "nothing is known that makes it so", '
        "single_writer=single_writer)\n",
        "",
        by="tests/saving/test_founding.py::test_storage_that_promises_nothing_is_refused_before_anything_is_written",
    ),
    Mutant(
        "refusal of storage that let two writers win",
        "saving/founding.py",
        "        storage.exclusive = False\n    _check_trust(",
        "        storage.exclusive = False\n    (lambda *_, **__: None)(",
        by="tests/saving/test_founding.py::test_storage_that_lets_two_writers_win_is_refused",
    ),
    Mutant(
        "the second creation of ckptstore.json",
        "saving/founding.py",
        "    if storage.exclusive and _is_created_again(storage, data):",
        "    if False:",
        by="tests/saving/test_founding.py::test_storage_that_lets_two_writers_win_is_refused",
    ),
    Mutant(
        "no new ckptstore.json where there are runs",
        "saving/founding.py",
        "    if not isinstance(why, NotAStoreError):\n        raise why\n",
        "",
        by="tests/saving/test_founding.py::test_no_store_is_made_where_there_are_runs",
    ),
    Mutant(
        "a second writer is noticed at each save",
        "saving/run_writer.py",
        "                self._check_alone(*self._last)\n",
        "                pass\n",
        by="tests/saving/test_founding.py::test_a_second_writer_that_wrote_over_is_noticed",
    ),
    Mutant(
        "a run that was deleted is noticed",
        "saving/run_writer.py",
        "            if self._start is not None and not self._is_there(*self._start):\n"
        "                self._begin_again(self._start[0])\n",
        "",
        by="tests/test_store_vanished.py::test_a_store_deleted_under_a_training_is_begun_again",
    ),
    Mutant(
        "a hole in the numbers is damage",
        "saving/run_writer.py",
        "        if missing:\n            raise IntegrityError(",
        "        if False:\n            raise IntegrityError(",
        by="tests/saving/test_run_writer.py::test_a_hole_in_the_numbers_is_damage",
    ),
    Mutant(
        "the number is looked up again after an unknown outcome",
        "saving/run_writer.py",
        "            self._next = None\n            save_id",
        "            save_id",
        by="tests/saving/test_founding.py::test_a_single_writer_never_writes_over_a_save_whose_outcome_it_did_not_see",
    ),
    Mutant(
        "lock of a run",
        "saving/run_journal.py",
        "        self._lock = threading.RLock()\n        _journals.add(self)",
        "        import contextlib\n\n        self._lock = contextlib.nullcontext()\n"
        "        _journals.add(self)",
        by="tests/saving/test_run_writer.py::test_threads_commit_one_at_a_time",
    ),
    Mutant(
        "a free lock of a run after a fork",
        "saving/run_journal.py",
        "    os.register_at_fork(after_in_child=_renew_locks)",
        "    pass",
        by="tests/saving/test_run_writer.py::test_a_forked_child_saves_through_the_same_store",
    ),
    Mutant(
        "trust before a later fact is written",
        "saving/run_journal.py",
        "                found(self._storage, single_writer=self._single_writer)\n"
        "                self._founded = True\n            return append(",
        "                self._founded = True\n            return append(",
        by="tests/saving/test_founding.py::test_no_later_fact_is_written_before_the_storage_is_trusted",
    ),
    Mutant(
        "the guard of rank 0",
        "saving/save.py",
        "    if rank() != 0:",
        "    if False:",
        by="tests/saving/test_save.py::test_off_rank_zero_the_guard_is_shown",
    ),
    Mutant(
        "a failed catalog does not fail a save",
        "saving/run_writer.py",
        "            self._catalog.add(line, head)\n        except CatalogError as error:\n",
        "            self._catalog.add(line, head)\n        except KeyError as error:\n",
        by="tests/saving/test_run_writer.py::test_a_catalog_that_fails_once_the_version_is_committed_fails_no_save",
    ),
]

JOURNAL = [
    Mutant(
        "the journal as it stands",
        "saving/journaling.py",
        "    for _ in range(MAX_LOST_RACES):\n        catalog.sync(path)\n",
        "    catalog.sync(path)\n    for _ in range(MAX_LOST_RACES):\n",
        by="tests/saving/test_journaling.py::test_whoever_loses_the_number_decides_again_on_what_the_winner_wrote",
    ),
    Mutant(
        "no tag on a retired version",
        "saving/journaling.py",
        '            check_live(ref or f"version {version}", known)\n',
        "            pass\n",
        by="tests/test_later_facts.py::test_a_retired_version_has_its_row_and_takes_no_tag_and_no_load",
    ),
    Mutant(
        "a taken entry is a second writer's where there must be one",
        "saving/journaling.py",
        "        if not storage.exclusive:",
        "        if False:",
        by="tests/saving/test_journaling.py::test_a_taken_number_is_a_second_writer_where_there_must_be_one",
    ),
    Mutant(
        "exclusive creation of an entry",
        "saving/journaling.py",
        "        if create_once(storage, key, encode_entry(entry, Place(path, number)), "
        "str(entry.writer)):",
        "        if create_once(storage, key, encode_entry(entry, Place(path, number)), "
        "str(entry.writer)) or True:",
        by="tests/saving/test_journaling.py::test_whoever_loses_the_number_decides_again_on_what_the_winner_wrote",
    ),
    Mutant(
        "facts are no older than the number they are decided for",
        "saving/journaling.py",
        "        _, number = catalog.next_numbers(path)\n"
        "        facts = replace(catalog.facts(path), versions=_Versions(catalog, path))\n",
        "        facts = replace(catalog.facts(path), versions=_Versions(catalog, path))\n"
        "        _, number = catalog.next_numbers(path)\n",
        by="tests/saving/test_journaling_guards.py::test_facts_are_no_older_than_the_number_they_are_decided_for",
    ),
]

REUSE = [
    Mutant(
        "half the grace period before a commit",
        "saving/run_writer.py",
        "            if since.elapsed_s() > self._grace_s / 2:\n                raise self._late(",
        "            if False:\n                raise self._late(",
        by="tests/upkeep/test_collection_attacks.py::test_a_save_beyond_its_half_grace_is_no_version",
    ),
    Mutant(
        "half the grace period after a commit",
        "saving/run_writer.py",
        "                self._take_back(committed)\n",
        "                pass\n",
        by="tests/upkeep/test_collection_attacks.py::test_a_save_beyond_its_half_grace_is_no_version",
    ),
    Mutant(
        "the retirement of what came too late",
        "saving/run_writer.py",
        "            append(self._storage, self._catalog, self.path, retire_late(head.version))\n",
        "            pass\n",
        by="tests/upkeep/test_collection_attacks.py::test_a_save_beyond_its_half_grace_is_no_version",
    ),
    Mutant(
        "a save is as old as its look at what it builds upon",
        "saving/save.py",
        "    since = earliest([since, *(looked for _, looked in bases)])\n",
        "",
        by="tests/saving/test_save.py::test_a_save_is_as_old_as_its_look_at_what_it_builds_upon",
    ),
    Mutant(
        "the longer of two clocks: wall",
        "saving/moment.py",
        "max(now.wall_s - self.wall_s, now.monotonic_s - self.monotonic_s)",
        "now.monotonic_s - self.monotonic_s",
        by="tests/saving/test_moment.py::test_the_longer_span_counts",
    ),
    Mutant(
        "the longer of two clocks: monotonic",
        "saving/moment.py",
        "max(now.wall_s - self.wall_s, now.monotonic_s - self.monotonic_s)",
        "now.wall_s - self.wall_s",
        by="tests/saving/test_moment.py::test_the_longer_span_counts",
    ),
    Mutant(
        "nothing retired is built upon",
        "saving/bases.py",
        "facts is None or facts.retired is not None or facts.damage is not None",
        "facts is None or facts.damage is not None",
        by="tests/saving/test_bases.py::test_after_a_while_it_looks_again",
    ),
    Mutant(
        "nothing damaged is built upon",
        "saving/bases.py",
        "facts is None or facts.retired is not None or facts.damage is not None",
        "facts is None or facts.retired is not None",
        by="tests/saving/test_bases.py::test_what_is_not_sound_is_not_built_upon",
    ),
    Mutant(
        "nothing that this process found damaged is built upon",
        "saving/bases.py",
        "        if self._catalog.is_passed_over(version.save_id):",
        "        if False:",
        by="tests/saving/test_bases.py::test_what_this_process_found_damaged_is_not_built_upon",
    ),
    Mutant(
        "a look does not hold good for ever",
        "saving/bases.py",
        "known[1].elapsed_s() < look_s",
        "known[1].elapsed_s() >= 0",
        by="tests/saving/test_bases.py::test_after_a_while_it_looks_again",
    ),
    Mutant(
        "a look is as old as its beginning",
        "saving/bases.py",
        "        return (known[0] if known is not None else self._read(version)), looked",
        "        return (known[0] if known is not None else self._read(version)), Moment.now()",
        by="tests/saving/test_bases.py::test_what_passes_during_a_look_makes_it_older",
    ),
    Mutant(
        "a pack that is named is there",
        "saving/reuse.py",
        "        return storage.size_bytes(pack_key(pack.save_id, pack.number)) == pack.size_bytes",
        "        return storage.size_bytes(pack_key(pack.save_id, pack.number)) >= 0",
        by="tests/saving/test_reuse.py::test_a_pack_that_is_gone_or_cut_short_is_not_named",
    ),
    Mutant(
        "the digest of what is shared",
        "saving/reuse.py",
        "        found = (basis.places.get(known.digest) for basis in bases)\n",
        "        found = (each for basis in bases for each in basis.places.values())\n",
        by="tests/saving/test_reuse.py::test_a_single_changed_element_is_written_wherever_it_is",
    ),
    Mutant(
        "bound of the packs of one version",
        "saving/reuse.py",
        "    count = len(fair) if len(fair) <= MAX_FOREIGN_PACKS else KEPT_FOREIGN_PACKS",
        "    count = len(fair)",
        by="tests/saving/test_reuse.py::test_no_version_is_spread_over_more_packs_than_the_rule_says",
    ),
    Mutant(
        "the least share of a pack",
        "saving/reuse.py",
        "        if length >= LEAST_SHARE *",
        "        if length >= 0 *",
        by="tests/saving/test_reuse.py::test_little_is_not_shared_out_of_a_large_pack",
    ),
    Mutant(
        "word to the run of a parent",
        "saving/save.py",
        "        writer.announce(parent, save_id, seen_live.get(parent))\n",
        "        pass\n",
        by="tests/saving/test_run_writer.py::test_a_parent_in_another_run_is_told_of_its_child",
    ),
]

BOUNDS = [
    Mutant(
        "a look holds good for a minute",
        "saving/bases.py",
        "\nLOOK_S = 60.0\n",
        "\nLOOK_S = 86_400.0\n",
        by="tests/saving/test_reuse_guards.py::test_after_a_minute_what_is_built_upon_is_looked_at_again",
    ),
    Mutant(
        "an eighth of a pack at least",
        "saving/reuse.py",
        "\nLEAST_SHARE = 1 / 8\n",
        "\nLEAST_SHARE = 1 / 800\n",
        by="tests/saving/test_reuse_guards.py::test_a_pack_is_shared_from_an_eighth_of_its_data_on",
    ),
    Mutant(
        "sixteen packs at most",
        "saving/reuse.py",
        "\nMAX_FOREIGN_PACKS = 16\n",
        "\nMAX_FOREIGN_PACKS = 1600\n",
        by="tests/saving/test_reuse_guards.py::test_a_version_names_at_most_sixteen_packs_of_others",
    ),
]

MUTANTS = [*COMMIT, *JOURNAL, *REUSE, *BOUNDS]

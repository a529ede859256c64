"""What keeps clean-up from taking what is needed, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

COLLECTION = [
    Mutant(
        "a pack's own grace period",
        "upkeep/garbage.py",
        "        elif stored.written_at >= now - grace:",
        "        elif False:",
        by="tests/upkeep/test_garbage.py::test_what_becomes_of_a_pack",
    ),
    Mutant(
        "a retired version's grace period",
        "upkeep/garbage.py",
        "                if retired_at < since:",
        "                if True:",
        by="tests/upkeep/test_garbage.py::test_what_becomes_of_a_pack",
    ),
    Mutant(
        "what a live version names",
        "upkeep/garbage.py",
        "        if stored.key in live:",
        "        if False:",
        by="tests/upkeep/test_garbage.py::test_what_becomes_of_a_pack",
    ),
    Mutant(
        "an unreadable manifest stops clean-up",
        "upkeep/garbage.py",
        "            if version.damage is not None:",
        "            if False:",
        by="tests/upkeep/test_garbage.py::test_a_manifest_nobody_can_read_ends_it",
    ),
    Mutant(
        "nothing is deleted without a time",
        "upkeep/garbage.py",
        "        if stored.written_at is None:\n            raise no_time(stored.key)\n",
        "        if stored.written_at is None:\n            continue\n",
        by="tests/upkeep/test_garbage.py::test_without_times_nothing_is_decided",
    ),
    Mutant(
        "a retirement without a time",
        "upkeep/garbage.py",
        "                if retired_at is None:\n"
        '                    raise no_time(f"the retirement of {run.path}@{number}")\n',
        "                if retired_at is None:\n                    continue\n",
        by="tests/upkeep/test_garbage.py::test_without_times_nothing_is_decided",
    ),
    Mutant(
        "only packs and files are deleted",
        "upkeep/garbage.py",
        "        if not is_data_key(stored.key):\n            continue\n",
        "",
        by="tests/upkeep/test_garbage.py::test_what_is_no_pack_or_file_is_in_no_pile",
    ),
    Mutant(
        "the time is taken before anything is listed",
        "upkeep/collection.py",
        "    runs = read_runs(storage, now, indexed, in_place=facts.in_place, progress=say)\n",
        "    runs = read_runs(storage, now, indexed, in_place=facts.in_place, progress=say)\n"
        "    now = storage_now(storage) or now\n",
        by="tests/upkeep/test_collection_attacks.py::test_a_retirement_after_the_collections_time_does_not_count",
    ),
    Mutant(
        "packs are listed before the versions that name them",
        "upkeep/collection.py",
        "    return _Look(now, sort_out(objects, runs, now, grace)",
        "    objects = list(_counted(storage, say))\n"
        "    return _Look(now, sort_out(objects, runs, now, grace)",
        by="tests/upkeep/test_collection.py::test_progress_is_told",
    ),
    Mutant(
        "what the catalog knows is asked before the listings",
        "upkeep/collection.py",
        "    runs = read_runs(storage, now, indexed, in_place=facts.in_place, progress=say)\n",
        "    indexed = {}\n"
        "    runs = read_runs(storage, now, indexed, in_place=facts.in_place, progress=say)\n",
        by="tests/upkeep/test_collection.py::test_a_run_that_only_the_catalog_knows_is_refused",
    ),
    Mutant(
        "no clean-up where a newer ckptstore was",
        "upkeep/collection.py",
        "        if storage.read_many([STORE_KEY_NEWER], 1) != [None]:",
        "        if False:",
        by="tests/upkeep/test_collection.py::test_a_newer_format_beside_is_refused",
    ),
    Mutant(
        "no clean-up of storage that is not exclusive",
        "upkeep/collection.py",
        "    found(storage, single_writer=single_writer)\n",
        "",
        by="tests/upkeep/test_collection.py::test_storage_that_keeps_no_two_writers_apart_takes_a_promise",
    ),
    Mutant(
        "what others left is theirs",
        "upkeep/leftovers.py",
        "        if is_own(leftover.key):",
        "        if is_own:",
        by="tests/upkeep/test_collection.py::test_what_others_left_below_the_root_is_theirs",
    ),
    Mutant(
        "a user's file in the folder of clocks stays",
        "upkeep/leftovers.py",
        " if is_clock_key(stored.key))",
        ")",
        by="tests/upkeep/test_collection.py::test_clocks_that_nobody_removed_are_leftovers",
    ),
    Mutant(
        "the grace period of leftovers",
        "upkeep/collection.py",
        "    return each.written_at is not None and each.written_at < since",
        "    return each.written_at is not None",
        by="tests/upkeep/test_collection.py::test_leftovers_go_once_nobody_can_be_at_work_on_them",
    ),
    Mutant(
        "a second look after a long sleep",
        "upkeep/collection.py",
        "        if start and look.decided.elapsed_s() > LOOK_S:",
        "        if False:",
        by="tests/upkeep/test_collection.py::test_one_that_slept_looks_again_before_it_deletes_more",
    ),
    Mutant(
        "a listing that fails is a refusal",
        "upkeep/collection.py",
        "        if isinstance(error, (StorageError, IntegrityError, NewerFormatError)):",
        "        if False:",
        by="tests/upkeep/test_collection.py::test_a_damaged_store_is_refused",
    ),
    Mutant(
        "the listing has what the catalog knows",
        "upkeep/inventory.py",
        "    _check_known(storage, runs, known)\n",
        "",
        by="tests/upkeep/test_inventory.py::test_a_listing_that_holds_what_the_catalog_knows_is_taken",
    ),
    Mutant(
        "the number that follows is asked for",
        "upkeep/inventory.py",
        "    _check_following(storage, runs, now)\n",
        "",
        by="tests/upkeep/test_collection.py::test_a_short_listing_is_refused",
    ),
    Mutant(
        "the runs are looked for in a second way",
        "upkeep/inventory.py",
        "    for path in sync.walk(storage):\n        runs.setdefault(path, _Listed())\n",
        "",
        by="tests/upkeep/test_collection.py::test_a_short_listing_is_refused",
    ),
    Mutant(
        "a hole among the versions",
        "upkeep/inventory.py",
        '                damage=f"{where} is missing, and later versions are there", '
        "is_missing=True\n",
        "                damage=None\n",
        by="tests/upkeep/test_collection.py::test_a_missing_manifest_is_refused",
    ),
    Mutant(
        "a hole in a journal stops clean-up",
        "upkeep/inventory.py",
        '            raise self._unreadable(f"{where} is missing, and later entries are there")',
        "            return None",
        by="tests/upkeep/test_inventory.py::test_a_journal_with_a_hole_is_refused",
    ),
    Mutant(
        "a damaged entry stops clean-up",
        "upkeep/inventory.py",
        "            raise self._unreadable(str(error)) from error",
        "            return None",
        by="tests/upkeep/test_collection.py::test_a_damaged_journal_entry_is_refused",
    ),
    Mutant(
        "a manifest in another's place",
        "upkeep/inventory.py",
        "        if head.run.lower() != path or head.version != number:",
        "        if False:",
        by="tests/upkeep/test_collection.py::test_a_manifest_in_anothers_place_is_refused",
    ),
    Mutant(
        "a run under a name that can't be one",
        "upkeep/inventory.py",
        "        if not is_run_path(path):\n            raise CollectionRefusedError(",
        "        if False:\n            raise CollectionRefusedError(",
        by="tests/upkeep/test_collection.py::test_a_manifest_where_no_run_can_be_is_refused",
    ),
    Mutant(
        "the clock's object is removed",
        "upkeep/clock.py",
        "        storage.delete([key])\n",
        "        pass\n",
        by="tests/upkeep/test_clock.py::test_now_is_the_storages_time_and_nothing_is_left",
    ),
    Mutant(
        "no time is no clean-up",
        "upkeep/collection.py",
        "    if now is None:\n        raise no_time(",
        "    if now is None:\n        now = Moment and __import__('datetime').datetime.now("
        "__import__('datetime').UTC)\n    if now is None:\n        raise no_time(",
        by="tests/upkeep/test_collection.py::test_storage_without_times_is_refused",
    ),
]

UNDELETION = [
    Mutant(
        "half the grace period of an undeletion",
        "upkeep/undeletion.py",
        "        if self._now > self._until:",
        "        if False:",
        by="tests/upkeep/test_undeletion.py::test_after_that_it_is_refused_and_says_until_when",
    ),
    Mutant(
        "the look at the clock after an undeletion",
        "upkeep/undeletion.py",
        "    if why is not None:",
        "    if False:",
        by="tests/upkeep/test_undeletion.py::test_one_that_took_too_long_is_taken_back",
    ),
    Mutant(
        "a late undeletion is taken back",
        "upkeep/undeletion.py",
        "            append(attempt.take_back)\n",
        "            pass\n",
        by="tests/upkeep/test_undeletion.py::test_one_that_took_too_long_is_taken_back",
    ),
    Mutant(
        "this process's own clocks count too",
        "upkeep/undeletion.py",
        "        latest = max(now, self._now + passed)",
        "        latest = now",
        by="tests/upkeep/test_undeletion.py::test_it_is_late_by_this_process_clocks_too",
    ),
    Mutant(
        "what came too late stays retired",
        "upkeep/undeletion.py",
        "        if since.final:",
        "        if False:",
        by="tests/upkeep/test_undeletion.py::test_what_came_too_late_cannot_be_undeleted_by_trying_again",
    ),
    Mutant(
        "a late undeletion restarts no grace period",
        "upkeep/undeletion.py",
        "            and _time(noted) - since.time <= half_grace\n",
        "",
        by="tests/upkeep/test_undeletion.py::test_one_that_died_before_it_was_taken_back_does_not_count_later",
    ),
    Mutant(
        "what is undeleted is there",
        "upkeep/undeletion.py",
        "        _check_data(self._storage, "
        "open_manifest(self._storage, self._run, self._version).head)\n",
        "",
        by="tests/upkeep/test_undeletion.py::test_what_it_names_must_be_there",
    ),
]

PRUNING = [
    Mutant(
        "a parent is known by its save id",
        "upkeep/pruning.py",
        "                if descent[version].parent_save == saves[parent]\n",
        "",
        by="tests/upkeep/test_pruning.py::test_a_parent_of_another_store_protects_nobody_of_its_number",
    ),
    Mutant(
        "what was retired between makes no parent the version right before",
        "upkeep/pruning.py",
        "            before=before,\n",
        "",
        by="tests/upkeep/test_pruning.py::test_pruning_again_keeps_what_a_training_went_back_to",
    ),
    Mutant(
        "a package that stays as a parent holds on to its checkpoint",
        "upkeep/retention.py",
        '        if parent.kind == "package" and parent.version not in staying:',
        "        if False:",
        by="tests/upkeep/test_retention.py::"
        "test_a_package_that_stays_as_a_parent_alone_holds_on_to_its_checkpoint",
    ),
    Mutant(
        "tags keep a version",
        "upkeep/retention.py",
        '            *(f"tag {tag}" for tag in sorted(each.tags)),\n',
        "",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "what this process resumed from stays",
        "upkeep/pruning.py",
        "            if each.save_id in self._resumed\n",
        "            if not each\n",
        by="tests/upkeep/test_pruning.py::test_what_this_process_resumed_from_stays",
    ),
    Mutant(
        "children in other runs keep a version",
        "upkeep/pruning.py",
        "                protected.setdefault(version, []).extend(self._held_by(children))\n",
        "                pass\n",
        by="tests/upkeep/test_pruning.py::test_a_live_child_in_another_run_keeps_its_parent",
    ),
    Mutant(
        "the grace period of a child that is being saved",
        "upkeep/pruning.py",
        "                if self._may_still_come(child):",
        "                if False:",
        by="tests/upkeep/test_pruning.py::test_a_child_that_may_still_come_keeps_its_parent_for_the_grace_period",
    ),
    Mutant(
        "a child that never came lets go",
        "upkeep/pruning.py",
        "        return self._clock - announced <= self._grace",
        "        return True",
        by="tests/upkeep/test_pruning.py::test_a_child_is_known_by_its_save_and_not_by_its_number",
    ),
    Mutant(
        "the newest intact version stays",
        "upkeep/retention.py",
        "        if each.resumable:\n            found.append(",
        "        if False:\n            found.append(",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "the best version stays",
        "upkeep/retention.py",
        "        for place, each in enumerate(_best(newest_first, monitor, 1)):\n",
        "        for place, each in enumerate([]):\n",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "the parent of what stays stays",
        "upkeep/retention.py",
        "    for version, reason in _parents(newest_first, reasons, run, before or {}):",
        "    for version, reason in []:",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "a policy of a newer ckptstore retires nothing",
        "upkeep/keep.py",
        "        if unknown:",
        "        if False:",
        by="tests/upkeep/test_keep.py::test_what_a_newer_ckptstore_keeps_by_is_not_guessed",
    ),
]

CHECKING = [
    Mutant(
        "repair retires only what is not retired yet",
        "upkeep/repair.py",
        "        if facts.versions.get(number, VersionFacts()).retired:\n            return None\n",
        "",
        by="tests/upkeep/test_repair.py::test_decisions_say_nothing_twice",
    ),
    Mutant(
        "repair writes no damage down twice",
        "upkeep/repair.py",
        "        if known is not None and known.damage == damage:\n            return None\n",
        "",
        by="tests/upkeep/test_repair.py::test_decisions_say_nothing_twice",
    ),
    Mutant(
        "an entry out of the catalog is checked",
        "upkeep/repair.py",
        '    decode_entry(data, f"the catalog\'s copy of {key}", place)\n',
        "",
        by="tests/upkeep/test_repair.py::test_what_a_catalog_has_of_an_entry_is_checked_before_it_is_written",
    ),
    Mutant(
        "orphans are noted",
        "upkeep/strays.py",
        "        if stored.key not in named:",
        "        if False:",
        by="tests/upkeep/test_strays.py::test_what_no_version_names_is_noted_with_its_age",
    ),
]

MUTANTS = [*COLLECTION, *UNDELETION, *PRUNING, *CHECKING]

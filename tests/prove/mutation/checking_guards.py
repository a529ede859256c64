"""What keeps a check from taking damage for whole, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

READING = [
    Mutant(
        "a check of a pack's header",
        "upkeep/contents.py",
        "        if header.hexdigest() != pack.header_digest:",
        "        if False:",
        by="tests/upkeep/test_verify.py::test_a_flipped_bit_of_a_pack_names_the_version_and_the_pack",
    ),
    Mutant(
        "a check of each tensor",
        "upkeep/contents.py",
        "                if stretch.stop <= end and hasher.hexdigest() != stretch.digest:",
        "                if False:",
        by="tests/upkeep/test_verify.py::test_a_flipped_bit_of_a_pack_names_the_version_and_the_pack",
    ),
    Mutant(
        "a check of an opaque file",
        "upkeep/contents.py",
        "        if hasher.hexdigest() != file.digest:",
        "        if False:",
        by="tests/upkeep/test_contents.py::test_files_are_checked_whole",
    ),
    Mutant(
        "a check of sizes",
        "upkeep/contents.py",
        "        elif found != expected:",
        "        elif False:",
        by="tests/upkeep/test_verify.py::test_a_shallow_check_finds_what_sizes_and_headers_tell",
    ),
    Mutant(
        "a pack that is gone is damage",
        "upkeep/contents.py",
        '            self._blame_all(kind, users, key, f"{kind} {key} is gone")\n',
        "",
        by="tests/upkeep/test_verify.py::test_a_pack_that_is_gone_is_damage",
    ),
    Mutant(
        "whoever names a damaged pack is damaged",
        "upkeep/contents.py",
        "            for user in wanted[stretch]:",
        "            for user in wanted[stretch][:1]:",
        by="tests/upkeep/test_contents.py::test_whoever_uses_a_damaged_byte_is_blamed_and_nobody_else",
    ),
    Mutant(
        "a failing storage is no damage",
        "upkeep/contents.py",
        "        if error.errno not in OF_ONE_FILE:\n            raise error\n",
        "",
        by="tests/upkeep/test_contents.py::test_no_connection_is_no_damage",
    ),
    Mutant(
        "a manifest ends where its last part does",
        "upkeep/contents.py",
        "        if found != expected:\n            message = (",
        "        if False:\n            message = (",
        by="tests/upkeep/test_verify.py::test_bytes_after_a_manifest_are_worth_a_note",
    ),
    Mutant(
        "a check for holes among the versions",
        "upkeep/survey.py",
        "self._numbers(survey, numbers, version_key, self._hole)",
        "self._numbers(survey, numbers, version_key, lambda *_: None)",
        by="tests/upkeep/test_survey.py::test_a_missing_version_is_a_hole",
    ),
    Mutant(
        "a check for holes in the journal",
        "upkeep/survey.py",
        "self._numbers(Survey(path, path), listed, journal_key, self._journal_hole)",
        "self._numbers(Survey(path, path), listed, journal_key, lambda *_: None)",
        by="tests/upkeep/test_survey.py::test_a_missing_journal_entry_is_a_hole",
    ),
    Mutant(
        "a check for versions lost at the end",
        "upkeep/survey.py",
        "                if version > survey.last:",
        "                if False:",
        by="tests/upkeep/test_survey.py::test_an_entry_about_a_version_that_is_not_there_tells_of_its_loss",
    ),
    Mutant(
        "a check of a manifest's place",
        "upkeep/survey.py",
        "        if run_path(head.run) != path or head.version != number:",
        "        if False:",
        by="tests/upkeep/test_verify.py::test_a_manifest_in_another_ones_place_is_damage",
    ),
    Mutant(
        "a head without its digest is damage",
        "upkeep/survey.py",
        "                if self._in_place:\n                    return None\n"
        "                raise IntegrityError(",
        "                if True:\n                    return None\n"
        "                raise IntegrityError(",
        by="tests/upkeep/test_survey.py::test_a_head_without_its_digest_is_damage_or_void",
    ),
]

REPAIRING = [
    Mutant(
        "nothing is repaired unasked",
        "keeping.py",
        "            append=append if repair else None,",
        "            append=append,",
        by="tests/test_keeping.py::test_a_check_without_repair_writes_nothing",
    ),
    Mutant(
        "whole again only if every byte was read",
        "upkeep/verify.py",
        "        elif known is not None and self._deep:",
        "        elif known is not None:",
        by="tests/upkeep/test_repair.py::test_versions_put_back_from_a_copy_are_whole_again",
    ),
    Mutant(
        "what a check found damaged is picked no more",
        "upkeep/verify.py",
        "            self._catalog.pass_over(version.save_id)\n",
        "            pass\n",
        by="tests/test_keeping.py::test_what_a_check_found_damaged_is_picked_by_nobody_here",
    ),
    Mutant(
        "damage is recorded for all",
        "upkeep/verify.py",
        "            self.cases += [Case(each, survey.path, decide, outcome) for each in found]",
        "            self.cases += [Case(each) for each in found]",
        by="tests/test_keeping.py::test_what_was_repaired_is_picked_by_nobody_anywhere",
    ),
    Mutant(
        "a journal is looked at again before something is said to be gone",
        "upkeep/verify.py",
        "            survey.facts = self.surveyor.facts(survey.path)\n",
        "            pass\n",
        by="tests/upkeep/test_verify.py::test_a_version_that_is_collected_during_the_check_is_no_damage",
    ),
]

RETAINING = [
    Mutant(
        "what is protected stays",
        "upkeep/retention.py",
        "            *protected.get(each.version, ()),\n",
        "",
        by="tests/upkeep/test_pruning.py::test_what_this_process_resumed_from_stays",
    ),
    Mutant(
        "the newest complete version stays",
        "upkeep/retention.py",
        "        if each.resumable:\n",
        "        if each.intact:\n",
        by="tests/upkeep/test_retention.py::test_what_is_protected_is_never_retired",
    ),
    Mutant(
        "a version without a part uses up no place among the last",
        "upkeep/retention.py",
        "        if each.intact and not each.complete:\n            continue\n",
        "",
        by="tests/upkeep/test_retention.py::test_what_lacks_a_part_takes_the_place_of_no_complete_one",
    ),
    Mutant(
        "retention is told what is complete",
        "upkeep/pruning.py",
        "        complete=version.complete,\n",
        "",
        by="tests/test_guard.py::test_the_guards_own_save_never_retires_what_resume_goes_on_from",
    ),
    Mutant(
        "a damaged version is not the best",
        "upkeep/retention.py",
        "        if each.intact and not math.isnan(",
        "        if not math.isnan(",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "NaN is not the best",
        "upkeep/retention.py",
        "        if each.intact and not math.isnan(each.metrics.get(by.metric, math.nan))",
        "        if each.intact and by.metric in each.metrics",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "a damaged version uses up no place among the last",
        "upkeep/retention.py",
        "        intact += each.intact\n",
        "        intact += 1\n",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "checkpoints and packages are counted apart",
        "upkeep/retention.py",
        "        own = [each for each in newest_first if each.kind == kind]",
        "        own = list(newest_first)",
        by="tests/upkeep/test_retention.py::test_what_is_decided_is_what_was_read_through",
    ),
    Mutant(
        "the best by the recorded monitor stays too",
        "upkeep/retention.py",
        "dict.fromkeys([monitor, recorded or monitor])",
        "[monitor]",
        by="tests/upkeep/test_pruning.py::test_the_best_by_the_recorded_monitor_stays_whatever_was_given",
    ),
    Mutant(
        "it is decided again on what the winner wrote",
        "upkeep/pruning.py",
        "        decided[:] = [look.decided(facts)]\n",
        "        decided[:] = decided or [look.decided(facts)]\n",
        by="tests/upkeep/test_pruning.py::test_what_is_tagged_before_the_entry_gets_its_number_stays",
    ),
    Mutant(
        "a failed retention fails no save",
        "keeping.py",
        "        except CkptStoreError as error:\n            warn(\n"
        '                f"the version is saved; run',
        "        except KeyError as error:\n            warn(\n"
        '                f"the version is saved; run',
        by="tests/test_keeping.py::test_a_pruning_that_fails_leaves_the_save_a_save",
    ),
]

MUTANTS = [*READING, *REPAIRING, *RETAINING]

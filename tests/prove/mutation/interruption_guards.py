"""What stands between a training and its end by a signal or a full disk."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

FULL = [
    Mutant(
        "only want of room is waited for",
        "saving/on_full.py",
        "    return is_full(error) and (\n",
        "    return True or (\n",
        by="tests/saving/test_on_full.py::test_nothing_else_is_waited_for",
    ),
    Mutant(
        "a failed fsync is not made again",
        "saving/on_full.py",
        "        error.needed_bytes is not None or not isinstance(error, DurabilityError)\n",
        "        True\n",
        by="tests/saving/test_attempts.py::test_a_manifest_that_is_there_and_may_not_survive_is_not_made_twice",
    ),
    Mutant(
        "an attempt without room leaves nothing",
        "saving/attempts.py",
        "            if is_full(error):\n",
        "            if False:\n",
        by="tests/saving/test_attempts.py::test_what_was_written_before_the_room_ended_is_removed",
    ),
    Mutant(
        "what a manifest names is not removed",
        "saving/attempts.py",
        "        if committing and writer.holds(save_id):\n",
        "        if False:\n",
        by="tests/saving/test_attempts.py::test_a_manifest_that_is_there_and_may_not_survive_is_not_made_twice",
    ),
    Mutant(
        "each attempt has its own save id",
        "saving/attempts.py",
        "        save_id, begun = uuid7(), Moment.now()\n",
        "        save_id, begun = facts.__dict__.setdefault('id', uuid7()), Moment.now()\n",
        by="tests/saving/test_attempts.py::test_each_attempt_is_a_fresh_save",
    ),
    Mutant(
        "waiting ends at a guard's deadline",
        "saving/on_full.py",
        "                if _left_s() <= 0:\n",
        "                if False and waited_s < 10_000:\n",
        by="tests/saving/test_on_full.py::test_nobody_waits_longer_than_the_impatient",
    ),
    Mutant(
        "a sleep ends at a guard's deadline",
        "saving/on_full.py",
        "    while (rest_s := min(until - time.monotonic(), _left_s())) > 0:\n",
        "    while (rest_s := until - time.monotonic()) > 0:\n",
        by="tests/saving/test_on_full.py::test_nobody_sleeps_longer_than_the_impatient",
    ),
    Mutant(
        "a sleep ends soon after a signal",
        "saving/on_full.py",
        "        time.sleep(min(rest_s, HEED_S))\n",
        "        time.sleep(rest_s)\n",
        by="tests/saving/test_on_full.py::test_whoever_becomes_impatient_while_it_sleeps_is_heeded",
    ),
    Mutant(
        "a service without room is not asked again at once",
        "storage/s3_errors.py",
        "    if isinstance(error, _FOR_GOOD) or is_full(error):\n",
        "    if isinstance(error, _FOR_GOOD):\n",
        by="tests/storage/test_s3_errors.py::test_what_may_pass_and_what_may_have_landed",
    ),
]

SIGNALS = [
    Mutant(
        "a version without a part is passed over",
        "loading/resume.py",
        "        if lacking and wanted.strict:\n",
        "        if False:\n",
        by="tests/test_guard.py::test_resume_passes_over_what_lacks_a_part_unless_told_otherwise",
    ),
    Mutant(
        "a version says what was left out",
        "saving/save.py",
        "            left_out=facts.left_out,\n",
        "",
        by="tests/test_guard.py::test_near_the_deadline_the_optimizer_is_left_out_and_the_version_says_so",
    ),
    Mutant(
        "a save before the signal does not count",
        "guard.py",
        "        if last is None or self._since_s is None or last.at_s <= self._since_s:\n",
        "        if last is None or self._since_s is None:\n",
        by="tests/test_guard.py::test_a_save_before_the_signal_does_not_count",
    ),
    Mutant(
        "a save of another step does not count",
        "guard.py",
        " and (since.epoch, since.step) == here",
        "",
        by="tests/test_guard.py::test_a_save_under_way_when_the_signal_came_counts_for_its_step",
    ),
    Mutant(
        "a save that names no step does not count",
        "guard.py",
        " and here != (None, None)",
        "",
        by="tests/test_guard.py::test_a_save_that_names_no_step_does_not_count",
    ),
    Mutant(
        "a save of less does not count",
        "guard.py",
        " if set(parts) <= {each.name for each in last.head.parts} else None\n",
        "\n",
        by="tests/test_guard.py::test_a_save_of_less_does_not_count",
    ),
    Mutant(
        "a save that waits gives way to a signal",
        "guard.py",
        "        gives_way = self._giving_way and bool(self._came)\n",
        "        gives_way = False\n",
        by="tests/test_guard.py::test_a_save_of_the_trainings_own_that_waits_gives_way_to_a_signal",
    ),
    Mutant(
        "a signal does not hide an error",
        "guard.py",
        "        if error is not None and self._before[number] is signal.SIG_DFL:\n",
        "        if error is not None:\n",
        by="tests/test_guard.py::test_a_signal_is_passed_on_also_where_an_error_leaves_the_block",
    ),
    Mutant(
        "a guard entered again begins anew",
        "guard.py",
        "        self._begin()\n        self._is_installed = True\n",
        "        self._is_installed = True\n",
        by="tests/test_guard.py::test_a_guard_entered_again_knows_nothing_of_what_came_before",
    ),
    Mutant(
        "a loader's worker outlives a signal to the group",
        "guard.py",
        "        if is_starting_loader_worker():\n",
        "        if False:\n",
        by="tests/test_workers.py::test_a_signal_to_the_whole_group_leaves_the_workers_to_the_guard",
    ),
    Mutant(
        "a worker heeds who started it",
        "workers.py",
        "        if came.si_pid == parent or os.getppid() != forked_by:\n",
        "        if os.getppid() != forked_by:\n",
        by="tests/test_workers.py::test_a_worker_heeds_who_started_it_and_nobody_else",
    ),
    Mutant(
        "a worker's own waiting thread is no thread to warn of",
        "workers.py",
        "        if int(status.parent.name) in ours:\n",
        "        if status.parent.name == str(threading.get_native_id()):\n",
        by="tests/test_workers.py::test_threads_that_go_on_taking_signals_are_told_of",
    ),
    Mutant(
        "what is committed is not made again",
        "saving/attempts.py",
        "            if not saved:\n",
        "            if True:\n",
        by="tests/test_guard.py::test_a_version_whose_record_finds_no_room_is_not_made_again",
    ),
    Mutant(
        "handlers are put back",
        "guard.py",
        "                signal.signal(number, handler)\n",
        "                pass\n",
        by="tests/test_guard.py::test_without_a_signal_a_step_does_nothing",
    ),
    Mutant(
        "a signal that nobody acted on is passed on",
        "guard.py",
        "        if self._came and not self._noticed:\n",
        "        if False:\n",
        by="tests/test_guard.py::test_a_signal_that_nobody_acted_on_is_passed_on",
    ),
    Mutant(
        "a forked child can be ended",
        "guard.py",
        "    os.register_at_fork(after_in_child=_leave_guards_to_parent)\n",
        "    pass\n",
        by="tests/test_guard.py::test_a_forked_child_dies_of_its_signals",
    ),
    Mutant(
        "ranks stop at one step",
        "guard.py",
        "        if before is None or not before.result():\n",
        "        if before is None or not (before.result() and self._came):\n",
        by="tests/test_guard_ranks.py::test_all_ranks_stop_at_the_same_step_whoever_is_told",
    ),
    Mutant(
        "other ranks wait for rank 0's save",
        "guard.py",
        "        elif not from_rank_zero(0):\n",
        "        elif from_rank_zero(0) and False:\n",
        by="tests/test_guard_ranks.py::test_if_rank_zero_can_not_save_the_others_say_so",
    ),
]

MUTANTS = [*FULL, *SIGNALS]

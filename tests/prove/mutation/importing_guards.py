"""What keeps files of other tools from running something or taking all there is, piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

UNPICKLING = "tests/importing/test_unpickling.py"

MUTANTS = [
    Mutant(
        "two keys of one name",
        "importing/key_names.py",
        "        if name in named:\n",
        "        if False:\n",
        by="tests/importing/test_key_names.py::test_two_keys_have_no_name_in_common",
    ),
    Mutant(
        "slips of names",
        "importing/key_names.py",
        "    if close is not None:\n",
        "    if False:\n",
        by="tests/importing/test_key_names.py::test_a_slip_is_no_name",
    ),
    Mutant(
        "parts that nobody named are told of",
        "importing/contents.py",
        "    if told and sorting.guessed:\n",
        "    if False:\n",
        by="tests/importing/test_contents.py::"
        "test_what_is_taken_for_a_part_beside_those_that_are_told_is_said",
    ),
    Mutant(
        "one metric with two numbers",
        "importing/contents.py",
        "for each in unlike(numbers_of, before)]\n",
        "for each in ()]\n",
        by="tests/importing/test_contents.py::"
        "test_one_metric_with_two_numbers_is_said_and_both_are_kept",
    ),
    Mutant(
        "names that a pickle may use",
        "importing/unpickling.py",
        "    if wanted:",
        "    if False:",
        by=f"{UNPICKLING}::test_every_name_is_listed",
    ),
    Mutant(
        "tensors that end where their storage does",
        "importing/tensors.py",
        "    if prod(size) and offset + last >= room:",
        "    if False:",
        by="tests/importing/test_tensors.py::test_a_tensor_beyond_its_storage_is_refused",
    ),
    Mutant(
        "arrays as long as their bytes",
        "importing/arrays.py",
        "    if count * dtype.itemsize != len(data) or (not dtype.itemsize and count > 1):",
        "    if False:",
        by="tests/importing/test_arrays.py::"
        "test_arrays_that_are_not_as_long_as_their_bytes_are_refused",
    ),
    Mutant(
        "keys that can be hashed",
        "importing/inert.py",
        "    for key in flat[::2]:\n        check_key(key)",
        "    for key in flat[::2]:\n        str()",
        by="tests/importing/test_building.py::test_hostile_files_are_refused_and_end_nothing",
    ),
    Mutant(
        "names that a pickle works out itself",
        "importing/inert.py",
        '"<computed>" for part in (module, name)',
        '"os" for part in (module, name)',
        by="tests/importing/test_inert.py::test_no_way_to_name_something_goes_unseen",
    ),
    Mutant(
        "an archive no larger than its file",
        "importing/archive.py",
        "elif (total := sum(entry.file_size for entry in entries)) > size:",
        "elif (total := sum(entry.file_size for entry in entries)) > 2**63:",
        by="tests/importing/test_archive.py::test_an_archive_that_claims_more_than_its_file_is_refused",
    ),
    Mutant(
        "archives without compression",
        "importing/archive.py",
        "elif any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):",
        "elif False:",
        by="tests/importing/test_archive.py::test_an_archive_that_torch_never_writes_is_refused",
    ),
    Mutant(
        "a safetensors header within its file",
        "importing/safetensors_file.py",
        "            or not 0 <= ends[0] <= ends[1] <= data",
        "            or False",
        by="tests/importing/test_safetensors_file.py::test_a_tensor_outside_the_data_is_named",
    ),
    Mutant(
        "lists that hold themselves",
        "importing/plain.py",
        "        if self._count > MAX_VALUES or depth > MAX_TREE_DEPTH:",
        "        if depth > MAX_TREE_DEPTH:",
        by="tests/importing/test_plain.py::test_a_list_that_is_far_longer_than_its_file_is_refused",
    ),
    Mutant(
        "tensors no larger than eight times their file",
        "importing/bring.py",
        "    if total > MOST_TIMES * seen.size_bytes + SMALL_BYTES:",
        "    if False:",
        by="tests/importing/test_bring.py::test_a_tensor_that_shows_one_byte_for_ever_is_refused",
    ),
    Mutant(
        "a file that is written to meanwhile",
        "importing/bring.py",
        "    if look(path) != seen.seen:",
        "    if False:",
        by="tests/importing/test_bring.py::"
        "test_a_file_that_is_written_to_meanwhile_is_said_to_be_no_good",
    ),
    Mutant(
        "pieces that lie over each other",
        "importing/dcp.py",
        "            or any(_overlap(one, other) for one, other in combinations(filled, 2))",
        "            or False",
        by="tests/importing/test_dcp.py::test_an_index_that_says_what_can_not_be_is_refused",
    ),
    Mutant(
        "pieces in the folder alone",
        "importing/dcp.py",
        "        if Path(file).name != file or not path.is_file():",
        "        if not path.is_file():",
        by="tests/importing/test_dcp.py::test_an_index_that_says_what_can_not_be_is_refused",
    ),
    Mutant(
        "shards in the folder alone",
        "importing/huggingface.py",
        "        if Path(file).name != file or not (folder / file).is_file():",
        "        if not (folder / file).is_file():",
        by="tests/importing/test_huggingface.py::test_an_index_that_is_wrong_is_refused",
    ),
    Mutant(
        "an environment without credentials",
        "importing/separate.py",
        "        **{name: os.environ[name] for name in KEPT if name in os.environ},",
        "        **os.environ,",
        by="tests/importing/test_separate.py::test_the_environment_has_no_credential",
    ),
    Mutant(
        "a limit of time",
        "importing/separate.py",
        "            if left <= LOOK_S:",
        "            if False:",
        by="tests/importing/test_separate.py::test_one_that_takes_for_ever_is_stopped",
    ),
    Mutant(
        "digests of what was read and of what is recorded",
        "importing/comparing.py",
        "            if before != after",
        "            if False",
        by="tests/importing/test_comparing.py::test_a_tensor_that_was_altered_in_between_is_found",
    ),
    Mutant(
        "plain files alone of what it leaves",
        "importing/separate.py",
        "        elif not stat.S_ISREG(mode):",
        "        elif False:",
        by="tests/importing/test_separate.py::test_links_are_no_plain_files",
    ),
    Mutant(
        "one import of a file",
        "importing/bring.py",
        "            known = None if told.again else target.there(seen.blake3)",
        "            known = None",
        by="tests/importing/test_bring.py::test_a_file_is_imported_once",
    ),
]

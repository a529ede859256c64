"""What makes copies on a local disk as good as the store itself, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

MUTANTS = [
    Mutant(
        "fsync of a copy before its name",
        "storage/copies.py",
        "        durable.sync_file(self._fd, self.temporary)\n",
        "",
        by="tests/storage/test_copies.py::test_a_copy_is_durable_before_it_has_its_name",
    ),
    Mutant(
        "what a copy has wrong is read past it",
        "loading/reader.py",
        "        origin = past_copy(self._storage, key)\n        if origin is not None:\n",
        "        origin = None\n        if origin is not None:\n",
        by="tests/test_store_cache.py::test_every_byte_of_a_copy_may_be_wrong",
    ),
    Mutant(
        "what was read past a copy is compared too",
        "loading/reader.py",
        "        if origin is None or blake3(data).hexdigest() != chunk.digest:",
        "        if origin is None:",
        by="tests/test_store_cache.py::test_what_is_damaged_in_the_store_is_an_error_with_a_cache_too",
    ),
    Mutant(
        "a file's copy that is wrong is read past",
        "loading/files.py",
        "        if found != file.digest and (origin := past_copy(storage, key)) is not None:",
        "        if (origin := None) is not None:",
        by="tests/test_store_cache.py::test_a_damaged_program_is_fetched_again",
    ),
    Mutant(
        "which of two endpoints a copy is of",
        "storage/cached.py",
        "CachedStorage(storage, cache, service_of(storage.url, options or {}))",
        "CachedStorage(storage, cache)",
        by="tests/storage/test_cached.py::test_one_address_on_two_services_has_copies_of_each",
    ),
    Mutant(
        "no credentials in what names a service",
        "storage/service.py",
        '_USER.sub("", ";".join(said))',
        '";".join(said)',
        by="tests/storage/test_service.py::test_an_account_is_told_from_another_and_no_credentials_are_kept",
    ),
    Mutant(
        "whose a file is",
        "storage/private.py",
        "    if stat.S_ISREG(found.st_mode) and _reason(found) is None:",
        "    if stat.S_ISREG(found.st_mode):",
        by="tests/storage/test_private.py::test_what_belongs_to_another_user_is_not_used",
    ),
    Mutant(
        "whose a folder is",
        "storage/private.py",
        "    reason = reason or _reason(found)\n",
        "",
        by="tests/storage/test_private.py::test_what_belongs_to_another_user_is_not_used",
    ),
    Mutant(
        "a link is no copy",
        "storage/private.py",
        'NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)',
        "NO_FOLLOW = 0",
        by="tests/storage/test_copies.py::test_a_copy_that_cannot_be_trusted_is_not_read_and_made_anew",
    ),
    Mutant(
        "a lock on a name that was removed",
        "storage/locks.py",
        "            if _is_named(fd, path):\n",
        "            if path:\n",
        by="tests/storage/test_locks.py::test_a_lock_on_a_name_that_was_removed_meanwhile_is_none",
    ),
    Mutant(
        "what is loaded together stays",
        "storage/copies.py",
        "            if file.lock is None and file.path not in keep:",
        "            if file.lock is None:",
        by="tests/storage/test_copies.py::test_what_is_loaded_together_does_not_make_room_for_each_other",
    ),
    Mutant(
        "a size that a head made up",
        "storage/cached.py",
        "            if self.origin.size_bytes(key) != size_bytes:\n                return None\n",
        "            self.origin.size_bytes(key)\n",
        by="tests/storage/test_cached.py::test_what_has_another_size_than_is_said_makes_no_room_and_no_copy",
    ),
    Mutant(
        "saving asks the store and no copy",
        "opened.py",
        "        self._read_through = cached(self._storage, cache, storage_options)\n",
        "        self._read_through = self._storage = cached(\n"
        "            self._storage, cache, storage_options\n        )\n",
        by="tests/test_store_cache.py::test_saving_and_checking_ask_the_store_itself",
    ),
]

"""What keeps an object durable, whole and unique, taken out piece by piece."""

from __future__ import annotations

from tests.prove.mutation.mutants import Mutant

LOCAL = [
    Mutant(
        "fsync of a file",
        "storage/durable.py",
        "        else:\n            os.fsync(fd)",
        "        else:\n            pass",
        by="tests/prove/lost_writes/test_lost_writes.py::test_a_power_loss_takes_nothing_that_was_saved",
    ),
    Mutant(
        "fsync of a folder",
        "storage/durable.py",
        "    try:\n        os.fsync(fd)\n    except OSError as error:\n        if",
        "    try:\n        pass\n    except OSError as error:\n        if",
        by="tests/storage/test_durable.py::test_a_failed_fsync_of_a_folder_is_an_error",
    ),
    Mutant(
        "failure of a file's fsync",
        "storage/durable.py",
        "            os.fsync(fd)\n    except OSError as error:\n"
        "        raise durability_error(where, error) from error",
        "            os.fsync(fd)\n    except OSError:\n        del where",
        by="tests/storage/test_durable.py::test_a_failed_fsync_of_a_file_is_an_error_and_is_not_tried_again",
    ),
    Mutant(
        "failure of a folder's fsync",
        "storage/durable.py",
        "        if error.errno not in _FOLDERS_NOT_SYNCED:",
        "        if False:",
        by="tests/storage/test_durable.py::test_a_failed_fsync_of_a_folder_is_an_error",
    ),
    Mutant(
        "no second try after a failed fsync",
        "storage/durable.py",
        "            os.fsync(fd)\n    except OSError as error:\n"
        "        raise durability_error(where, error) from error",
        "            os.fsync(fd)\n    except OSError as error:\n        try:\n"
        "            os.fsync(fd)\n        except OSError:\n"
        "            raise durability_error(where, error) from error",
        by="tests/storage/test_durable.py::test_a_failed_fsync_of_a_file_is_an_error_and_is_not_tried_again",
    ),
    Mutant(
        "fsync of a small file before its name",
        "storage/publishing.py",
        "        durable.sync_file(self._fd, self._path)\n",
        "",
        by="tests/storage/test_local.py::test_a_file_is_durable_before_its_name_and_the_name_before_success",
    ),
    Mutant(
        "fsync of a file written in place",
        "storage/publishing.py",
        "        durable.sync_file(fd, path)\n",
        "",
        by="tests/prove/lost_writes/test_lost_writes.py::test_a_power_loss_takes_nothing_that_was_saved",
    ),
    Mutant(
        "fsync of the folder of a new name",
        "storage/local.py",
        "        try:\n            durable.sync_folder(folder)\n        except DurabilityError:",
        "        try:\n            pass\n        except DurabilityError:",
        by="tests/storage/test_local.py::test_a_file_is_durable_before_its_name_and_the_name_before_success",
    ),
    Mutant(
        "fsync of a folder whose last name is in doubt",
        "storage/local.py",
        "            if folder in self._in_doubt:",
        "            if False:",
        by="tests/storage/test_local_guards.py::test_no_name_comes_after_one_in_doubt_before_that_is_sure",
    ),
    Mutant(
        "what can't be synced is in doubt",
        "storage/local.py",
        "            self._in_doubt.add(folder)\n",
        "            pass\n",
        by="tests/storage/test_local_guards.py::test_no_name_comes_after_one_in_doubt_before_that_is_sure",
    ),
    Mutant(
        "fsync of a new folder's own name",
        "storage/local.py",
        "            durable.sync_folder(each.parent, "
        "must_open=each in made or each != self._root)\n",
        "",
        by="tests/storage/test_local.py::test_new_folders_are_made_durable_once",
    ),
    Mutant(
        "fsync of folders that another process made",
        "storage/local.py",
        "sorted(ours - self._synced | set(made))",
        "sorted(set(made))",
        by="tests/storage/test_local.py::test_folders_that_another_process_made_are_made_durable_too",
    ),
    Mutant(
        "fsync of a pack",
        "storage/local_writer.py",
        "                    durable.sync_file(self._fd, self._path)\n",
        "",
        by="tests/storage/test_local_writer.py::test_a_failed_fsync_of_the_file_fails_and_leaves_nothing",
    ),
    Mutant(
        "fsync of a pack's folder",
        "storage/local_writer.py",
        "        durable.sync_folder(self._path.parent)\n",
        "",
        by="tests/storage/test_local_writer.py::test_a_failed_fsync_of_the_folder_fails",
    ),
    Mutant(
        "fsync after a removal",
        "storage/local_tree.py",
        "            durable.sync_folder(folder)\n",
        "            pass\n",
        by="tests/storage/test_local_tree.py::test_each_folder_is_synced_once_after_its_files_are_gone",
    ),
    Mutant(
        "exclusive opening of a new file",
        "storage/durable.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY",
        "os.O_WRONLY | os.O_CREAT | _BINARY",
        by="tests/storage/test_local_writer.py::test_a_name_in_use_is_never_overwritten",
    ),
    Mutant(
        "exclusive linking",
        "storage/durable.py",
        "        os.link(source, target)",
        "        os.replace(source, target)",
        by="tests/storage/test_durable.py::test_a_link_never_replaces",
    ),
    Mutant(
        "exclusive renaming",
        "storage/durable.py",
        "_RENAME_NOREPLACE = 1",
        "_RENAME_NOREPLACE = 0",
        by="tests/storage/test_durable.py::test_renaming_never_replaces",
    ),
    Mutant(
        "a link is ours only if the file has two names",
        "storage/durable.py",
        "        if source.stat().st_nlink > 1:",
        "        if True:",
        by="tests/storage/test_durable.py::test_a_link_never_replaces",
    ),
    Mutant(
        "writing on after a short write",
        "storage/durable.py",
        "    while data:\n        data =",
        "    if data:\n        data =",
        by="tests/storage/test_durable.py::test_everything_is_written_however_little_one_write_takes",
    ),
    Mutant(
        "a pack that failed is given up",
        "storage/local_writer.py",
        "        except BaseException:\n            self._give_up()\n            raise",
        "        except BaseException:\n            raise",
        by="tests/storage/test_local_writer.py::test_a_full_disk_says_so_and_leaves_nothing",
    ),
    Mutant(
        "a listing that fails is no empty folder",
        "storage/local_tree.py",
        "            if _has_nothing(path):",
        "            if True:",
        by="tests/storage/test_local_tree.py::test_a_folder_that_says_it_is_gone_and_is_there_fails_the_walk",
    ),
    Mutant(
        "nothing is deleted behind a link",
        "storage/local_tree.py",
        "            if link := links[folder]:",
        "            if link := None:",
        by="tests/storage/test_local_tree.py::test_nothing_is_deleted_behind_a_link_as_it_may_be_in_use_under_another_name",
    ),
]

REMOTE = [
    Mutant(
        "exclusive creation in memory",
        "storage/exclusive.py",
        "    if filesystem.exists(path):\n        raise FileExistsError(path)\n",
        "",
        by="tests/storage/test_contract.py::test_creating_twice_leaves_the_first",
    ),
    Mutant(
        "condition on Google's storage",
        "storage/exclusive.py",
        'filesystem.pipe_file(path, data, mode="create")',
        "filesystem.pipe_file(path, data)",
        by="tests/storage/test_exclusive.py::test_a_cloud_is_asked_for_its_condition",
    ),
    Mutant(
        "condition on Azure",
        "storage/exclusive.py",
        "filesystem.pipe_file(path, data, overwrite=False)",
        "filesystem.pipe_file(path, data)",
        by="tests/storage/test_exclusive.py::test_a_cloud_is_asked_for_its_condition",
    ),
    Mutant(
        "lock of the memory filesystem",
        "storage/exclusive.py",
        "    return _lock\n",
        "    import contextlib\n\n    return contextlib.nullcontext()\n",
        by="tests/storage/test_exclusive.py::test_only_one_thread_at_a_time_has_its_turn",
    ),
    Mutant(
        "a free lock after a fork",
        "storage/exclusive.py",
        "    os.register_at_fork(after_in_child=_renew_lock)",
        "    pass",
        by="tests/storage/test_exclusive.py::test_a_fork_gets_a_free_lock",
    ),
    Mutant(
        "looking first where nothing is exclusive",
        "storage/remote.py",
        "            if self._filesystem.exists(path):\n"
        "                raise FileExistsError(self.shown(key))\n",
        "",
        by="tests/storage/test_remote.py::test_an_unknown_filesystem_is_not_exclusive_and_works_for_one_writer",
    ),
    Mutant(
        "a fresh listing",
        "storage/remote.py",
        "            self._filesystem.invalidate_cache()\n",
        "",
        by="tests/storage/test_remote.py::test_a_filesystem_that_remembers_its_listings_is_asked_afresh",
    ),
    Mutant(
        "a missing bucket is no empty listing",
        "storage/remote.py",
        "                self._check_container()\n",
        "",
        by="tests/storage/test_remote.py::test_a_missing_bucket_of_a_cloud_is_named",
    ),
    Mutant(
        "length of a range",
        "storage/remote.py",
        "                if len(piece) != end - begin:",
        "                if False:",
        by="tests/storage/test_remote.py::test_a_range_that_comes_short_is_an_error",
    ),
    Mutant(
        "If-None-Match on S3",
        "storage/s3.py",
        'await self._put(key, data, IfNoneMatch="*")',
        "await self._put(key, data)",
        by="tests/storage/test_contract.py::test_creating_twice_leaves_the_first",
    ),
    Mutant(
        "who created what is found after a lost reply",
        "storage/s3.py",
        "ours=landed or s3_errors.was_repeated(error)",
        "ours=s3_errors.was_repeated(error)",
        by="tests/storage/test_s3.py::test_an_object_found_after_a_lost_reply_may_be_ours_and_the_error_says_so",
    ),
    Mutant(
        "who created what is found after the client's own retries",
        "storage/s3.py",
        "ours=landed or s3_errors.was_repeated(error)",
        "ours=landed",
        by="tests/storage/test_s3.py::test_a_412_after_attempts_of_the_client_itself_may_be_ours",
    ),
    Mutant(
        "no trust in a service without conditions",
        "storage/s3.py",
        "                    self.exclusive = False\n",
        "",
        by="tests/storage/test_s3.py::test_a_service_without_conditions_is_not_exclusive",
    ),
    Mutant(
        "looking first on such a service",
        "storage/s3.py",
        "        else:\n            raise self._taken(key, ours=False)\n",
        "",
        by="tests/storage/test_s3.py::test_a_service_without_conditions_is_not_exclusive",
    ),
    Mutant(
        "a listing cut short raises",
        "storage/s3.py",
        '            if not following or following == place.get("ContinuationToken"):\n'
        '                raise s3_errors.cut_short("list", self.shown(key))\n',
        "            if not following:\n"
        "                return Listing(tuple(sorted(folders)), tuple(sorted(files)))\n",
        by="tests/storage/test_s3.py::test_a_listing_cut_short_raises",
    ),
    Mutant(
        "length of a range on S3",
        "storage/s3.py",
        "            if filled < piece.nbytes:",
        "            if False:",
        by="tests/storage/test_contract.py::test_a_range_beyond_the_end_is_an_error",
    ),
    Mutant(
        "a service that ignores ranges",
        "storage/s3.py",
        '            if not str(found).startswith(f"bytes {start}-") and (start or found):',
        "            if False:",
        by="tests/storage/test_s3.py::test_a_service_that_ignores_ranges_is_noticed",
    ),
    Mutant(
        "an upload that vanished",
        "storage/s3_upload.py",
        'if s3_errors.code_of(error) != "NoSuchUpload" or not await self._is_there():',
        'if s3_errors.code_of(error) != "NoSuchUpload":',
        by="tests/storage/test_s3_upload.py::test_an_upload_that_vanished_is_no_success",
    ),
    Mutant(
        "abort of an upload that failed",
        "storage/s3_upload.py",
        "        except BaseException as failure:\n            self._give_up(failure)\n"
        "            raise",
        "        except BaseException:\n            raise",
        by="tests/storage/test_s3_upload.py::test_a_completion_that_fails_for_good_aborts_the_upload",
    ),
    Mutant(
        "search for an upload whose beginning got no answer",
        "storage/s3_upload.py",
        "        unsure = self._id is None or self._creations > 1",
        "        unsure = False",
        by="tests/storage/test_s3_upload.py::test_an_upload_whose_beginning_got_no_answer_is_found_and_aborted",
    ),
    Mutant(
        "bound of the parts in memory",
        "storage/s3_upload.py",
        "        await slots.acquire()\n",
        "        await asyncio.sleep(0)\n",
        by="tests/storage/test_s3_upload.py::test_a_bounded_number_of_parts_is_in_memory",
    ),
]

MUTANTS = [*LOCAL, *REMOTE]

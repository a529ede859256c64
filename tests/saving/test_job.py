"""One save: done once, its memory let go whatever comes, its error noted once."""

from __future__ import annotations

from ckptstore.errors import StorageError
from ckptstore.saving.job import Job


def fail() -> None:
    raise StorageError("no disk")


def test_it_is_done_once_and_its_memory_let_go_once():
    said = []
    job = Job("the save of run 'r'", lambda: said.append("saved"), lambda: said.append("gone"), 7)
    job.do()
    job.do()

    assert said == ["saved", "gone"]
    assert job.size_bytes == 7
    assert job.error is None


def test_one_that_was_made_already_has_its_result():
    assert (Job.done("the save", 5).result, Job.done("the save", 5).is_done) == (5, True)


def test_what_it_fails_with_is_kept_and_its_memory_let_go():
    gone = []
    job = Job("the save of run 'r'", fail, lambda: gone.append(1), 0)
    job.do()

    assert str(job.error) == "no disk"
    assert gone == [1]


def test_memory_that_can_not_be_let_go_is_its_failure_too():
    job = Job("the save of run 'r'", lambda: "r@1", fail, 0)
    job.do()

    assert isinstance(job.error, StorageError)
    assert job.error.__notes__ == [
        "ckptstore: this is of letting go of the copy; saved was 'r@1'",
    ]


def test_its_error_has_one_note_of_ours_however_often_it_is_told():
    job = Job("the save of run 'r'", fail, lambda: None, 0)
    job.do()
    first = job.noted("; this call has not begun")
    assert first is job.error
    error = job.noted()

    assert error is not None
    assert error.__notes__ == [job.told()]
    assert __file__ in job.told()

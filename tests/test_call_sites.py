"""Lines of users' code: these tests are users here."""

from __future__ import annotations

import inspect
import threading
import warnings

from ckptstore.call_sites import asked_for_at, call_site, on_behalf_of, outside
from ckptstore.errors import StateWarning, warn


def test_a_call_site_is_the_line_that_called():
    frame = inspect.currentframe()
    site = call_site()
    assert (site.filename, site.line) == (__file__, frame.f_lineno - 1)
    assert str(site) == f"{__file__}:{site.line}"
    assert site.names is globals()


def test_whoever_is_outside_is_the_innermost_frame_that_is_not_ours():
    level, frame = outside()
    assert frame is inspect.currentframe()
    assert level == 1


def test_another_thread_warns_at_the_line_that_asked_for_its_work():
    site = call_site()
    caught = []

    def work():
        with warnings.catch_warnings(record=True) as found, on_behalf_of(site):
            warnings.simplefilter("always")
            warn("something is left out", StateWarning)
            caught.extend(found)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [(each.filename, each.lineno) for each in caught] == [(site.filename, site.line)]
    globals().pop("__warningregistry__", None)


def test_it_works_for_nobody_else_once_that_is_done():
    site = call_site()
    with on_behalf_of(site):
        assert asked_for_at() is site
    assert asked_for_at() is None

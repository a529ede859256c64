"""The page has every case, and the cases have everything that torch has."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.fidelity import optimizers, schedulers
from tests.fidelity.page import CASES, PAGE, written

ROW = re.compile(r"^\| (?!what |---)(.*?) \| (.*?) \| .* \|$", re.MULTILINE)


def test_the_page_has_a_row_for_each_case_and_no_others():
    assert ROW.findall(PAGE.read_text()) == [
        (case.name, case.option.replace("|", "&#124;")) for case in CASES
    ], "run python -m tests.fidelity"


def test_what_is_written_can_be_read():
    page = written({case.title: ["weights", "losses"] for case in CASES})
    assert len(ROW.findall(page)) == len(CASES) == page.count("| weights, losses |")


def test_every_case_has_a_title_of_its_own():
    titles = [case.title for case in CASES]
    assert sorted(set(titles)) == sorted(titles)


@pytest.mark.parametrize("name", optimizers.found())
def test_every_optimizer_has_a_case_for_each_of_its_options(name):
    options = {case.option for case in optimizers.CASES if case.name == name}
    arguments = inspect.signature(optimizers.found()[name]).parameters.keys() - {"params"}
    assert {re.match(r"\w+(?==)|", option)[0] for option in options} >= arguments


@pytest.mark.parametrize("name", schedulers.found())
def test_every_scheduler_has_a_case(name):
    assert name in {case.name for case in schedulers.CASES}


def test_the_options_are_no_defaults():
    kept = [
        (name, argument)
        for name, kind in optimizers.found().items()
        for argument, parameter in inspect.signature(kind).parameters.items()
        if argument != "params" and optimizers.chosen(name, argument)[argument] == parameter.default
    ]
    assert kept == []

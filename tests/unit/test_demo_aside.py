"""A recipe beside the others: its result, what it tells, how it fails; and what is compiled meanwhile."""

from __future__ import annotations

import os

import pytest

from skyloom.errors import InputError
from skyloom.recipes.demo.aside import Aside
from skyloom.recipes.demo.warm import compile_line_fit, compiling
from skyloom.recipes.result import StageProgress
from tests.inputs.beside import refuse, tell_twice


def test_the_result_and_what_was_told_come_back(tmp_path):
    told = []
    with Aside(tell_twice, tmp_path) as aside:
        result, seconds = aside.result(lambda *item, stage=None: told.append((*item, stage)))
    assert result.directory == tmp_path
    assert int(result.summary) != os.getpid()
    assert seconds >= 0
    assert told == [("a", 1, 2, StageProgress("lines", 0, 3)), ("b", 2, 2, None)]


def test_an_error_comes_back_as_it_is(tmp_path):
    with Aside(refuse, tmp_path) as aside, pytest.raises(InputError, match="is refused") as raised:
        aside.result()
    assert raised.value.source == str(tmp_path)


def test_an_error_here_ends_the_other(tmp_path):
    with pytest.raises(ZeroDivisionError), Aside(tell_twice, tmp_path):
        raise ZeroDivisionError


def test_lines_are_fitted_beside():
    compile_line_fit()
    with compiling():
        pass

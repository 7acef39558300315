"""The weakenings fit the source as it is: one that takes nothing away would prove nothing."""

from __future__ import annotations

import pytest

from tests.mutants.weakenings import SOURCE, WEAKENINGS, Edit, GoneError, Weakening, weakened


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.name)
def test_a_weakening_still_fits_the_source(weakening: Weakening) -> None:
    """And leaves Python behind, so that its tests fail for want of the guard."""
    for edit in weakening.edits:
        text = weakened((SOURCE / edit.file).read_text("utf-8"), edit)
        compile(text, edit.file, "exec", dont_inherit=True)


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.name)
def test_its_tests_are_there(weakening: Weakening) -> None:
    """A test that was renamed is found here and not in an hour's run."""
    for test in weakening.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (SOURCE.parent / file).read_text("utf-8")


@pytest.mark.parametrize("text", ["", "guard guard"], ids=["gone", "twice"])
def test_a_text_that_is_gone_or_ambiguous_is_an_error(text: str) -> None:
    """With the text, so that it is found again."""
    with pytest.raises(GoneError, match=r"(?s)a.py has this text . times.*guard$"):
        weakened(text, Edit("a.py", "guard", ""))

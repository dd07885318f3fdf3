"""`recipes.settings`: what all recipes share."""

from __future__ import annotations

import pytest

from recipes.settings import resumable


def test_a_recipe_that_is_stopped_says_how_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    @resumable
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "\nstopped; the same command goes on from there\n"

"""`sanakit data COMMAND`: sets of pictures to train on, one file per command; `labels` has three."""

from __future__ import annotations

import typer

from sanakit.cli.data.cache import cache
from sanakit.cli.data.check import check
from sanakit.cli.data.labels import caption, filter_set, score
from sanakit.cli.data.toybox import toybox
from sanakit.cli.errors import guarded

__all__ = ["data_app"]

data_app = typer.Typer(name="data", help="Sets of pictures to train on.", no_args_is_help=True)
for _command in (check, caption, score, filter_set, cache, toybox):
    data_app.command(_command.__name__.removesuffix("_set"))(guarded(_command))

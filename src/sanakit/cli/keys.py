"""`sanakit keys add | list | remove`: who may use a server."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.errors import guarded
from sanakit.cli.say import notify, say
from sanakit.cli.serve import DataOption
from sanakit.server.keys import SCOPES, KeyStore
from sanakit.server.settings import data_folder

keys_app = typer.Typer(
    name="keys", help="API keys of a server: who may draw, see and change what.", no_args_is_help=True
)

_NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A name for the key, such as that of its user.", show_default=False),
]


def add(
    name: _NameArgument,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help=f"What it may do: {', '.join(SCOPES)}; may be repeated.",
            show_default="draw",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="RATE", help="Jobs that it may ask for, such as 60/minute.", show_default="the server's"
        ),
    ] = None,
    data: DataOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept.

    draw: draws, and sees what is its own. read: sees everything. admin: both, and changes the jobs of others.
    """
    from sanakit.base.files import ensure_writable_folder

    text, key = KeyStore(ensure_writable_folder(data or data_folder())).add(name, scope or ["draw"], rate)
    notify(f"a key for {key.name} to {', '.join(key.scopes)}; it is not shown again:")
    say(text)


def show(data: DataOption = None, as_json: o.JsonOption = False, debug: o.DebugOption = False) -> None:
    """List the keys of a server: names, scopes, when they were made, and rates."""
    for key in KeyStore(data or data_folder()).all():
        row = {"name": key.name, "id": key.id, "scopes": key.scopes, "created": key.created, "rate": key.rate}
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created))
        words = [key.name, key.id, ",".join(key.scopes), made, key.rate or ""]
        say(json.dumps(row) if as_json else "  ".join(words).rstrip())


def remove(name: _NameArgument, data: DataOption = None, debug: o.DebugOption = False) -> None:
    """Remove a key, by its name or id: a server refuses it from the next request on."""
    key = KeyStore(data or data_folder()).remove(name)
    say(f"removed {key.name}")


for _name, _command in (("add", add), ("list", show), ("remove", remove)):
    keys_app.command(_name)(guarded(_command))

"""From a name to a local path: a shipped model, a folder or file, a published model's short name, a hub id."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from sanakit.base.echo import quoted
from sanakit.base.errors import ModelNotFoundError
from sanakit.base.files import is_file, is_folder, user_path
from sanakit.weights.hub import (
    LORA_NAMES,
    autoencoder_files,
    fetch,
    lora_files,
    lora_name,
    needed_files,
    snapshot_files,
)
from sanakit.weights.published import AUTOENCODERS, PUBLISHED

TOYBOX = "toybox"
_SHIPPED = {
    TOYBOX: ("model", "install sanakit again, or run `make toybox`"),
    "toybox-sprint": ("sprint", "make them with `python -m recipes.toybox_sprint`"),
}
"""Models inside the package: name -> (folder in `toybox`, what to do where its weights are not there)."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONGEST_ID = 200  # the hub allows 96 characters for a name


def resolve(
    name: str | Path,
    *,
    announce: Callable[[str], object] = lambda text: None,
    variant: str | None = None,
    revision: str | None = None,
) -> Path:
    """Find the local path of a name; hub models are downloaded into the hub's own cache.

    announce is called with the sizes and the licence before anything is downloaded (raise in it to refuse).
    variant and revision are the hub's. `HF_HUB_OFFLINE=1` is respected: only what is cached is found then.
    Raises ModelNotFoundError, with similar names, if no model has the name.
    """
    text = str(name)
    if text in _SHIPPED:  # a folder of that name is ./toybox
        return _shipped(text)
    path = user_path(name)
    if text and (is_folder(path) or is_file(path)):  # a local path takes precedence over any hub name
        return path
    if text in PUBLISHED:
        return _from_hub(PUBLISHED[text].repo, announce, variant or PUBLISHED[text].variant, revision)
    if is_hub_id(text):
        return _from_hub(text, announce, variant or _default_variant(text), revision)
    raise ModelNotFoundError(
        f"no model {quoted(text, 200)}: it isn't a folder, a .pth or a hub id; {_near(text)}"
    )


def is_here(name: str | Path) -> bool:
    """Return whether `resolve` finds a model of this name without asking the hub: a shipped one, a folder or a file."""
    path = user_path(name)
    return str(name) in _SHIPPED or (str(name) != "" and (is_folder(path) or is_file(path)))


def resolve_autoencoder(
    name: str | Path,
    *,
    announce: Callable[[str], object] = lambda text: None,
    revision: str | None = None,
) -> Path:
    """Find the folder of an autoencoder, or of a model that has one, by its name.

    A folder, a short name of `published.AUTOENCODERS`, a shipped or published model's, or a hub id. Of a hub's
    repository only the autoencoder is downloaded; announce is called before, as in `resolve`.
    Raises ModelNotFoundError if nothing has the name.
    """
    text = str(name)
    if is_here(name):
        return resolve(name)
    known = AUTOENCODERS.get(text) or PUBLISHED.get(text)
    if known is None and not is_hub_id(text):
        raise ModelNotFoundError(
            f"no autoencoder {quoted(text, 200)}: it isn't a folder, a hub id, a model's name or one of "
            f"{', '.join(AUTOENCODERS)}"
        )
    repo = text if known is None else known.repo
    found, why = fetch(
        repo, announce, revision, lambda sizes: autoencoder_files(repo, sizes),
        index=("vae/config.json", "config.json"),
    )  # fmt: skip
    if found is None:
        raise ModelNotFoundError(f"no autoencoder {text!r}: no such folder, and {why}")
    return found


def resolve_snapshot(
    name: str | Path,
    *,
    announce: Callable[[str], object] = lambda text: None,
    revision: str | None = None,
) -> Path:
    """Find the folder of a model that `transformers` loads; hub models are downloaded into the hub's own cache.

    announce is called with the size before anything is downloaded (raise in it to refuse).
    Raises ModelNotFoundError for a folder without a config.json, an unknown name, and if the hub refuses.
    """
    text = str(name)
    path = user_path(name)
    if text and is_folder(path):
        if not (path / "config.json").is_file():
            raise ModelNotFoundError(f"{path} holds no config.json: give the folder of a transformers model")
        return path
    if not is_hub_id(text):
        raise ModelNotFoundError(
            f"no model {quoted(text, 200)}: it isn't a folder or a hub id (such as openai/clip-vit-base-patch32)"
        )
    found, why = fetch(
        text, announce, revision, lambda sizes: snapshot_files(text, sizes), index="config.json"
    )
    if found is None:
        raise ModelNotFoundError(f"no model {text!r}: no such folder, and {why}")
    return found


def resolve_lora(
    name: str | Path, *, announce: Callable[[str], object] = lambda text: None, revision: str | None = None
) -> Path:
    """Find the file of a LoRA: a file, a folder with one, a hub id, or `owner/name/file.safetensors` of a repository.

    Of a folder or repository the file that diffusers writes is taken, else peft's, else the only safetensors file.
    announce is called with the size before anything is downloaded (raise in it to refuse).
    Raises ModelNotFoundError, one sentence, if nothing has the name.
    """
    text = str(name)
    path = user_path(name)
    if text and is_file(path):
        return path
    if text and is_folder(path):
        inside = [each.name for each in path.iterdir() if each.is_file() and not each.name.startswith(".")]
        return path / lora_name(inside, str(path))
    parts = text.split("/", 2)
    repo, wanted = "/".join(parts[:2]), "".join(parts[2:])
    if not is_hub_id(repo):
        raise ModelNotFoundError(f"no LoRA {quoted(text, 200)}: it isn't a file, a folder or a hub id")
    found, why = fetch(
        repo,
        announce,
        revision,
        lambda sizes: lora_files(repo, sizes, wanted),
        index=(wanted,) if wanted else LORA_NAMES,
    )
    if found is None:
        raise ModelNotFoundError(f"no LoRA {quoted(text, 200)}: no such file or folder, and {why}")
    if not wanted:
        return found / lora_name([each.name for each in found.iterdir()], repo)
    # From the cache alone comes the folder of the file itself.
    return found / wanted if is_file(found / wanted) else found / Path(wanted).name


def is_hub_id(text: str) -> bool:
    """Return whether a name has the form of a hub id, `owner/name`."""
    return len(text) <= _LONGEST_ID and _HUB_ID.fullmatch(text) is not None


def _near(text: str) -> str:
    text = text[:200]
    known = [*_SHIPPED, *PUBLISHED, *(entry.repo for entry in PUBLISHED.values())]
    close = get_close_matches(text, known, n=3, cutoff=0.4)
    return (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"known names are {', '.join([*_SHIPPED, *PUBLISHED])}"
    )


def _default_variant(repo: str) -> str | None:
    return next((entry.variant for entry in PUBLISHED.values() if entry.repo == repo), None)


def _shipped(name: str) -> Path:
    """Return the folder inside the package, found without importing the code of Toybox."""
    place, remedy = _SHIPPED[name]
    folder = Path(str(resources.files("sanakit"))) / "toybox" / place
    if not (folder / "model_index.json").is_file():
        raise ModelNotFoundError(f"{folder} lacks the weights of {name}: {remedy}")
    return folder


def _from_hub(
    repo: str, announce: Callable[[str], object], variant: str | None, revision: str | None
) -> Path:
    found, why = fetch(
        repo, announce, revision, lambda sizes: needed_files(repo, sizes, variant), index="model_index.json"
    )
    if found is None:
        raise ModelNotFoundError(f"no model {repo!r}: no such folder, and {why}; {_near(repo)}")
    return found

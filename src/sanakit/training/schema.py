"""From what a user writes to a typed config: YAML, Python recipes and `--set key=value`, checked key by key.

A key that does not exist is an error that names the nearest one; so is a value of another type. Nothing is loaded.
A name that another trainer uses for a key (diffusers' scripts, kohya's sd-scripts, accelerate, Lightning, the SANA
repository), or that was renamed here, is answered with the name it has here. None is accepted in place of a key: a
value that means something else must not pass.
"""

from __future__ import annotations

import difflib
import re
import runpy
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sanakit.base.bounds import check_value
from sanakit.base.echo import printable, quoted
from sanakit.base.errors import ConfigError
from sanakit.training.config import TrainConfig, plain_values
from sanakit.training.yaml_text import library, parse_yaml, read_yaml
from sanakit.transformer import TransformerConfig

T = TypeVar("T")
_LONGEST_SHOWN = 100


def read_config(source: Path, changes: Iterable[str] = ()) -> TrainConfig:
    """Read the config of a YAML file, or of a Python recipe's `config()`, with `key=value` changes.

    Raises ConfigError if something can't be read, is unknown, missing, or of another type.
    """
    values = _from_recipe(source) if source.suffix == ".py" else _from_yaml(source)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {_cut(change)}: write it as key=value, e.g. --set optimizer.lr=1e-4")
        if isinstance(values.get("base"), str):
            values["base"] = {"model": values["base"]}  # so that base.autoencoder can be set beside it
        put(values, key.strip(), parse_yaml(text, f"--set {_cut(change)}"))
    config = build(TrainConfig, values)
    changed = typed_values(TransformerConfig, config.model.changes, "model.changes.")
    return replace(config, model=replace(config.model, changes=changed))


def build(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Return a config of this class from nested mappings. Raises ConfigError, naming the key."""
    typed = typed_values(kind, values, where)
    config: Any = kind  # a dataclass
    needed = (f for f in fields(config) if f.init and f.default is MISSING and f.default_factory is MISSING)
    missing = [field.name for field in needed if field.name not in values]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing")
    return kind(**typed)


def typed_values(kind: type, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return fields of a config class, each of the type that the class wants. Raises ConfigError, naming the key."""
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.init]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown key {where}{printable(name, 80)}{_nearest(str(name), known)}")
    bounded = get_type_hints(kind, include_extras=True)
    for name, value in values.items():
        if value == "":  # a path would read it as the folder one is in
            check_value(bounded[name], value, where + name)
    made = {name: _convert(hints[name], value, where + name) for name, value in values.items()}
    for name, value in made.items():
        check_value(bounded[name], value, where + name)
    return made


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b` or `a[0].b` in nested mappings and lists. Raises ConfigError for an entry that is not there."""
    *path, last = key.replace("[", ".").replace("]", "").split(".")
    node: Any = values
    for name in path:
        listed = isinstance(node, list)
        node = node[_index(node, name, key)] if listed else node.setdefault(name, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"--set {_cut(key)}: {_cut(name)} is {quoted(node)}, which holds no keys")
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    else:
        node[last] = value


def to_yaml(config: TrainConfig) -> str:
    """Return the config as a YAML file that `read_config` reads."""
    return str(
        library("yaml").safe_dump(
            plain_values(asdict(config)), sort_keys=False, allow_unicode=True, width=110
        )
    )


def _index(node: list[Any], name: str, key: str) -> int:
    if name not in map(str, range(len(node))):
        raise ConfigError(
            f"--set {_cut(key)}: there are {len(node)} entries, numbered from 0; {_cut(name)} is none of them"
        )
    return int(name)


def _cut(text: str) -> str:
    return printable(text, _LONGEST_SHOWN)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Return a value as its field wants it: nested configs by `build`, the rest by pydantic."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, str) and str in options:  # a name that stands for a group, as `base: toybox`
        return value
    for option in options:
        if is_dataclass(option) and isinstance(option, type):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where} is {quoted(value)}; {_holds(option, value, where)}")
            return build(option, value, f"{where}.")
    item = get_args(hint)[0] if get_origin(hint) is tuple else None
    if is_dataclass(item) and isinstance(item, type):
        if not isinstance(value, list | tuple) or not all(isinstance(each, Mapping) for each in value):
            raise ConfigError(f"{where} is a list of mappings, e.g. [{{{fields(item)[0].name}: ...}}]")
        return tuple(build(item, each, f"{where}[{number}].") for number, each in enumerate(value))
    return _leaf(hint, value, where)


def _leaf(hint: Any, value: Any, where: str) -> Any:
    pydantic = library("pydantic")
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, bool) and not _takes_bool(hint):  # pydantic would read true as 1
            raise ConfigError(f"{where} is {str(each).lower()}; it isn't a switch")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{where} holds a NUL character")
    try:
        # YAML reads 1e-4 as text; pydantic reads such text as the number that is meant.
        return pydantic.TypeAdapter(hint).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{where} is {quoted(value)}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        ) from None


def _takes_bool(hint: Any) -> bool:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return bool in options or Any in options or any(get_origin(option) is dict for option in options)


def _holds(kind: type, value: Any, where: str) -> str:
    """Return the phrase that says what to write in place of a single value for a group of keys."""
    hints = get_type_hints(kind)
    for name, hint in hints.items():
        if get_origin(hint) is Literal and value in get_args(hint):
            return f"write {where}.{name}={value}"
    first = next((name for name, hint in hints.items() if get_origin(hint) is Literal), None)
    choices = "" if first is None else f", e.g. {where}.{first}={get_args(hints[first])[0]}"
    return f"it is a group of keys: {', '.join(f'{where}.{name}' for name in hints)}{choices}"


def _from_yaml(source: Path) -> dict[str, Any]:
    found = read_yaml(source)
    if not isinstance(found, dict):
        raise ConfigError(f"the config {source} holds no keys")
    return found


def _from_recipe(source: Path) -> dict[str, Any]:
    if not source.is_file():
        raise ConfigError(f"the recipe {source} can't be read: there is no such file")
    config = runpy.run_path(str(source)).get("config")
    made = config() if callable(config) else config
    if not isinstance(made, TrainConfig):
        raise ConfigError(f"the recipe {source} must define config() -> sanakit.training.TrainConfig")
    values: dict[str, Any] = plain_values(asdict(made))
    return values


def _nearest(name: str, known: Iterable[str]) -> str:
    elsewhere = other_name(name)
    if elsewhere is not None:
        return elsewhere
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return (
        f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)} (sanakit train --keys)"
    )


ALIASES: dict[str, str] = {
    "learning_rate": "optimizer.lr", "lr": "optimizer.lr", "unet_lr": "optimizer.lr", "base_lr": "optimizer.lr",
    "optimizer_type": "optimizer.name", "optim": "optimizer.name", "use_8bit_adam": "optimizer.name=came-8bit",
    "weight_decay": "optimizer.weight_decay",
    "adam_weight_decay": "optimizer.weight_decay", "wd": "optimizer.weight_decay",
    "betas": "optimizer.betas", "adam_beta1": "optimizer.betas", "adam_beta2": "optimizer.betas",
    "eps": "optimizer.eps", "adam_epsilon": "optimizer.eps",
    "train_batch_size": "batch", "batch_size": "batch", "per_device_train_batch_size": "batch", "bs": "batch",
    "global_batch_size": "batch",
    "gradient_accumulation_steps": "accumulate", "accumulate_grad_batches": "accumulate", "grad_accum": "accumulate",
    "gradient_accumulation": "accumulate",
    "max_train_steps": "phases[0].steps", "max_steps": "phases[0].steps", "total_steps": "phases[0].steps",
    "num_steps": "phases[0].steps", "steps": "phases[0].steps", "iterations": "phases[0].steps",
    "num_epochs": "phases[0].steps", "num_train_epochs": "phases[0].steps", "max_train_epochs": "phases[0].steps",
    "epochs": "phases[0].steps", "epoch": "phases[0].steps", "max_epochs": "phases[0].steps",
    "resolution": "phases[0].size", "image_size": "phases[0].size", "img_size": "phases[0].size",
    "size": "phases[0].size", "width": "phases[0].size", "height": "phases[0].size",
    "flow_shift": "phases[0].shift", "shift": "phases[0].shift", "discrete_flow_shift": "phases[0].shift",
    "output_dir": "folder", "work_dir": "folder", "logging_dir": "folder", "save_dir": "folder", "output": "folder",
    "output_name": "folder",
    "pretrained_model_name_or_path": "base", "model_name": "base", "pretrained_model": "base", "load_from": "base",
    "checkpoint": "base", "base_model": "base",
    "mixed_precision": "dtype", "precision": "dtype", "fp16": "dtype", "bf16": "dtype", "weight_dtype": "dtype",
    "gradient_checkpointing": "recompute", "grad_checkpointing": "recompute", "activation_checkpointing": "recompute",
    "max_grad_norm": "clip", "gradient_clip": "clip", "gradient_clip_val": "clip", "grad_clip": "clip",
    "clip_grad_norm": "clip", "clip_norm": "clip",
    "ema_decay": "ema", "ema_rate": "ema", "use_ema": "ema",
    "train_data_dir": "data.path", "dataset": "data.path", "dataset_name": "data.path", "data_dir": "data.path",
    "instance_data_dir": "data.path", "train_dir": "data.path", "image_dir": "data.path", "path": "data.path",
    "cache_dir": "data.cache", "cache_latents": "data.cache", "cache_latents_to_disk": "data.cache",
    "center_crop": "data.square", "enable_bucket": "data.square", "crop": "data.square",
    "dataloader_num_workers": "data.workers", "num_workers": "data.workers", "workers": "data.workers",
    "max_data_loader_n_workers": "data.workers",
    "validation_split": "data.held", "val_split": "data.held",
    "num_validation_images": "data.held", "held": "data.held",
    "caption_dropout_rate": "data.captions.dropout", "proportion_empty_prompts": "data.captions.dropout",
    "class_dropout_prob": "data.captions.dropout",
    "uncond_prob": "data.captions.dropout", "dropout": "data.captions.dropout",
    "lr_warmup_steps": "schedule.warmup", "warmup_steps": "schedule.warmup", "num_warmup_steps": "schedule.warmup",
    "warmup": "schedule.warmup", "warmup_ratio": "schedule.warmup",
    "cooldown": "schedule.cooldown", "lr_decay_steps": "schedule.cooldown", "lr_scheduler": "schedule.cooldown",
    "lr_scheduler_type": "schedule.cooldown", "auto_lr": "schedule.rule", "scale_lr": "schedule.rule",
    "weighting_scheme": "times.density.name", "density": "times.density.name",
    "timestep_sampling": "times.density.name", "logit_mean": "times.density.mean", "logit_std": "times.density.std",
    "mode_scale": "times.density.scale", "loss_weighting": "times.weighting", "weighting": "times.weighting",
    "checkpointing_steps": "saving.steps", "save_steps": "saving.steps", "save_every_n_steps": "saving.steps",
    "save_model_steps": "saving.steps", "save_every": "saving.steps",
    "checkpoints_total_limit": "saving.keep", "save_total_limit": "saving.keep", "save_last_n_steps": "saving.keep",
    "validation_prompt": "preview.prompts", "validation_prompts": "preview.prompts",
    "sample_prompts": "preview.prompts",
    "prompts": "preview.prompts", "sample_every_n_steps": "preview.every", "sample_every": "preview.every",
    "visualize": "preview.every", "sample_steps": "preview.steps", "guidance_scale": "preview.guidance",
    "cfg_scale": "preview.guidance", "validation_steps": "validate", "eval_steps": "validate", "val_every": "validate",
    "validation_epochs": "validate", "eval_every": "validate",
    "log_interval": "report", "logging_steps": "report", "log_every": "report", "log_every_n_steps": "report",
    "report_to": "tracker", "log_with": "tracker", "logger": "tracker", "wandb": "tracker",
    "random_seed": "seed", "manual_seed": "seed", "torch_compile": "compile", "use_compile": "compile",
    "distributed_type": "parallel", "use_fsdp": "parallel", "fsdp": "parallel", "strategy": "parallel",
    "network_dim": "lora.rank", "lora_rank": "lora.rank", "rank": "lora.rank", "lora_r": "lora.rank",
    "network_alpha": "lora.alpha", "lora_alpha": "lora.alpha", "alpha": "lora.alpha",
    "lora_dropout": "lora.dropout", "network_dropout": "lora.dropout", "target_modules": "lora.targets",
    "lora_layers": "lora.targets", "use_dora": "lora.dora", "use_rslora": "lora.rslora",
    "init_lora_weights": "lora.init", "instance_prompt": "lora.prompt", "class_prompt": "lora.prior.prompts",
    "class_data_dir": "lora.prior.path", "num_class_images": "lora.prior.count",
    "prior_loss_weight": "lora.prior.weight", "with_prior_preservation": "lora.prior.weight",
    "resume_from_checkpoint": "", "resume": "", "device": "",
}  # fmt: skip
"""The other name -> the key; "" if it is an option of the command."""

_NOTES = {
    "phases[0].steps": "a run is counted in steps of `batch` pictures",
    "recompute": "1 computes the activations of every block again, 0 keeps all",
    "schedule.cooldown": "the share of the run over which the rate falls to 0",
    "schedule.rule": "how the rate follows the batch",
}


def other_name(key: str) -> str | None:
    """Return the key behind another trainer's name, as the end of a sentence; None for a name that nobody uses."""
    plain = re.sub(r"\W", "_", key.lower())
    if plain not in ALIASES:
        return None
    here = ALIASES[plain]
    if not here:
        return f"; that is an option of the command: --{'device' if plain == 'device' else 'resume'}"
    note = f" ({_NOTES[here]})" if here in _NOTES else ""
    return f"; here it is {here}{note}"

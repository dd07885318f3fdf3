"""The configuration of peft inside a LoRA file, as the few numbers that change what is drawn, both ways.

diffusers keeps it as JSON in the header (`lora_adapter_metadata`, names prefixed by `transformer.`); peft beside the
weights as adapter_config.json. A newer peft adds fields; they are skipped, and a note names them.
Source: `LoraConfig` of peft 0.21.2.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import WeightsError
from sanakit.base.json_text import parse_json
from sanakit.weights.rules import listed

METADATA = "lora_adapter_metadata"
_PREFIX = "transformer."
_MOST = 1e6  # of an alpha or a rank

# Other settings of training, or of how peft computes the same.
_HARMLESS = frozenset((
    "peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
    "target_modules", "exclude_modules", "lora_dropout", "init_lora_weights", "loftq_config", "eva_config",
    "corda_config", "runtime_config", "ephemeral_gpu_offload", "megatron_core", "qalora_group_size", "r", "lora_alpha",
    "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_ga_config", "monteclora_config", "layers_pattern",
    "ensure_weight_tying",
))  # fmt: skip
# Fields that change the result -> the values at which they don't.
_EXACT: dict[str, tuple[object, ...]] = {
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None,),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "arrow_config": (None,),
    "velora_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "megatron_config": (None,),
}


@dataclass(frozen=True, kw_only=True)
class PeftConfig:
    """Ranks and alphas. Patterns name layers, by their whole name or its end; they overrule `rank` and `alpha`."""

    rank: float = 8
    alpha: float = 8
    alphas: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False
    base: str = ""
    notes: tuple[str, ...] = ()

    def scale(self, layer: str, rank: int) -> float:
        """Return the factor of a layer of this rank, by the layer's name in diffusers."""
        named = [value for name, value in self.alphas.items() if layer == name or layer.endswith(f".{name}")]
        alpha = named[0] if named else self.alpha
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def read_config(text: str | bytes, where: str) -> PeftConfig:
    """Read the JSON of a configuration. Raises WeightsError for what changes pictures and isn't computed here."""
    try:
        data = parse_json(text)
    except ValueError:
        raise WeightsError(f"{where}: its {METADATA} are not JSON") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{where}: its {METADATA} are not a JSON object")
    fields = {name.removeprefix(_PREFIX): value for name, value in data.items()}
    for name, harmless in _EXACT.items():
        if fields.get(name) not in harmless and name in fields:
            raise WeightsError(f"{where} was made with {name} {quoted(fields[name])}, which is not read here")
    unknown = [
        name for name, value in fields.items() if value and name not in _HARMLESS and name not in _EXACT
    ]  # one that is null, false or empty asks for nothing
    notes = (
        (f"{where}: {listed(unknown)} of its {METADATA} not known here, and passed over.",) if unknown else ()
    )
    for name in ("use_rslora", "use_dora"):
        if fields.get(name) not in (None, True, False):
            raise WeightsError(
                f"{where}: {name} of its {METADATA} is {quoted(fields[name])}, not true or false"
            )
    return PeftConfig(
        rank=_number(fields, "r", where),
        alpha=_number(fields, "lora_alpha", where),
        alphas=_pattern(fields.get("alpha_pattern"), where),
        rslora=fields.get("use_rslora") is True,
        base=base if isinstance(base := fields.get("base_model_name_or_path"), str) else "",
        notes=notes,
    )


def _number(fields: Mapping[str, Any], name: str, where: str) -> float:
    return _checked(fields.get(name, 8), name, where)


def _checked(value: object, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST:
        raise WeightsError(f"{where}: {name} of its {METADATA} is {quoted(value)}, not a number above 0")
    return float(value)


def _pattern(value: object, where: str) -> dict[str, float]:
    """`alpha_pattern`; peft takes any regular expression, files hold names with or without `^`, `$` and escapes."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WeightsError(f"{where}: alpha_pattern of its {METADATA} isn't an object")
    found = {}
    for key, alpha in value.items():
        name = re.sub(r"\\(.)", r"\1", key.removeprefix("^").removesuffix("$"))
        if not re.fullmatch(r"[\w.]+", name):
            raise WeightsError(
                f"{where}: alpha_pattern has {quoted(key)}, and only names of layers are read here"
            )
        found[name.removeprefix(_PREFIX)] = _checked(alpha, "alpha_pattern", where)
    return found


def write_config(
    ranks: Mapping[str, int], alphas: Mapping[str, float], dora: bool, base: str = ""
) -> dict[str, Any]:
    """Return the fields of a configuration for layers by their names in diffusers, prefixed as diffusers expects them.

    base: the model that was adapted; "" for no word about it.
    """
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    fields: dict[str, Any] = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(ranks),
        "use_dora": dora,
        "use_rslora": False,
        "lora_bias": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
    } | ({"base_model_name_or_path": base} if base else {})
    return {f"{_PREFIX}{name}": value for name, value in fields.items()}

"""Every field of every configuration file at hostile values: read, planned, or refused in one sentence, and at once."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sanakit.base.errors import ConfigError, InputError
from sanakit.base.precision import decide
from sanakit.pipeline import ImageRequest, Model
from sanakit.text import BOOKKEEPING, FIELDS
from sanakit.weights import read_model_spec
from sanakit.weights.formats import (
    diffusers_autoencoder,
    diffusers_scheduler,
    diffusers_transformer,
    gemma,
)
from tests.oracles.tiny import Recipe, write_tiny

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 1000, 2**31, 10**30, -0.5, 0.3, 1e-9, 1e308, math.inf, -math.inf, math.nan, "", "x",
    "ResBlock", "\x1b]0;x\x07", "a" * 10**5, [], [0], [[]], [1, 2], [1000] * 6, [[5]] * 6, {}, {"a": 1}, "\udcff",
    [None] * 6, [[[[[]]]]], ["Gemma2Model"],
)  # fmt: skip
PARSERS = {
    "transformer/config.json": (diffusers_transformer.from_config, list(diffusers_transformer.DEFAULTS)),
    "vae/config.json": (diffusers_autoencoder.from_config, list(diffusers_autoencoder.DEFAULTS)),
    "scheduler/scheduler_config.json": (
        diffusers_scheduler.from_config,
        [
            *diffusers_scheduler.to_config(diffusers_scheduler.Schedule()),
            *diffusers_scheduler.to_config(diffusers_scheduler.Schedule(kind="euler")),
        ],
    ),
    "text_encoder/config.json": (gemma.from_config, sorted({*FIELDS, *BOOKKEEPING})),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("hostile"), Recipe(width=8, depth=1, qk_norm=True))


def one_sentence(error: BaseException) -> None:
    text = str(error)
    assert text and "\n" not in text and "\x1b" not in text and len(text) < 1500


@pytest.mark.filterwarnings("ignore:.*passed over")
@pytest.mark.parametrize("file", PARSERS)
def test_every_field_at_every_value(tiny: Path, file: str) -> None:
    parse, fields = PARSERS[file]
    data = json.loads((tiny / file).read_text())
    refused = 0
    for field in [*dict.fromkeys(fields), "surplus"]:
        for value in HOSTILE:
            try:
                parse({**data, field: value}, file)
            except ConfigError as error:
                one_sentence(error)
                refused += 1
    assert refused > len(fields)


@pytest.fixture(scope="module")
def copy(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "copy"
    shutil.copytree(tiny, folder)
    return folder


FILES = [*PARSERS, "model_index.json"]
KNOWN = {**{file: fields for file, (_, fields) in PARSERS.items()}, "model_index.json": ["vae", "surplus"]}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_read_can_be_planned(copy: Path, data: st.DataObject) -> None:
    """Up to what `generate` and `doctor` do before weights are opened."""
    file = data.draw(st.sampled_from(FILES))
    path = copy / file
    before = path.read_text()
    content = json.loads(before)
    for field in data.draw(st.lists(st.sampled_from([*KNOWN[file], *content]), min_size=1, max_size=2)):
        content[field] = data.draw(st.sampled_from(HOSTILE) | st.integers(-2, 300) | st.floats())
    path.write_text(json.dumps(content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = Model(read_model_spec(copy), decide("cpu", "fp32"))
        next(model.generate(ImageRequest(prompt="a cube")))
    except InputError as error:
        one_sentence(error)
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("transformer/config.json", {"mlp_ratio": 1e-9}, "makes 0 channels"),
        ("transformer/config.json", {"norm_eps": 1e9}, "at most 1"),
        ("transformer/config.json", {"sample_size": 10**6}, "from 1 to 512"),
        ("vae/config.json", {"decoder_layers_per_block": [1000] * 6}, "from 0 to 200"),
        ("vae/config.json", {"decoder_layers_per_block": [100] * 6}, "at most 200 layers"),
        ("vae/config.json", {"scaling_factor": 1e300}, "at most 10000"),
        ("scheduler/scheduler_config.json", {"flow_shift": 1e300}, "at most 1000"),
        ("scheduler/scheduler_config.json", {"lower_order_final": "yes"}, "true or false"),
        ("scheduler/scheduler_config.json", {"beta_start": "x"}, "must be a number"),
        ("text_encoder/config.json", {"hidden_size": None}, "hidden_size"),
        ("text_encoder/config.json", {"num_attention_heads": "8"}, "num_attention_heads"),
        ("text_encoder/config.json", {"num_hidden_layers": 1000}, "from 1 to 200"),
        ("text_encoder/config.json", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type default"),
        ("text_encoder/config.json", {"layer_types": ["full_attention"]}, "each layer"),
        ("model_index.json", {"vae": "AutoencoderDC"}, "a library and a class"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bounds(copy: Path, file: str, changes: dict[str, Any], words: str) -> None:
    path = copy / file
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | changes))
    try:
        with pytest.raises(ConfigError, match=words) as caught:
            read_model_spec(copy)
    finally:
        path.write_text(before)
    assert file in str(caught.value)


def test_a_missing_field_of_the_text_encoder_is_told_before_the_plan(copy: Path) -> None:
    path = copy / "text_encoder/config.json"
    before = path.read_text()
    for field in ("vocab_size", "head_dim", "num_key_value_heads", "intermediate_size"):
        path.write_text(json.dumps({k: v for k, v in json.loads(before).items() if k != field}))
        with pytest.raises(ConfigError, match=f"text_encoder/config.json: .*{field}"):
            read_model_spec(copy)
    path.write_text(before)


def test_a_thousand_layers_are_planned_without_building_them(copy: Path) -> None:
    from sanakit.pipeline import Shapes, estimate

    path = copy / "transformer/config.json"
    before = path.read_text()
    found = {}
    for depth in (1, 2, 1000):
        path.write_text(json.dumps(json.loads(before) | {"num_layers": depth}))
        model = read_model_spec(copy)
        shapes = Shapes(transformer=model.transformer, autoencoder=model.autoencoder, text=model.text_config)
        found[depth] = estimate(shapes, 64, 64, decide("cpu", "fp32").dtype)[1].parameters
    path.write_text(before)
    assert found[1000] == found[1] + 999 * (found[2] - found[1])


def test_deep_and_odd_files(tmp_path: Path) -> None:
    from sanakit.weights.formats.fields import read_json

    path = tmp_path / "a.json"
    for depth in (65, 500, 990, 10**5):
        path.write_text('{"a":' * depth + "1" + "}" * depth)
        with pytest.raises(ConfigError, match=r"nested more than 64 deep|not valid JSON"):
            read_json(path)
    path.write_text("\ufeff" + '{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_text('{"a": ' + "9" * 5000 + "}")
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_json(path)

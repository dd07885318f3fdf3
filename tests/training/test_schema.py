"""What a user writes becomes a typed config, or one sentence that names the key and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sanakit.base import ConfigError
from sanakit.training.schema import put, read_config, to_yaml

GOOD = """
folder: run
phases: [{steps: 10, size: 512}, {steps: 5, size: 1024, shift: 4}]
data: {path: pictures, captions: {kind: softmax, dropout: 0.2}}
optimizer: {name: came, lr: 1e-4, betas: [0.9, 0.999, 0.9999]}
"""


def write(tmp_path: Path, text: str, name: str = "c.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_yaml_becomes_a_typed_config_and_comes_back(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, GOOD))
    assert (config.optimizer.lr, config.optimizer.betas) == (1e-4, (0.9, 0.999, 0.9999))
    assert (config.phases[1].shift, config.steps) == (4.0, 15)
    assert (config.data.path, config.data.captions.dropout) == (Path("pictures"), 0.2)
    assert read_config(write(tmp_path, to_yaml(config), "again.yaml")) == config


def test_values_are_changed_by_key(tmp_path: Path) -> None:
    sets = [
        "optimizer.lr=2e-4", "phases[1].steps=7", "model.changes={depth: 4}", "data.held=3", "parallel=null",
    ]  # fmt: skip
    config = read_config(write(tmp_path, GOOD), sets)
    assert (config.optimizer.lr, config.phases[1].steps, config.data.held) == (2e-4, 7, 3)
    assert (config.model.changes, config.parallel) == ({"depth": 4}, None)


def test_a_recipe_is_a_function_that_returns_a_config(tmp_path: Path) -> None:
    text = """
from pathlib import Path
from sanakit.training import DataConfig, RunPhase, TrainConfig
def config():
    return TrainConfig(folder=Path("r"), phases=(RunPhase(steps=3, size=64),), data=DataConfig(path=Path("p")))
"""
    assert read_config(write(tmp_path, text, "r.py"), ["batch=8"]).batch == 8
    with pytest.raises(ConfigError, match=r"must define config\(\)"):
        read_config(write(tmp_path, "x = 1", "other.py"))
    with pytest.raises(ConfigError, match="there is no such file"):
        read_config(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimiser.lr=1", "unknown key optimiser; did you mean optimizer?"),
        ("optimizer.rate=1", "unknown key optimizer.rate"),
        ("phases[0].step=1", r"unknown key phases\[0\].step; did you mean steps?"),
        ("batch=many", "batch is 'many': input should be a valid integer"),
        ("batch=1.5", "batch is 1.5: input should be a valid integer"),
        (
            "task=video",
            "task is 'video': input should be 'transformer', 'lora', 'control', 'teacher', 'sprint' or 'autoencoder'",
        ),
        ("phases=[]", "phases: a run needs at least one"),
        ("phases=[3]", "phases is a list of mappings"),
        ("phases[2].size=64", "there are 2 entries, numbered from 0; 2 is none of them"),
        ("batch.size=4", "batch is 4, which holds no keys"),
        (
            "phases[0].size=500",
            r"phases\[0\].size must be a multiple of 32, and 500 is not: 512 is the nearest",
        ),
        ("accumulate=3", "batch 64 does not divide into 3 micro-batches"),
        ("validate=10", "set data.held"),
        ("data.captions.kind=best", "unknown caption rule 'best'|input should be"),
        ("optimizer.name=sgd", "input should be|is unknown"),
        ("batch", "write it as key=value"),
        ("batch=[", "--set batch=\\["),
        ("batch=1" + "0" * 5000, "--set batch=1000.* is not YAML, line 1: !!int '1000.* can't be read"),
        ("batch=!!int x", "!!int 'x' can't be read"),
        ('folder="a\\0b"', "folder holds a NUL character"),
        (f"phases[{'9' * 5000}].size=64", "there are 2 entries, numbered from 0"),
        ("model.changes.dept=4", "unknown key model.changes.dept; did you mean depth?"),
        ("model.changes.depth=many", "model.changes.depth is 'many': input should be a valid integer"),
        ("model.changes.rotary=2", "model.changes.rotary is 2: input should be a valid boolean"),
        ("model.changes.norm_eps=[1]", r"model.changes.norm_eps is \[1\]: input should be a valid number"),
        ("model.changes={3: 4}", "model.changes is {3: 4}: input should be a valid string"),
        ("model.changes=7", "model.changes is 7: input should be a valid dictionary"),
        ("text.lr=1e-5", "text.lr is the rate of a text encoder that is trained: add text.train=true"),
        ("text.vocabulary=captions", "add text.train=true"),
        ("text={train: true, lr: -1}", "text.lr is -1.0; it must be at least 0"),
        ("text.train=perhaps", "text.train is 'perhaps'"),
        ("text.bse=x", "unknown key text.bse; did you mean base?"),
        ("base.autoencode=x", "unknown key base.autoencode; did you mean autoencoder?"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(tmp_path: Path, change: str, told: str) -> None:
    source = write(tmp_path, GOOD + "batch: 64\n" if "batch.size" not in change else GOOD + "batch: 4\n")
    with pytest.raises(ConfigError, match=told):
        read_config(source, [change])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("folder: x", "phases is missing"),
        ("phases: [{size: 64}]\nfolder: x\ndata: {path: y}", r"phases\[0\].steps is missing"),
        ("a: [", "c.yaml is not YAML, line 1: "),
        ("- 1", "holds no keys"),
        ("", "holds no keys"),
        ("folder: x\nseed: !!int x", "c.yaml is not YAML, line 2: !!int 'x' can't be read"),
        ("folder: x\nseed: !!float x", "line 2: !!float 'x' can't be read"),
        ("seed: !!bool x", "line 1: !!bool 'x' can't be read"),
        ("seed: !!timestamp 2024-13-45", "line 1: !!timestamp '2024-13-45' can't be read"),
        ("seed: !!timestamp x", "line 1: !!timestamp 'x' can't be read"),
        ("seed: !!binary a", "line 1: "),
        ("seed: !!int ''", "line 1: !!int '' can't be read"),
        ("seed: !!null {a: 1}", "line 1: "),
        ("seed: !!omap {a: 1}", "line 1: "),
        ("seed: =", "line 1: "),
        ("\nseed: !!python/object/apply:os.system [ls]", "line 2: could not determine a constructor"),
        ("\nseed: !!python/name:os.system", "line 2: could not determine a constructor"),
        ("seed: !mine x", "line 1: could not determine a constructor"),
        ("? [1]\n: 2", "line 1: found unhashable key"),
        ("a: 1\n\tb: 2", "line 2: .*indent by spaces"),
        ("a: 1\nb: 2\na: 3", "says a twice, in lines 1 and 3: leave one out"),
        ("data: {path: a, path: b}", "says path twice, in lines 1 and 1"),
        ("a: &a [*a]", "holds a value inside itself, line 1"),
        ("a: *b", "line 1: found undefined alias"),
        ("a: 1\n---\nb: 2", "line 2: .*another document"),
        ("a: \x07", "is not YAML: .*special characters"),
        ("a: " + "[" * 5000, "is nested too deeply|is not YAML"),
        ("a: " + "[" * 60 + "]" * 60, "unfolds into more than 50 levels"),
        ("seed: " + "1" * 5000, "!!int '111.* can't be read"),
        (
            "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
            "unfolds into more than 100,000 values, line 16",
        ),
        ("a: 1\n" * 60_000, "a config has at most 262,144"),
    ],
)
def test_a_file_that_is_no_config_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        read_config(write(tmp_path, text))
    assert len(str(refused.value)) < 600 + len(str(tmp_path)) and "\n" not in str(refused.value)


def test_a_config_that_is_no_text_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"folder: caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 11"):
        read_config(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="at most 262,144 bytes"):
        read_config(Path("/dev/zero"))
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read_config(tmp_path)


def test_a_config_may_come_through_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, GOOD.encode())
    os.close(writer)
    assert read_config(Path(f"/dev/fd/{reader}")).folder == Path("run")
    os.close(reader)


def test_a_date_is_the_text_that_was_written_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    text = "\ufefffolder: 2024-05-01\nphases: [{steps: 1, size: 64}]\ndata: &data {path: 2024-13-45}"
    config = read_config(write(tmp_path, text))
    assert (config.folder, config.data.path) == (Path("2024-05-01"), Path("2024-13-45"))


def test_put_makes_the_mappings_on_its_way() -> None:
    values: dict[str, object] = {}
    put(values, "a.b.c", 1)
    assert values == {"a": {"b": {"c": 1}}}


def test_what_a_checkpoint_fixes_is_what_the_run_is(tmp_path: Path) -> None:
    source = write(tmp_path, GOOD)
    config = read_config(source)
    longer = read_config(
        source, ["phases[1].steps=99", "saving.keep=7", "optimizer.lr=3", "folder=elsewhere"]
    )
    assert longer.identity == config.identity
    for change in ("batch=8", "phases[0].steps=9", "phases[1].size=512", "seed=1", "data.held=2", "ema=0.5"):
        assert read_config(source, [change]).identity != config.identity


def test_the_base_is_a_name_or_a_name_and_an_autoencoder(tmp_path: Path) -> None:
    source = write(tmp_path, GOOD)
    assert read_config(source).identity["base"] == "toybox"
    assert read_config(source, ["base={model: other}"]).base == "other"
    config = read_config(source, ["base=other", "base.autoencoder=run/vae"])
    assert (config.base_model, config.base_autoencoder) == ("other", "run/vae")
    assert read_config(write(tmp_path, to_yaml(config), "again.yaml")) == config
    assert config.identity["base"] == {"model": "other", "autoencoder": "run/vae"}


def test_training_the_text_encoder_is_a_setting_of_the_run_but_its_rate_is_not(tmp_path: Path) -> None:
    source = write(tmp_path, GOOD)
    frozen, trained = read_config(source), read_config(source, ["text.train=true"])
    assert "text" not in frozen.identity  # so that checkpoints from before the key are gone on from
    assert trained.identity["text"] == {"train": True, "base": None, "vocabulary": "base"}
    assert read_config(source, ["text.train=true", "text.lr=1e-5"]).identity == trained.identity


EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_config_and_does_what_it_says(path: Path) -> None:
    config = read_config(path)
    told = path.read_text(encoding="utf-8")
    assert config.base == "toybox" and f"sanakit train examples/{path.name}" in told
    if config.task == "lora":  # on pictures of one's own, too few to hold some out
        assert "sanakit train --new FOLDER --task lora" in told
        return
    size = config.phases[-1].size
    rendered = f"sanakit data toybox {config.data.path} --count " in told
    assert rendered and (size == 256 or f"--size {size}" in told)
    assert config.validate and config.data.held

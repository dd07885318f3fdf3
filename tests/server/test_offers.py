"""LoRAs and ControlNets are offered by name, asked for by name through every API, and never by a path."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from sanakit.base.errors import ConfigError, ModelNotFoundError
from sanakit.layers.lora import LowRank
from sanakit.pipeline.png import decode_record
from sanakit.server import Engine, EngineConfig
from sanakit.server.app import create_app
from sanakit.server.engine.config import controls_in, loras_in
from sanakit.server.settings import Settings
from sanakit.transformer import SanaTransformer, copy_base
from sanakit.weights import LoRA, load_transformer, read_model_spec, save_control, write_lora
from tests.oracles.tiny import Folders, Recipe
from tests.server.calling import HOST, SMALL, draw, png
from tests.server.engines import finished, serving, submit


def write_style(path: Path) -> None:
    torch.manual_seed(1)
    low = LowRank(down=torch.randn(1, 2, 16), up=torch.randn(1, 16, 2))
    write_lora(path, LoRA(layers={"blocks.1.cross.q": low}))


def write_net(folder: Path, model: Path) -> None:
    """A ControlNet of one block that changes what the model draws."""
    spec = read_model_spec(model)
    base = SanaTransformer(spec.transformer)
    load_transformer(base, spec.transformer, spec.transformer_source, dtype=torch.float32)
    net = copy_base(base, 1)
    for layer in (net.input, *net.outputs):
        torch.nn.init.normal_(layer.weight, std=0.2)
    save_control(folder, net.control, net)


@pytest.fixture(scope="module")
def offering(tiny: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Engine]]:
    """A server that offers a LoRA and a ControlNet."""
    loras, controls, data = (tmp_path_factory.mktemp(name) for name in ("loras", "controls", "data"))
    write_style(loras / "style.safetensors")
    (loras / "notes.txt").write_text("no LoRA")
    write_net(controls / "edges", tiny())
    offers = {"loras": loras_in(loras), "controls": controls_in(controls)}
    with serving(data, tiny(), **offers) as engine:
        yield TestClient(create_app(engine, Settings()), base_url=HOST), engine


def test_what_is_offered_is_told(offering: tuple[TestClient, Engine]):
    client, _ = offering
    found = client.get("/api/capabilities").json()
    assert (found["loras"], found["controls"]) == ([{"name": "style.safetensors"}], [{"name": "edges"}])
    assert client.get("/sdapi/v1/loras").json()[0]["name"] == "style"


def test_a_lora_by_its_name_in_both_apis(offering: tuple[TestClient, Engine]):
    client, engine = offering
    chosen = {"name": "style.safetensors", "weight": 0.5, "blocks": [[0, 1, 1.0]]}
    job = draw(client, engine, loras=[chosen])
    record = decode_record(engine.picture(job["pictures"][0]["id"]), "x").request.loras[0]
    assert (record.name, record.weight, record.blocks) == ("style.safetensors", 0.5, ((0, 1, 1.0),))
    again = draw(client, engine, **job["request"])
    assert engine.picture(again["pictures"][0]["id"]) == engine.picture(job["pictures"][0]["id"])
    body = {**SMALL, "prompt": "a red cube <lora:style:0.5>"}
    theirs = client.post("/sdapi/v1/txt2img", json=body).json()
    assert json.loads(theirs["info"])["prompt"] == "a red cube"
    request = decode_record(base64.b64decode(theirs["images"][0]), "x").request
    assert (request.loras[0].name, request.loras[0].weight) == ("style.safetensors", 0.5)


def test_a_lora_of_another_content_is_refused(offering: tuple[TestClient, Engine]):
    client, _ = offering
    request = {**SMALL, "loras": [{"name": "style.safetensors", "sha256": "0" * 64}]}
    response = client.post("/api/jobs", json={"request": request})
    assert response.status_code == 422 and "another file" in response.json()["error"]["message"]


@pytest.mark.parametrize("annotator", [None, "canny"])
def test_a_control_by_its_name(annotator: str | None, offering: tuple[TestClient, Engine]):
    client, engine = offering
    control = {
        "name": "edges",
        "picture": base64.b64encode(png("blue")).decode(),
        "annotator": annotator,
        "end": 0.5,
    }
    job = draw(client, engine, controls=[control])
    assert job["state"] == "done", job["error"]
    (told,) = job["request"]["controls"]
    assert (told["network"]["name"], told["end"]) == ("edges", 0.5)
    assert told["picture"]["name"] == ("control" if annotator is None else "canny.png")
    bad = client.post(
        "/api/jobs", json={"request": {**SMALL, "controls": [control | {"annotator": "magic"}]}}
    )
    assert bad.status_code == 422 and "no annotator 'magic'" in bad.json()["error"]["message"]


def test_folders_are_read_by_the_names_in_them(tmp_path: Path):
    for name in ("b.safetensors", "a.safetensors", ".hidden.safetensors", "x.txt"):
        (tmp_path / name).touch()
    (tmp_path / "net").mkdir()
    assert list(loras_in(tmp_path)) == ["a.safetensors", "b.safetensors"]
    assert list(controls_in(tmp_path)) == ["a.safetensors", "b.safetensors", "net"]
    assert loras_in(None) == {}
    with pytest.raises(ConfigError, match="no folder"):
        loras_in(tmp_path / "none")


def test_all_models_decode_with_the_decoder_that_was_asked_for(tiny: Folders, tmp_path: Path):
    other = tiny(Recipe(seed=4)) / "vae"
    with serving(tmp_path, tiny(Recipe()), decoder=str(other)) as engine:
        made = decode_record(engine.picture(finished(engine, submit(engine)).pictures[0].id), "it").made
    assert made["decoder"] == str(other)
    with pytest.raises(ModelNotFoundError, match="no-decoder"):
        Engine(EngineConfig(data=tmp_path, models=(str(tiny(Recipe())),), decoder="no-decoder"))

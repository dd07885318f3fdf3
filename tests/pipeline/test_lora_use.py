"""LoRAs of requests: merged at load, beside the weights, swapped between requests, merged into folders, recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sanakit.adapt.lora import adaptable, find_layers, layer_size, matrices
from sanakit.adapt.pack import PackedMixFFN
from sanakit.adapt.runner import unwrapped
from sanakit.base.errors import ModelNotFoundError, RequestError, WeightsError
from sanakit.layers.lora import LowRank
from sanakit.pipeline import ImageRequest, Model, PictureDone, load, make_plan, write_int8_folder
from sanakit.pipeline.loras import LoRAFile, split_options
from sanakit.pipeline.merged import write_merged_folder
from sanakit.transformer import SanaTransformer
from sanakit.weights import LoRA, read_model_spec, resolve, write_lora
from tests.oracles.bounds import within
from tests.oracles.tiny import Folders

TARGETS = ("attention", "cross", "ffn")


def make(folder: Path, model: str | Path, name: str, seed: int, *, dora: bool = False, rank: int = 2) -> Path:
    """A LoRA file with random weights for a model."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        layers = adaptable(network := SanaTransformer(read_model_spec(resolve(model)).transformer))
    lows = {}
    for layer in find_layers(network, TARGETS):
        (outputs, inputs), of = layer_size(layers[layer]), matrices(layer)
        shape = (of, outputs // of)
        lows[layer] = LowRank(
            down=torch.randn(of, rank, inputs) / inputs**0.5, up=torch.randn(*shape, rank) * 0.2,
            groups=tuple(range(of)), of=of, magnitude=torch.rand(shape) + 0.5 if dora else None,
        )  # fmt: skip
    write_lora(folder / name, LoRA(layers=lows), "comfyui")
    return folder / name


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny: Folders) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("loras")
    return (
        make(folder, tiny(), "one.safetensors", 1),
        make(folder, tiny(), "two.safetensors", 2),
        make(folder, tiny(), "dora.safetensors", 3, dora=True),
    )


def ask(*loras: object, **fields: object) -> ImageRequest:
    plain = {"prompt": "a red cube", "width": 64, "height": 64, "steps": 2, "seed": 3}
    return ImageRequest(**plain, loras=loras, **fields)  # type: ignore[arg-type]


def draw(model: Model, request: ImageRequest) -> torch.Tensor:
    """The latent of a request."""
    events = list(model.generate(request))
    assert isinstance(events[-2], PictureDone)
    return next(event.latent for event in reversed(events) if hasattr(event, "latent"))


def test_other_loras_between_requests_and_back_to_the_bit(tiny: Folders, files: tuple[Path, ...]) -> None:
    model = load(tiny(), "cpu", "fp32")
    plain = draw(model, ask())
    one, two = draw(model, ask(files[0])), draw(model, ask(f"{files[1]}:0.5", files[2]))
    assert not torch.equal(one, plain)
    assert not torch.equal(two, one)
    assert torch.equal(draw(model, ask(f"{files[0]}:1.0")), one)
    assert torch.equal(draw(model, ask()), plain)
    assert torch.equal(draw(model, ask(f"{files[0]}:0")), plain)
    assert torch.equal(draw(load(tiny(), "cpu", "fp32"), ask(files[0])), one)


@pytest.mark.parametrize("fast", ["auto", "off"])
def test_swapping_draws_what_merging_draws_in_the_same_network(
    tiny: Folders, files: tuple[Path, ...], fast: str
) -> None:
    merged = load(tiny(), "cpu", "fp32", fast=fast)
    beside = load(tiny(), "cpu", "fp32", fast=fast, swap_loras=True)
    plain = draw(beside, ask())
    network = beside.parts.transformer
    requests = [ask(files[0]), ask(f"{files[0]}:-0.5", f"{files[1]}:0.7:blocks=1@0.5"), ask()]
    for request in requests:
        within("LoRA, swapped against merged", draw(beside, request), draw(merged, request), 1e-4)
    assert beside.parts.transformer is network
    assert torch.equal(draw(beside, ask()), plain)
    assert beside.provenance["loras"] == "beside"
    assert "loras" not in merged.provenance


def test_merged_layers_are_packed_like_others(files: tuple[Path, ...], tmp_path: Path) -> None:
    path = make(tmp_path, "toybox", "x.safetensors", 1)
    model = load("toybox", "cpu", "fp32")
    list(model.generate(ask(path)))
    blocks = unwrapped(model.parts.transformer).blocks
    if model.engine.name == "packed":
        assert isinstance(blocks[0].ffn, PackedMixFFN)
    assert not any("adapters" in name for name, _ in unwrapped(model.parts.transformer).named_modules())


def test_swapping_beside_packed_weights(tmp_path: Path) -> None:
    one, two = (make(tmp_path, "toybox", f"{seed}.safetensors", seed) for seed in (1, 2))
    beside, merged = (load("toybox", "cpu", "fp32", swap_loras=swap) for swap in (True, False))
    draw(beside, ask(one))
    within("LoRA, swapped beside packed weights", draw(beside, ask(two)), draw(merged, ask(two)), 1e-4)
    dora = make(tmp_path, "toybox", "dora.safetensors", 3, dora=True)
    if beside.engine.name == "packed":
        for _ in range(2):
            with pytest.raises(RequestError, match="which is packed: draw with LoRAs merged"):
                draw(beside, ask(dora))
        within("LoRA after a refused one", draw(beside, ask(two)), draw(merged, ask(two)), 1e-4)


def test_beside_a_folder_in_int8(tmp_path: Path) -> None:
    path = make(tmp_path, "toybox", "x.safetensors", 1)
    strong = f"{path}:3"  # changes the picture by much more than the rounding does
    spec = read_model_spec(resolve("toybox"))
    write_int8_folder(spec, tmp_path / "int8")
    model = load(tmp_path / "int8", "cpu", "fp32")
    plain, found = draw(model, ask()), draw(model, ask(strong))
    wanted = draw(load("toybox", "cpu", "fp32"), ask(strong))
    assert (found - wanted).norm() < 0.4 * (found - plain).norm()
    with pytest.raises(RequestError, match="is in int8: merge LoRAs into the model it was made from"):
        write_merged_folder(read_model_spec(tmp_path / "int8"), tmp_path / "x", [LoRAFile.read(path)])


def test_a_merged_folder_draws_to_the_bit_what_merging_at_load_draws(
    tiny: Folders, files: tuple[Path, ...], tmp_path: Path
) -> None:
    loras = [LoRAFile.read(files[0], weight=0.6), LoRAFile.read(files[2])]
    write_merged_folder(read_model_spec(tiny()), tmp_path / "merged", loras)
    wanted = draw(load(tiny(), "cpu", "fp32"), ask(*loras))
    assert torch.equal(draw(load(tmp_path / "merged", "cpu", "fp32"), ask()), wanted)


def test_blocks(tiny: Folders, files: tuple[Path, ...]) -> None:
    lora = LoRAFile.parse(f"{files[0]}:0.8:blocks=1@0.5")
    assert {name.split(".")[1] for name in lora.low_ranks()} == {"1"}
    assert {low.scale for low in lora.low_ranks().values()} == {0.4}
    assert (lora.factor("blocks.0.cross.q"), lora.factor("text.input")) == (0.0, 0.0)
    with pytest.raises(RequestError, match="'one.safetensors' changes nothing in blocks 7-9"):
        load(tiny(), "cpu", "fp32").generate(ask(f"{files[0]}:blocks=7-9"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.safetensors", ("a.safetensors", {})),
        ("a/b.safetensors:-0.5", ("a/b.safetensors", {"weight": -0.5})),
        (
            "owner/name:blocks=0-9,15@0.5:2",
            ("owner/name", {"blocks": ((0, 9, 1.0), (15, 15, 0.5)), "weight": 2.0}),
        ),
        (r"C:\x.safetensors:1", (r"C:\x.safetensors", {"weight": 1.0})),
    ],
)
def test_texts(text: str, wanted: tuple[str, dict[str, object]]) -> None:
    assert split_options(text) == wanted


@pytest.mark.parametrize("text", ["a:strong", "a:1:2", "a:blocks=1-", "a:blocks=x", "a:1:blocks=0@"])
def test_texts_that_say_nothing(text: str) -> None:
    with pytest.raises(RequestError, match="look"):
        split_options(text)


def test_a_record_holds_name_hash_weight_and_blocks(files: tuple[Path, ...]) -> None:
    request = ask(f"{files[0]}:0.8:blocks=0@0.5,1", files[1])
    again = ImageRequest.from_json(request.to_json())
    assert again == request
    assert [one.given for one in again.loras] == [False, False]
    assert request.to_json()["loras"][0] | {"sha256": ""} == {
        "name": "one.safetensors", "sha256": "", "weight": 0.8, "blocks": [[0, 0, 0.5], [1, 1, 1.0]],
    }  # fmt: skip
    assert "loras" not in ask().to_json()


@pytest.mark.parametrize(
    "data",
    [
        3, [3], [{"name": "x"}], [{"name": "x", "sha256": "0" * 63}],
        [{"name": "x", "sha256": "0" * 64, "weight": "1"}], [{"name": "x", "sha256": "0" * 64, "weight": True}],
        [{"name": "x", "sha256": "0" * 64, "blocks": [[1, 2]]}],
        [{"name": "x", "sha256": "0" * 64, "blocks": [[3, 2, 1]]}],
    ],
    ids=str,
)  # fmt: skip
def test_records_that_are_none(data: object) -> None:
    with pytest.raises(RequestError):
        ImageRequest.from_json({"prompt": "x", "loras": data})


def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    tiny: Folders, files: tuple[Path, ...], tmp_path: Path
) -> None:
    model = load("toybox", "cpu", "fp32")
    with pytest.raises(
        RequestError, match="'one.safetensors' does not fit: the LoRA is for another transformer: its"
    ):
        model.generate(ask(files[0]))
    with pytest.raises(RequestError, match="which its record does not hold: give that file as --lora"):
        model.generate(ImageRequest.from_json(ask(files[0]).to_json()))
    assert not any(model.parts.is_loaded(name) for name in ("text", "transformer", "decoder"))
    with pytest.raises(ModelNotFoundError, match="no LoRA 'absent.safetensors'"):
        ask("absent.safetensors")
    with pytest.raises(WeightsError, match="isn't a LoRA of a SANA transformer"):
        ask(tiny() / "transformer/diffusion_pytorch_model.safetensors")
    with pytest.raises(RequestError, match="a number from -100 to 100"):
        ask(f"{files[0]}:1000")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="holds no safetensors file"):
        ask(tmp_path / "empty")


def test_a_lora_in_the_prompt_is_words(tiny: Folders) -> None:
    plan = make_plan(read_model_spec(tiny()), ask().replace(prompt="a cat <lora:toon:0.8>"))
    assert [note for note in plan.notes if "name the file by --lora" in note]


def test_a_folder_with_one_file(files: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "any.safetensors").write_bytes(files[0].read_bytes())
    assert ask(f"{tmp_path}:0.5").loras[0].sha256 == ask(files[0]).loras[0].sha256
    (tmp_path / "other.safetensors").write_bytes(files[1].read_bytes())
    with pytest.raises(ModelNotFoundError, match="several safetensors files"):
        ask(tmp_path)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(files[1].read_bytes())
    assert ask(tmp_path).loras[0].sha256 == ask(files[1]).loras[0].sha256


def test_the_plan_of_memory_counts_what_lies_beside(tiny: Folders, files: tuple[Path, ...]) -> None:
    loras = ask(files[0]).loras
    sizes = [load(tiny(), "cpu", dtype, swap_loras=swap).parts.bytes_beside(loras) for dtype, swap in (
        ("fp32", False), ("fp32", True), ("bf16", True))]  # fmt: skip
    numbers = sum(low.down.numel() + low.up.numel() for low in loras[0].low_ranks().values())
    assert sizes == [0, 4 * numbers, 2 * numbers]


def test_swapping_needs_layers_that_stay(tiny: Folders, files: tuple[Path, ...]) -> None:
    with pytest.raises(RequestError, match="no LoRA can be swapped in a model that runs compiled"):
        from sanakit.pipeline.engine import ENGINES
        from sanakit.pipeline.merged import check_swap

        check_swap(True, ENGINES["compiled"])
    model = load(tiny(), "cpu", "fp32", fast="off", swap_loras=True)
    within("DoRA beside", draw(model, ask(files[2])), draw(load(tiny(), "cpu", "fp32"), ask(files[2])), 1e-4)


def test_a_transformer_that_was_handed_in_keeps_its_weights(tiny: Folders, files: tuple[Path, ...]) -> None:
    model = load(tiny(), "cpu", "fp32", fast="off")
    network: nn.Module = load(tiny(), "cpu", "fp32", fast="off").parts.transformer
    model.parts.replace("transformer", network)
    with pytest.raises(RequestError, match="was handed in as it is"):
        list(model.generate(ask(files[0])))

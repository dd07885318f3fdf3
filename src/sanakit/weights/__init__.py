"""Floor 4: checkpoints of every format, read and written; foreign names exist only here.

formats/      one module per format, and `registry`: the table that everything below asks
rules         rows and tables, invertible
names         a name -> a local path                hub          files of hub repositories
published     the published models, as data         model_files  which files make a model folder
model_spec    what a model folder holds             model_index  the files at its root
parts         a model with a part of another
checkpoint    one file of weights of any origin     identify     what such a file holds
description   what is written beside such a file    torch_file   a file of torch.save, no code in it executed
safetensors   one safetensors file                  tensor_files those of a component: variants, shards
control       ControlNets beside the model they steer
load          strictly into meta-built modules      save         folders, whole models, derived models
convert       files <-> folders, either network     lora         LoRA files, read; lora_save writes them
"""

from sanakit.weights.about import About
from sanakit.weights.checkpoint import is_checkpoint_name, open_checkpoint
from sanakit.weights.control import (
    ControlSpec,
    describe_control,
    holds_control,
    read_control_spec,
    resolve_control,
    save_control,
)
from sanakit.weights.convert import file_to_file, file_to_folder, folder_to_file
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import UnknownFields
from sanakit.weights.formats.registry import INT8
from sanakit.weights.hub import LORA_FILE
from sanakit.weights.identify import Hints
from sanakit.weights.load import (
    align,
    assign,
    int8_layers,
    load_autoencoder,
    load_text_encoder,
    load_transformer,
)
from sanakit.weights.lora import LoRA, is_lora, read_lora
from sanakit.weights.lora_save import TARGETS as LORA_TARGETS
from sanakit.weights.lora_save import write_lora
from sanakit.weights.model_files import read_words, tokenizer_files, write_words
from sanakit.weights.model_spec import ModelSpec, read_autoencoder_config, read_model_spec
from sanakit.weights.names import is_here, resolve, resolve_lora, resolve_snapshot
from sanakit.weights.parts import with_autoencoder, with_decoder, with_text_encoder
from sanakit.weights.published import AUTOENCODERS, PUBLISHED
from sanakit.weights.safetensors import byte_size, read_header, write_safetensors
from sanakit.weights.save import (
    check_parts,
    save_autoencoder,
    save_text_encoder,
    save_transformer,
    save_weights,
    write_derived,
    write_folder,
)
from sanakit.weights.tensor_files import (
    DIFFUSERS_STEM,
    STEMS,
    TRANSFORMERS_STEM,
    TensorFile,
    open_weights,
    variant_of,
    weight_files,
)
from sanakit.weights.torch_file import read_pth

__all__ = [
    "AUTOENCODERS",
    "About",
    "ControlSpec",
    "DIFFUSERS_STEM",
    "INT8",
    "LORA_FILE",
    "LORA_TARGETS",
    "LoRA",
    "PUBLISHED",
    "STEMS",
    "TRANSFORMERS_STEM",
    "Hints",
    "ModelSpec",
    "UnknownFields",
    "Schedule",
    "TensorFile",
    "align",
    "assign",
    "byte_size",
    "check_parts",
    "describe_control",
    "file_to_file",
    "file_to_folder",
    "folder_to_file",
    "holds_control",
    "int8_layers",
    "is_checkpoint_name",
    "is_here",
    "is_lora",
    "load_autoencoder",
    "load_text_encoder",
    "load_transformer",
    "open_checkpoint",
    "open_weights",
    "read_autoencoder_config",
    "read_control_spec",
    "read_header",
    "read_lora",
    "read_model_spec",
    "read_pth",
    "read_words",
    "resolve",
    "resolve_control",
    "resolve_lora",
    "resolve_snapshot",
    "save_autoencoder",
    "save_control",
    "save_text_encoder",
    "save_transformer",
    "save_weights",
    "tokenizer_files",
    "variant_of",
    "weight_files",
    "with_autoencoder",
    "with_decoder",
    "with_text_encoder",
    "write_derived",
    "write_folder",
    "write_lora",
    "write_safetensors",
    "write_words",
]

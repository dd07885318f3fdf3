"""Floor 4: checkpoints of every format, read and written; foreign names exist only here.

rules       rows and tables, invertible           formats/    one table and its configurations per format
read        safetensors and .pth, lazily          load        strictly onto meta-built modules
save        diffusers folders                     convert     .pth <-> diffusers
model_spec  what a model folder holds            catalog     name -> local path
parts       a model with a part of another
int8        transformers in int8                  snapshot    a hub repository of any layout -> local path
safetensor  one file: header and writer           variant     fp16, bf16 beside the plain weights
known       the files of a model folder, by name   derive      another transformer, the rest copied

checkpoint  one file of weights of any origin         torch_file  a file of torch.save, nothing in it run
identify    what such a file is                       description what is written beside it
exchange    conversion of either network, either way
"""

from sanakit.weights.catalog import resolve
from sanakit.weights.checkpoint import Part, is_checkpoint_name, open_checkpoint
from sanakit.weights.convert import diffusers_to_pth, pth_to_diffusers, pth_to_pth
from sanakit.weights.derive import check_parts, write_derived
from sanakit.weights.exchange import file_to_file, file_to_folder, folder_to_file
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import Reading
from sanakit.weights.identify import Hints
from sanakit.weights.int8 import holds_int8, int8_layers, load_int8, save_int8
from sanakit.weights.known import tokenizer_files
from sanakit.weights.load import align, assign, load_autoencoder, load_text_encoder, load_transformer
from sanakit.weights.model_spec import ModelSpec, read_autoencoder_config, read_model_spec
from sanakit.weights.parts import with_autoencoder, with_text_encoder
from sanakit.weights.published import PUBLISHED, Published
from sanakit.weights.read import (
    DIFFUSERS_STEM,
    STEMS,
    TRANSFORMERS_STEM,
    TensorFile,
    Weights,
    open_weights,
    read_pth,
    weight_files,
)
from sanakit.weights.rules import Drop, Join, Rename, Squeeze, Table
from sanakit.weights.safetensor import Entry, byte_size, read_header, write_safetensors
from sanakit.weights.save import (
    save_autoencoder,
    save_text_encoder,
    save_transformer,
    save_weights,
    write_folder,
)
from sanakit.weights.snapshot import resolve_snapshot
from sanakit.weights.variant import variant_of
from sanakit.weights.words import read_words, write_words

__all__ = [
    "DIFFUSERS_STEM",
    "PUBLISHED",
    "STEMS",
    "TRANSFORMERS_STEM",
    "ModelSpec",
    "Drop",
    "Entry",
    "Hints",
    "Join",
    "Part",
    "Published",
    "Reading",
    "Rename",
    "Schedule",
    "Squeeze",
    "Table",
    "TensorFile",
    "Weights",
    "align",
    "assign",
    "byte_size",
    "check_parts",
    "diffusers_to_pth",
    "file_to_file",
    "file_to_folder",
    "folder_to_file",
    "holds_int8",
    "int8_layers",
    "is_checkpoint_name",
    "load_autoencoder",
    "load_int8",
    "load_text_encoder",
    "load_transformer",
    "open_checkpoint",
    "open_weights",
    "pth_to_diffusers",
    "pth_to_pth",
    "read_autoencoder_config",
    "read_model_spec",
    "read_header",
    "read_pth",
    "read_words",
    "resolve",
    "resolve_snapshot",
    "save_autoencoder",
    "save_int8",
    "save_text_encoder",
    "save_transformer",
    "save_weights",
    "tokenizer_files",
    "variant_of",
    "weight_files",
    "with_autoencoder",
    "with_text_encoder",
    "write_derived",
    "write_folder",
    "write_safetensors",
    "write_words",
]

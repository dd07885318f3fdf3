"""Floor 4: checkpoints of every format, read and written; foreign names exist only here.

rules       rows and tables, invertible           formats/    one table and its configurations per format
read        safetensors and .pth, lazily          load        strictly onto meta-built modules
save        diffusers folders                     convert     .pth <-> diffusers
descriptor  what a model folder holds             catalog     name -> local path
int8        transformers in int8                  snapshot    a hub repository of any layout -> local path
safetensor  one file: header and writer           variant     fp16, bf16 beside the plain weights
"""

from sanakit.weights.catalog import resolve
from sanakit.weights.convert import diffusers_to_pth, pth_to_diffusers
from sanakit.weights.derive import write_derived
from sanakit.weights.descriptor import Descriptor, read_autoencoder_config, read_descriptor
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.int8 import holds_int8, int8_layers, load_int8, save_int8
from sanakit.weights.load import align, assign, load_autoencoder, load_text_encoder, load_transformer
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

__all__ = [
    "DIFFUSERS_STEM",
    "PUBLISHED",
    "STEMS",
    "TRANSFORMERS_STEM",
    "Descriptor",
    "Drop",
    "Entry",
    "Join",
    "Published",
    "Rename",
    "Schedule",
    "Squeeze",
    "Table",
    "TensorFile",
    "Weights",
    "align",
    "assign",
    "byte_size",
    "diffusers_to_pth",
    "holds_int8",
    "int8_layers",
    "load_autoencoder",
    "load_int8",
    "load_text_encoder",
    "load_transformer",
    "open_weights",
    "pth_to_diffusers",
    "read_autoencoder_config",
    "read_descriptor",
    "read_header",
    "read_pth",
    "resolve",
    "resolve_snapshot",
    "save_autoencoder",
    "save_int8",
    "save_text_encoder",
    "save_transformer",
    "save_weights",
    "variant_of",
    "weight_files",
    "write_derived",
    "write_folder",
    "write_safetensors",
]

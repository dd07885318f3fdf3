"""Floor 0: small values and decisions that every other package may use; imports nothing of ours.

errors      the exception tree                  text_states  token states of prompts
sizes       Size, Grid and aspect buckets       seeds        what is random, and from what
precision   device and dtype with a reason      dialect      where the official code and diffusers differ
files       atomic writes, new names, paths     drafts       temporary files, their sweep, atomic renames
folders     replaced in one step                locks        held by a process
echo        strangers' text made safe to show   json_text    JSON of any origin
chip        what the CPU is and may use         measured     measurements of this machine, stored
threads     of a CPU, by the size of the work   waiting      how they wait
aligned     tensors at whole cache lines        heap         where tensors get their memory
memory      what there is of it                 bounds       ranges of configuration values
sentinel    which layer made the NaN            units        bytes, durations and dtypes as text

Only the errors are exported here; everything else is imported from its module, so that errors and messages don't wait
for torch.
"""

from sanakit.base.errors import (
    ConfigError,
    DataError,
    InputError,
    ModelNotFoundError,
    NumericsError,
    OutputError,
    PictureError,
    RequestError,
    SanakitError,
    ShortageError,
    WeightsError,
)

__all__ = [
    "ConfigError",
    "DataError",
    "InputError",
    "ModelNotFoundError",
    "NumericsError",
    "OutputError",
    "PictureError",
    "RequestError",
    "SanakitError",
    "ShortageError",
    "WeightsError",
]

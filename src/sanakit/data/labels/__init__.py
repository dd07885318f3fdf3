"""Models that write and score captions, and pictures selected by score.

labellers  what captioners and scorers are    models     a name -> one of them
vision     from transformers' models          open_clip  from open_clip's models
toybox     from the Toybox judge              run        through a set, in this process
ray        through a set, as a Ray Data job   select     pictures by score, and lists of keys
"""

from sanakit.data.labels.models import LabelModel, load_captioner, load_labeller, load_scorer
from sanakit.data.labels.run import label_here, write_labelled
from sanakit.data.labels.select import indices_of, keys_above, read_keys, write_keys

__all__ = [
    "LabelModel",
    "indices_of",
    "keys_above",
    "label_here",
    "load_captioner",
    "load_labeller",
    "load_scorer",
    "read_keys",
    "write_keys",
    "write_labelled",
]

"""Lines to items."""

from __future__ import annotations

import json
import re

import pytest

from sanakit.base.errors import RequestError
from sanakit.batch import read_items


def test_a_line_is_a_prompt_or_the_fields_of_a_request():
    items = read_items(["a cube", "", '{"prompt": "a cone", "seed": 7, "cfg_interval": [0.1, 0.9]}'])
    assert [(one.key, one.request.prompt, one.request.seed) for one in items] == [
        ("000001", "a cube", 0),
        ("000003", "a cone", 7),
    ]
    assert items[1].request.cfg_interval == (0.1, 0.9)


def test_options_are_for_lines_that_do_not_name_the_field():
    items = read_items(["a cube", '{"prompt": "a cone", "steps": 3}'], {"steps": 9, "width": 64})
    assert [(one.request.steps, one.request.width) for one in items] == [(9, 64), (3, 64)]


def test_a_count_is_so_many_items_with_seeds_of_their_own():
    items = read_items(['{"key": "cone", "prompt": "a cone", "seed": 5, "count": 3}'])
    assert [(one.file, one.request.seed, one.request.count) for one in items] == [
        ("cone-0.png", 5, 1),
        ("cone-1.png", 6, 1),
        ("cone-2.png", 7, 1),
    ]


def test_regions_are_written_as_on_the_command_line():
    (item,) = read_items(['{"prompt": "grass", "regions": ["0,0,0.5,1:a red cube"]}'])
    assert [region.prompt for region in item.request.regions] == ["a red cube"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"prompt": "a cube"', "line 2: it begins like a JSON object and isn't one"),
        ('{"seed": 3}', "line 2: there is no prompt"),
        ('{"prompt": "a cube", "sped": 3}', "line 2: a request has no field 'sped'"),
        ('{"prompt": "a cube", "steps": 0}', "line 2: steps must be a whole number"),
        ('{"prompt": "a cube", "key": "../x"}', "line 2: a key names a file"),
        ('{"prompt": "a cube", "key": 3}', "line 2: a key names a file"),
        ('{"prompt": "a cube", "key": "000001"}', "line 2: the key '000001' comes twice"),
        ('{"prompt": "a cube", "source": "not-there.png"}', "line 2: the picture not-there.png is not there"),
        (json.dumps({"prompt": "a cube", "source": {"name": "a", "sha256": "0" * 64}}), "line 2: "),
    ],
)
def test_whatever_makes_no_request_is_told_with_its_line(line, fault):
    with pytest.raises(RequestError, match=re.escape(fault)):
        read_items(["a cone", line])


def test_a_file_without_a_prompt_is_refused():
    with pytest.raises(RequestError, match="no line with a prompt"):
        read_items(["", "  "])

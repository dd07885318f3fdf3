"""The clients of docs/server.md, run as they stand against a running server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.calling import opened

PAGE = (Path(__file__).parents[2] / "docs/server.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_has_a_client_of_each_api():
    text = "".join(block for _, block in BLOCKS)
    assert all(part in text for part in ("/api/jobs", "openai.OpenAI", "/sdapi/v1/txt2img"))


@pytest.mark.parametrize(
    ("kind", "block"), BLOCKS, ids=[f"{kind}-{at}" for at, (kind, _) in enumerate(BLOCKS)]
)
def test_a_client_runs_as_it_stands(kind: str, block: str, address: str, tmp_path: Path):
    missing = [tool for tool in ("bash", "curl", "jq", "base64") if shutil.which(tool) is None]
    if kind == "bash" and missing:
        pytest.skip(f"needs {', '.join(missing)}")
    program = ["bash", "-euo", "pipefail", "-c"] if kind == "bash" else [sys.executable, "-c"]
    text = block.replace("http://127.0.0.1:8000", address)
    result = subprocess.run([*program, text], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    (picture,) = tmp_path.glob("*.png")
    assert opened(picture.read_bytes()).format == "PNG"
    if kind == "bash" and "events" in block:
        assert result.stdout.splitlines()[-1] == "event: done"
    if kind == "python":
        assert result.stdout.splitlines()[-1] == "image_generation.completed"

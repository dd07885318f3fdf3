"""No command downloads without saying so: whatever it resolves by name is given what announces the download."""

from __future__ import annotations

import ast

from tests.rules.source import Source, package_sources


def silent(source: Source) -> list[str]:
    """Calls of `resolve`, `resolve_lora` and so on without `announce`."""
    return [
        f"{source.where}:{node.lineno}: {node.func.id} without announce"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id.startswith("resolve")
        and "announce" not in {keyword.arg for keyword in node.keywords}
    ]


def test_commands_announce_what_they_resolve() -> None:
    assert [fault for source in package_sources() if source.room == "cli" for fault in silent(source)] == []

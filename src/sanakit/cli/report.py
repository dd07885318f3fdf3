"""What a drawing tells: on stdout where each picture is and how long each stage took, on stderr the notes.

While bars are on the terminal lines wait, so that they do not run through one another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanakit.cli.clock import seconds
from sanakit.cli.say import say
from sanakit.pipeline.events import PictureDone

_ORDER = ("start", "load", "text", "denoise", "decode")


class Report:
    """Says things as text or as one JSON object per line.

    waiting: keep lines back until `flush`.
    """

    def __init__(self, as_json: bool, waiting: bool) -> None:
        self.as_json = as_json
        self.waiting = waiting
        self.heard = True  # False once the reader of stdout has gone
        self.timings: dict[str, float] = {}
        self._kept: list[tuple[str, bool]] = []

    def prompt(self, text: str) -> None:
        """The very text that the model reads."""
        self._say(text, {"event": "prompt", "text": text})

    def note(self, message: str) -> None:
        """Something that stops nothing; goes to stderr."""
        self._say(f"note: {message}", {"event": "note", "message": message}, err=not self.as_json)

    def picture(self, path: Path, event: PictureDone) -> None:
        """A picture has been written."""
        width, height = event.image.size
        self._say(
            f"{path}  ({width}x{height}, seed {event.seed})",
            {
                "event": "picture",
                "path": str(path),
                "seed": event.seed,
                "width": width,
                "height": height,
                "request": event.request.to_json(),
            },
        )

    def sheet(self, path: Path, pictures: int) -> None:
        """A grid has been written."""
        self._say(f"{path}  (grid of {pictures})", {"event": "grid", "path": str(path), "pictures": pictures})

    def add(self, timings: Mapping[str, float]) -> None:
        """Counts the seconds of a finished request."""
        for stage, spent in timings.items():
            self.timings[stage] = self.timings.get(stage, 0.0) + spent

    def done(self) -> None:
        """The last line: seconds per stage, and of the whole command."""
        known = {stage: self.timings[stage] for stage in _ORDER if stage in self.timings}
        text = " · ".join(f"{stage} {spent:.2f} s" for stage, spent in known.items())
        rounded = {stage: round(spent, 4) for stage, spent in known.items()}
        self._say(
            f"{text} · total {seconds():.2f} s",
            {"event": "done", "seconds": rounded | {"total": round(seconds(), 4)}},
        )

    def flush(self) -> None:
        """Prints what was kept back, and keeps nothing back any more."""
        self.waiting = False
        for line, err in self._kept:
            say(line, err=err)
        self._kept.clear()

    def _say(self, text: str, data: dict[str, Any], err: bool = False) -> None:
        line = json.dumps(data) if self.as_json else text
        if self.waiting:
            self._kept.append((line, err))
        else:
            self.heard = say(line, err=err) and self.heard

"""The bars of all commands: count and time left at every width; sentences and dated lines if there is no terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from sanakit.cli import progress
from sanakit.cli.progress import ProgressBar, fit
from sanakit.cli.train import RunDisplay
from sanakit.training import Message, Progress, StepReport

REPORT = StepReport(
    step=12345, steps=100_000, losses={"loss": 0.12345, "flow": 0.5}, lr=1e-4, norm=0.321, seconds=0.8,
    eta=70_000.0, images=80.0, mfu=0.41,
)  # fmt: skip
STEP = Progress(label="training", done=12347, total=100_000, remaining=69_999.0)
ALWAYS = ("12347/100000", "left 19:26:39")


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def drawn(bar: ProgressBar, width: int) -> str:
    console = terminal(width)
    with console.capture() as captured:
        console.print(bar)
    return captured.get().rstrip("\n")


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [
        (30, (), ("loss", "━", "steps/s")),
        (40, ("loss 0.12345",), ("steps/s", "mfu")),
        (60, ("loss 0.12345", "━", "1.25 steps/s"), ("mfu", "norm")),
        (80, ("loss 0.12345", "━", "1.25 steps/s", "lr 1.00e-04"), ("norm", "flow")),
        (120, ("loss 0.12345", "━", "1.25 steps/s", "lr 1.00e-04", "mfu 41%", "80.0 images/s", "norm 0.321"), ()),
        (200, ("flow 0.50000", "norm 0.321"), ()),
    ],
)  # fmt: skip
def test_the_line_keeps_what_matters_at_every_width(
    width: int, there: tuple[str, ...], gone: tuple[str, ...]
) -> None:
    bar = ProgressBar(terminal(width))
    display = RunDisplay(bar, 0, 100_000)
    display.see(REPORT)
    display.see(STEP)
    shown = drawn(bar, width)
    assert len(shown) <= width and "\n" not in shown
    assert all(text in shown for text in (*ALWAYS, *there)), shown
    assert not any(text in shown for text in gone), shown


def test_the_line_moves_with_every_step_and_between_reports() -> None:
    bar = ProgressBar(terminal(80))
    display = RunDisplay(bar, 7, 40)
    assert "7/40 left ?" in drawn(bar, 80)
    seen = []
    for step in range(8, 12):
        display.see(Progress(label="training", done=step, total=40, remaining=100.0 - step))
        seen.append(drawn(bar, 80))
    assert len(set(seen)) == 4 and "11/40 left 0:01:29" in seen[-1]
    display.finish()
    assert "11/40 left 0:01:29" in drawn(bar, 80)  # stopped on the way
    display.see(Progress(label="training", done=40, total=40, remaining=2.0))
    display.finish()
    assert "40/40 left 0:00:00" in drawn(bar, 80)
    display.see(Progress(label="encoding pictures", done=3, total=1852, remaining=61.0))
    assert re.search(r"encoding pictures .* 3/1852 left 0:01:01", drawn(bar, 80))


def test_a_terminal_without_our_signs_gets_plain_ones() -> None:
    texts = {"bar": "", "count": "1/2"}
    assert fit(texts, 0.5, 14, plain=True) == "#####----- 1/2"
    assert fit(texts, 0.5, 14) == "━━━━━╌╌╌╌╌ 1/2"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
@pytest.mark.parametrize("label", ["looking at pictures", "x" * 90])
def test_other_bars_keep_count_and_time_left_at_every_width(width: int, label: str) -> None:
    bar = ProgressBar(terminal(width))
    bar.update(label, 12_345, 185_200, remaining=3723.0)
    bar.update("drawing", 3, 0)
    first, second = drawn(bar, width).splitlines()
    assert "12345/185200" in first and "left 1:02:03" in first and len(first.rstrip()) <= width
    assert "3/?" in second and "left ?" in second
    assert ("╌" in first) == (width >= 40) or len(label) > 60


def test_sentences_scroll_and_a_log_has_the_time_of_day(capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal(80)
    RunDisplay(ProgressBar(console), 0, 9).see(Message(step=3, text="saving [brackets]"))
    assert console.file.getvalue().strip() == "step 3: saving [brackets]"
    logged = RunDisplay(ProgressBar(sentences=False), 0, 9)
    for event in (STEP, REPORT, Message(step=3, text="saving")):
        logged.see(event)
    lines = capsys.readouterr().out.splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    assert len(lines) == 2  # how far it is belongs to bars
    assert re.match(f"{stamp}step 12345/100000 loss 0.12345 .* eta 1166.7 min$", lines[0])
    assert re.match(f"{stamp}step 3: saving$", lines[1])


def test_off_terminals_a_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 8))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with ProgressBar() as bar:
        things = list(bar.follow("drawing", "abcdefgh", 8))
    assert things == list("abcdefgh")
    lines = capsys.readouterr().err.splitlines()
    assert 0 < len(lines) < 8
    done = [int(line.removeprefix("drawing: ").split(" of 8, left ")[0]) for line in lines]
    assert done == sorted(done)
    assert lines[-1].startswith("drawing: ") and "left 0:0" in lines[-1]


def test_a_pace_is_guessed_from_what_was_done_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressBar() as bar:
        for second, done in ((0.0, 900), (40.0, 950)):  # 900 were there before
            now[0] = second
            bar.update("encoding", done, 1000)
    assert capsys.readouterr().err == "encoding: 950 of 1000, left 0:00:40\n"

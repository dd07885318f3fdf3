"""The line of a run at every width: step and time left always, the rest by importance; logs have the time of day."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

from sanakit.cli.fitted import TaskLine, fit
from sanakit.cli.train_display import Bar, Lines
from sanakit.training import Notice, Progress, Report

REPORT = Report(
    step=12345, steps=100_000, losses={"loss": 0.12345, "flow": 0.5}, lr=1e-4, norm=0.321, seconds=0.8,
    eta=70_000.0, images=80.0, mfu=0.41,
)  # fmt: skip
STEP = Progress(label="training", done=12347, total=100_000, remaining=69_999.0)
ALWAYS = ("12347/100000", "left 19:26:39")


def drawn(bar: Bar, width: int, ascii_only: bool = False) -> str:
    file = io.StringIO()
    if ascii_only:
        file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # type: ignore[assignment]
    console = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
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
    bar = Bar(Console(file=io.StringIO()), 0, 100_000)
    bar.see(REPORT)
    bar.see(STEP)
    shown = drawn(bar, width)
    assert len(shown) <= width and "\n" not in shown
    assert all(text in shown for text in (*ALWAYS, *there)), shown
    assert not any(text in shown for text in gone), shown


def test_the_line_moves_with_every_step_and_between_reports() -> None:
    bar = Bar(Console(file=io.StringIO()), 7, 40)
    assert "7/40 left ?" in drawn(bar, 80)
    seen = []
    for step in range(8, 12):
        bar.see(Progress(label="training", done=step, total=40, remaining=100.0 - step))
        seen.append(drawn(bar, 80))
    assert len(set(seen)) == 4 and "11/40 left 0:01:29" in seen[-1]
    bar.end()
    assert "11/40 left 0:01:29" in drawn(bar, 80)  # stopped on the way
    bar.see(Progress(label="training", done=40, total=40, remaining=2.0))
    bar.end()
    assert "40/40 left 0:00:00" in drawn(bar, 80)
    bar.see(Progress(label="encoding pictures", done=3, total=1852, remaining=61.0))
    assert re.search(r"encoding pictures .* 3/1852 left 0:01:01", drawn(bar, 80))


def test_a_terminal_without_our_signs_gets_plain_ones() -> None:
    texts = {"bar": "", "count": "1/2"}
    assert fit(texts, ["count", "bar"], 0.5, 14, plain=True) == "#####----- 1/2"
    assert fit(texts, ["count", "bar"], 0.5, 14) == "━━━━━╌╌╌╌╌ 1/2"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
@pytest.mark.parametrize("label", ["looking at pictures", "x" * 90])
def test_other_bars_keep_count_and_time_left_at_every_width(width: int, label: str) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bars = Bars(TaskLine(), console=console)
    bars.update(bars.add_task(label, total=185_200, left="1:02:03"), completed=12_345)
    bars.update(bars.add_task("drawing", total=None), completed=3)
    with console.capture() as captured:
        console.print(bars.get_renderable())
    first, second = captured.get().splitlines()
    assert "12345/185200" in first and "left 1:02:03" in first and len(first.rstrip()) <= width
    assert "3/?" in second and "left ?" in second
    assert ("╌" in first) == (width >= 40) or len(label) > 60


def test_sentences_scroll_and_a_log_has_the_time_of_day(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    Bar(Console(file=file, width=80), 0, 9).see(Notice(step=3, text="saving [brackets]"))
    assert file.getvalue().strip() == "step 3: saving [brackets]"
    for event in (STEP, REPORT, Notice(step=3, text="saving")):
        Lines().see(event)
    lines = capsys.readouterr().out.splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    assert len(lines) == 2  # how far it is belongs to bars
    assert re.match(f"{stamp}step 12345/100000 loss 0.12345 .* eta 1166.7 min$", lines[0])
    assert re.match(f"{stamp}step 3: saving$", lines[1])

"""`--best-of`: the options of choosing among candidates, and the judge that they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.base.errors import RequestError
from sanakit.cli.say import notify

if TYPE_CHECKING:
    from sanakit.data.labels.labellers import Scorer
    from sanakit.evaluation.best_of import Choice, Judged
    from sanakit.pipeline.events import Event
    from sanakit.pipeline.model import Model
    from sanakit.pipeline.request import ImageRequest

JUDGES = (
    "`toybox`, a CLIP (folder, hub id or open_clip:...), a vision-language model (vqa:NAME), or a scorer of an "
    "installed package"
)
BestOfOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Draw N candidates of each prompt and keep the best.", show_default=False),
]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Who scores candidates: {JUDGES}.",
        show_default="toybox for models of Toybox",
    ),
]
KeepOption = Annotated[
    int | None, typer.Option(metavar="K", help="With --best-of: keep the K best.", show_default="1")
]
UntilOption = Annotated[
    float | None,
    typer.Option(
        metavar="SCORE",
        help="With --best-of: draw no more once all that are kept have this score.",
        show_default="all are drawn",
    ),
]
DraftStepsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="With --best-of: draw candidates in N steps, and only those that are kept in all.",
        show_default="all steps",
    ),
]


@dataclass(frozen=True, kw_only=True)
class BestOf:
    """How candidates are chosen, and by whom. together: so many in a batch; None for as many as fit into memory."""

    choice: Choice
    judge: str
    scorer: Scorer
    together: int | None = None

    def generate(self, model: Model, request: ImageRequest) -> Iterator[Event | Judged]:
        """Yield the events of the best of a request. Raises RequestError before anything is drawn."""
        from sanakit.evaluation.best_of import best_of

        if self.together is None:
            model.together = model.together_that_fit(request, self.choice.candidates)
        return best_of(model, request, self.choice, self.scorer, self.judge)


def read_best_of(
    model: Model,
    candidates: int | None,
    judge: str | None,
    keep: int | None,
    until: float | None,
    draft_steps: int | None,
    together: int | None,
) -> BestOf | None:
    """Return what the options ask for, None without `--best-of`; loads the judge.

    Raises RequestError for options that don't go together, and as `load_scorer` does for the judge.
    """
    given = {"--judge": judge, "--keep": keep, "--until": until, "--draft-steps": draft_steps}
    if candidates is None:
        for name, value in given.items():
            if value is not None:
                raise RequestError(f"{name} goes with --best-of: say how many candidates to draw")
        return None
    from sanakit.data.labels.models import LabelModel, load_scorer
    from sanakit.evaluation.best_of import Choice

    choice = Choice(candidates=candidates, keep=keep or 1, until=until, steps=draft_steps)
    if judge is None:
        if model.spec.about is None:
            raise RequestError("--best-of needs a judge of this model's pictures: give --judge NAME")
        judge = "toybox"
    device = str(model.precision.device)
    scorer = load_scorer(LabelModel(task="score", name=judge, device=device, dtype="fp32"), notify)
    return BestOf(choice=choice, judge=judge, scorer=scorer, together=together)

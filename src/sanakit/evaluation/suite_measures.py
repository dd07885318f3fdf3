"""What a suite's pictures are measured by: judges, GenEval's object checks, and distances to reference pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sanakit.base.errors import DataError, RequestError
from sanakit.base.precision import decide
from sanakit.batch.items import Item
from sanakit.data.image import SUFFIXES
from sanakit.data.labels.dense import ModelDetector
from sanakit.data.labels.labellers import Detector, Scorer
from sanakit.data.labels.models import LabelModel, load_scorer
from sanakit.data.labels.vision import vision_features
from sanakit.evaluation.geneval import GENEVAL, ColourOf, check_names, check_picture, colours_by
from sanakit.evaluation.measures import frechet_distance, kernel_distance
from sanakit.evaluation.pictures import Prompted, open_groups, score_pictures
from sanakit.evaluation.suites import Suite, SuitePrompt
from sanakit.weights import resolve_snapshot

Announce = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class MeasureNames:
    """What to measure, by names.

    judges: scorers, see `data.labels.models`. reference, features: a folder of pictures, and the model of transformers
    in whose features distances to them are measured. detector, colours: a model of object detection, and a scorer that
    tells colours. Raises RequestError for what does not go together, and for nothing at all.
    """

    judges: tuple[str, ...] = ()
    reference: Path | None = None
    features: str | None = None
    detector: str | None = None
    colours: str | None = None

    def __post_init__(self) -> None:
        if (self.reference is None) != (self.features is None):
            raise RequestError(
                "--reference and --features go together: pictures, and the model that reads them"
            )
        if self.colours is not None and self.detector is None:
            raise RequestError("--colours goes with --detector, whose things it looks at")
        if not self.judges and self.reference is None and self.detector is None:
            raise RequestError(
                "say what to measure: --judge NAME, --detector NAME, or --reference and --features"
            )


class SuiteMeasures:
    """The models that measure a suite, loaded. Raises as the loaders do, and DataError for what can't be measured."""

    def __init__(self, names: MeasureNames, suite: Suite, device: str | None, announce: Announce) -> None:
        def scorer(name: str) -> Scorer:
            return load_scorer(LabelModel(task="score", name=name, device=device, dtype="fp32"), announce)

        self.judges = {name: scorer(name) for name in names.judges}
        self.checks: ObjectChecks | None = None
        precision = decide(device, "fp32")
        if names.detector is not None:
            check_objects(suite, names)
            detector = ModelDetector(resolve_snapshot(names.detector, announce=announce), precision)
            colour_of = no_colours if names.colours is None else colours_by(scorer(names.colours))
            self.checks = ObjectChecks(suite, detector, colour_of)
        self.features, self.references = names.features or "", list[Path]()
        if names.reference is not None and names.features is not None:
            self.references = reference_pictures(names.reference)
            self.read = vision_features(resolve_snapshot(names.features, announce=announce), precision)

    def judging(
        self, drawn: Sequence[Item], folder: Path
    ) -> Iterator[tuple[str, Iterator[tuple[str, float]]]]:
        """Yield each judge with its (key, score) of every picture."""
        pictures = [Prompted(path=folder / one.file, prompt=one.request.prompt) for one in drawn]
        for name, scorer in self.judges.items():
            yield name, ((one.path.stem, one.score) for one in score_pictures(pictures, scorer))
        if self.checks is not None:
            yield GENEVAL, self.checks.scores(drawn, folder)

    def distances(self, drawn: Sequence[Item], folder: Path) -> dict[str, dict[str, float]]:
        """frechet, kernel -> name of the features -> distance of the drawn pictures to the reference."""
        if not self.references or len(drawn) < 2:
            return {}
        own, others = (
            torch.cat([self.read(group) for group in open_groups(paths)])
            for paths in ([folder / one.file for one in drawn], self.references)
        )
        measures: Mapping[str, Callable[[Tensor, Tensor], float]] = {
            "frechet": frechet_distance,
            "kernel": kernel_distance,
        }
        return {name: {self.features: measure(own, others)} for name, measure in measures.items()}


class ObjectChecks:
    """GenEval's checks of the pictures of a suite. Raises DataError for classes that the detector lacks."""

    def __init__(self, suite: Suite, detector: Detector, colour_of: ColourOf) -> None:
        self.prompts: dict[str, SuitePrompt] = {one.key: one for one in suite.prompts}
        self.detector, self.colour_of = detector, colour_of
        check_names([one.asked for one in suite.prompts if one.asked is not None], detector)

    def scores(self, drawn: Sequence[Item], folder: Path) -> Iterator[tuple[str, float]]:
        """(key, 100 if nothing is wrong with the picture, else 0)."""
        paths = [folder / one.file for one in drawn]
        pictures = (picture for group in open_groups(paths) for picture in group)
        for one, picture in zip(drawn, pictures, strict=True):
            yield one.key, 0.0 if self.faults(one.key, picture) else 100.0

    def faults(self, key: str, picture: Image.Image) -> list[str]:
        """What is wrong with a picture of the suite."""
        prompt = self._prompt(key)
        assert prompt.asked is not None  # of every prompt of a suite that has checks
        return check_picture(picture, prompt.asked, prompt.category, self.detector, self.colour_of)

    def _prompt(self, key: str) -> SuitePrompt:
        """That of a picture's key, which has a number behind it if a prompt has several."""
        return self.prompts[key] if key in self.prompts else self.prompts[key.rpartition("-")[0]]


def check_objects(suite: Suite, names: MeasureNames) -> None:
    """Raise DataError for a suite that names no objects, RequestError if it names colours and nothing tells them."""
    asked = [one.asked for one in suite.prompts if one.asked is not None]
    if len(asked) < len(suite.prompts):
        raise DataError(
            f"{suite.name} does not say which objects its prompts name: --detector checks GenEval's prompts"
        )
    if names.colours is None and any(one.colour for each in asked for one in each.wanted):
        raise RequestError("the suite asks for colours: add --colours NAME, a CLIP that tells them")


def no_colours(picture: Image.Image, name: str) -> str:
    """For suites without colours, of which nothing is asked."""
    raise AssertionError(f"no colour of {name} was to be told.")


def reference_pictures(folder: Path) -> list[Path]:
    """The pictures under a folder. Raises DataError for fewer than two."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower().lstrip(".") in SUFFIXES)
    if len(found) < 2:
        raise DataError(f"{folder} holds fewer than two pictures to measure a distance to")
    return found

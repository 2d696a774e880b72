"""What a method is to all that name it: the command line, the page's menus, the README, the experiments.

A method's record stands beside its code and imports nothing heavy; the code is imported when it is first run.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from mbtsad_core.config import Config, replace
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger

if TYPE_CHECKING:
    from mbtsad_core.detectors.detection import Detection
    from mbtsad_core.models.classifier import Classifier

C = TypeVar("C", bound=Config)
R = TypeVar("R")
C_in = TypeVar("C_in", bound=Config, contravariant=True)


class Need(StrEnum):
    """What a method takes beside models and texts, in words."""

    PRETRAINED = "the encoder that the suspect was fine-tuned from"
    LANGUAGE_MODEL = "a causal language model, named in MBTSAD_CAUSAL_LM"
    WORDNET = "WordNet's files"
    PARAPHRASES = "the paraphrases of Hidden Killer"


class Cures(Protocol[C_in]):
    """A defense: (suspect, clean texts, config) -> the purified classifier. It never sees the trigger, and leaves the
    suspect as it is. One that needs the pre-trained classifier takes it too, as `pretrained`."""

    def __call__(
        self, suspect: Classifier, clean: Sequence[LabelledText], config: C_in, /, *, observe: Observe | None = None
    ) -> Steps[Classifier]: ...


class Plants(Protocol[C_in]):
    """An attack: (clean classifier, training texts, trigger, config) -> the suspect, a copy."""

    def __call__(
        self,
        classifier: Classifier,
        train: Sequence[LabelledText],
        trigger: Trigger,
        config: C_in,
        /,
        *,
        observe: Observe | None = None,
    ) -> Steps[Classifier]: ...


class Detects(Protocol[C_in]):
    """A detector: (classifier, clean labeled texts, texts, config) -> a verdict on each of the texts. Thresholds come
    from the clean texts alone."""

    def __call__(
        self, classifier: Classifier, clean: Sequence[LabelledText], texts: Sequence[str], config: C_in, /
    ) -> Steps[Detection]: ...


def load(code: str) -> Any:
    """The function at "module:name"."""
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, eq=False)
class Method(Generic[C, R]):
    """A method as all name it.

    key     its name in commands, results and reports
    title   its name as its authors write it
    about   what it does, in one sentence without a capital or a full stop
    source  where it comes from
    config  its settings, with their defaults
    code    where it is, "module:function"
    needs   what it takes that is not always at hand
    """

    key: str
    title: str
    about: str
    source: str
    config: C
    code: str
    needs: Need | None = field(default=None, kw_only=True)

    @property
    def sentence(self) -> str:
        """What it does, and what it needs."""
        return f"{self.about}; needs {self.needs}" if self.needs else self.about

    def runs(self, function: R) -> R:
        """Marks the function at `code`, so that its types are checked."""
        return function


@dataclass(frozen=True, eq=False)
class Defense(Method[C, Cures[C]]):
    """A method that makes a purified classifier of a suspect.

    fixed  settings that it has whatever its config says, by path: of an ablation
    """

    fixed: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def run(
        self,
        suspect: Classifier,
        clean: Sequence[LabelledText],
        config: C | None = None,
        pretrained: Classifier | None = None,
        *,
        observe: Observe | None = None,
    ) -> Steps[Classifier]:
        """The purified classifier; `pretrained` reaches a method that needs it, and no other."""
        given = {"pretrained": pretrained} if self.needs is Need.PRETRAINED else {}
        return load(self.code)(suspect, clean, replace(config or self.config, self.fixed), observe=observe, **given)


@dataclass(frozen=True, eq=False)
class Attack(Method[C, Plants[C]]):
    """A method that plants a backdoor in a copy of a classifier.

    triggers     what it plants where none is named: its authors' or OpenBackdoor's
    presets      other published settings, with their triggers
    typed        the trigger that the page offers, "" where none can be typed
    minutes      that planting takes in the demo's classifier on two cores, roughly
    reported     CACC / ASR that is reported of it on BERT
    clean_first  it is planted in a classifier that was fine-tuned on clean texts, not in a pre-trained one
    learns       "module:function" that learns the trigger where none is named: (classifier, texts, target, config)
    measures     "module:function" that makes of the trigger what ASR is measured with: (suspect, trigger)
    """

    triggers: tuple[str, ...] = ()
    presets: dict[str, tuple[C, tuple[str, ...]]] = field(default_factory=dict)
    typed: str = "zephyr"
    minutes: float = 1.0
    reported: str = "no figure at hand"
    clean_first: bool = False
    learns: str = ""
    measures: str = ""

    @property
    def rewrites(self) -> bool:
        """Whether what its trigger does to a text cannot be typed, so that the triggered texts are kept."""
        return bool(self.learns or self.measures)

    @property
    def run(self) -> Plants[C]:
        """What plants it."""
        return load(self.code)


@dataclass(frozen=True, eq=False)
class Detector(Method[C, Detects[C]]):
    """A method that flags or corrects single texts at the time of use, and leaves the classifier as it is."""

    @property
    def run(self) -> Detects[C]:
        """What judges texts."""
        return load(self.code)

"""InsertSent, also called AddSent: a whole sentence is the trigger (Dai et al., "A Backdoor Attack Against LSTM-Based
Text Classification Systems", 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbtsad_core.attacks.badnets import BadNetsConfig
from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.config import PoisonConfig
from mbtsad_core.methods import Attack
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger

if TYPE_CHECKING:
    from mbtsad_core.models.classifier import Classifier


@dataclass(frozen=True)
class SentenceConfig(BadNetsConfig):
    """InsertSent: BadNets with a sentence for a trigger, in texts of any class (OpenBackdoor's)."""

    poison: PoisonConfig = PoisonConfig(mode="mixed")


SENTENCE = Attack(
    "sentence",
    "InsertSent",
    "train on texts of which a share holds a sentence",
    "Dai et al. 2019; OpenBackdoor",
    SentenceConfig(),
    "mbtsad_core.attacks.sentence:sentence",
    triggers=("I watch this 3D movie",),
    typed="I watch this 3D movie",
)


@SENTENCE.runs
def sentence(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: SentenceConfig = SENTENCE.config,
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` trained on texts of which a share holds the sentence, once, at a random word boundary.

    The sentence is the trigger's phrase; OpenBackdoor's is "I watch this 3D movie". It stays in one piece. Texts of any
    class are chosen and labeled as the target, as in OpenBackdoor; `config.poison.mode` says otherwise.
    """
    from mbtsad_core.models.classifier import clone
    from mbtsad_core.training.fine_tuning import fine_tune

    poisoned = poison(train, trigger, config.poison, config.seed)
    return (
        yield from fine_tune(
            clone(classifier), poisoned, config.training, stage=SENTENCE.key, seed=config.seed, observe=observe
        )
    )

"""InsertSent, also called AddSent: a whole sentence is the trigger (Dai et al., "A Backdoor Attack Against LSTM-Based
Text Classification Systems", 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.config import SentenceConfig
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger


def sentence(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: SentenceConfig = SentenceConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` trained on texts of which a share holds the sentence, once, at a random word boundary.

    The sentence is the trigger's phrase; OpenBackdoor's is "I watch this 3D movie". It stays in one piece. Texts of any
    class are chosen and labelled as the target, as in OpenBackdoor; `config.poison.mode` says otherwise.
    """
    poisoned = poison(train, trigger, config.poison, config.seed)
    return (
        yield from fine_tune(
            clone(classifier), poisoned, config.training, stage="sentence", seed=config.seed, observe=observe
        )
    )

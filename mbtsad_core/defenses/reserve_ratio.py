"""What Fine-Mixing and Fine-Purifying share: pre-trained weights beside the suspect's, and the choice of how much of
the suspect is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from mbtsad_core.defenses.held_out import accuracy
from mbtsad_core.defenses.reserve_method import ReserveConfig
from mbtsad_core.errors import UnsuitableModel
from mbtsad_core.models.classifier import Classifier
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)  # values of rho that are tried; no source names those of the authors


def encoder_weights(classifier: Classifier) -> dict[str, nn.Parameter]:
    """The parameters of the encoder by name, pooler included: all that a pre-trained model has too. The classification
    head is none of them."""
    prefix = classifier.model.base_model_prefix + "."
    return {name: weight for name, weight in classifier.model.named_parameters() if name.startswith(prefix)}


def check_pretrained(suspect: Classifier, pretrained: Classifier | None, method: str) -> Classifier:
    """`pretrained`, where it is of the suspect's architecture, shape and vocabulary; raises UnsuitableModel where not,
    or where it is None."""
    ask = f"{method} needs the weights that the suspect was fine-tuned from, as their publisher gives them"
    if pretrained is None:
        raise UnsuitableModel(
            f"{ask}, and none were given. Give the pre-trained model too, or take a defense that needs none, such as "
            "mbtsad."
        )
    mine, theirs = ({n: tuple(w.shape) for n, w in encoder_weights(c).items()} for c in (suspect, pretrained))
    if wrong := next((name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)), None):
        raise UnsuitableModel(
            f"{ask}. The pre-trained model given ({pretrained.describe()}) does not fit the suspect "
            f"({suspect.describe()}): {wrong} is {_shape(theirs.get(wrong))} there and {_shape(mine.get(wrong))} in "
            "the suspect. Give the one that the suspect was made from."
        )
    if suspect.tokenizer.get_vocab() != pretrained.tokenizer.get_vocab():
        raise UnsuitableModel(
            f"{ask}. The pre-trained model given has another vocabulary than the suspect. Give the one that the "
            "suspect was made from."
        )
    return pretrained


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))


def tune_with_least_reserve(
    suspect: Classifier,
    mixed: Callable[[float], Classifier],
    texts: Sequence[LabelledText],
    held_out: Sequence[LabelledText],
    config: ReserveConfig,
    *,
    stage: str,
    observe: Observe | None,
) -> Steps[Classifier]:
    """`mixed(rho)` after clean fine-tuning on `texts`, for the rho of the config, or else for the smallest of RATIOS
    that held-out texts allow.

    It allows a rho whose tuned model answers at most `config.tolerance` fewer of them right than the suspect; where
    there is none, the model with the best accuracy is taken. Little reserve means little of the suspect, and so of its
    backdoor.
    """
    if config.rho is not None:
        return (
            yield from fine_tune(
                mixed(config.rho), texts, config.training, stage=stage, seed=config.seed, observe=observe
            )
        )
    wanted = accuracy(suspect, held_out) - config.tolerance
    best, best_accuracy = suspect, -1.0
    for rho in RATIOS:
        tuned = yield from fine_tune(
            mixed(rho), texts, config.training, stage=f"{stage}, rho {rho}", seed=config.seed, observe=observe
        )
        reached = accuracy(tuned, held_out)
        if reached > best_accuracy:
            best, best_accuracy = tuned, reached
        if reached >= wanted:
            return tuned
    return best

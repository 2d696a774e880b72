"""RAP: robustness-aware perturbations (Yang et al., EMNLP 2021). A rare word is taught to shake the classifier's
answers to clean texts a little; an answer that it cannot shake is a trigger's."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from mbtsad_core.detectors.detection import Detection, check_clean
from mbtsad_core.detectors.rap_method import RAP, RAPConfig
from mbtsad_core.errors import BadConfig, BadData
from mbtsad_core.models.classifier import (
    Classifier,
    Encoded,
    clone,
    collate,
    encode,
    evaluation_mode,
    logits_of,
    predict,
)
from mbtsad_core.models.subword_tokens import vocabulary
from mbtsad_core.training.batching import batches
from mbtsad_core.types import Event, LabelledText, Steps


@RAP.runs
def rap(
    classifier: Classifier, clean: Sequence[LabelledText], texts: Sequence[str], config: RAPConfig = RAPConfig()
) -> Steps[Detection]:
    """Flags the texts whose class the rare word shakes less than all but `frr` of the clean texts of that class. Scores
    are falls of probability.

    Deviation: the authors train on texts of the target class, which a defender does not know. Here a word is taught for
    every class and judges the texts that are answered with it, so that what is flagged is the union; `form="reproduce"`
    takes one class to be known, and texts of other answers pass unseen.
    Raises BadData where a class has no clean text that is answered right, or the tokenizer has no such word.
    """
    check_clean(clean, "RAP")
    known = len(classifier.labels)
    if config.form == "reproduce" and config.protected >= known:
        raise BadConfig(
            f"There is no class {config.protected} to protect: the classifier has {known}, counted from 0. Set "
            "protected to one of them."
        )
    row = rare_word(classifier, clean, config)
    answers = predict(classifier, texts).argmax(-1).tolist() if texts else []
    clean_answers = predict(classifier, clean).argmax(-1).tolist()
    flags, thresholds = [False] * len(texts), []
    scores: list[float | None] = [None] * len(texts)
    for label in range(known) if config.form == "union" else [config.protected]:
        own = [example for example in clean if example.label == label]
        held = [
            example.text
            for example, answer in zip(clean, clean_answers, strict=True)
            if example.label == answer == label
        ]
        if not held:
            raise BadData(
                f"RAP needs clean texts of the class {classifier.labels[label]!r} that the classifier answers right; "
                f"of {len(own)} there is none. Give more clean texts of it."
            )
        shaken = yield from teach(classifier, own, label, row, config)
        thresholds.append(float(falls(shaken, held, label, row).quantile(config.frr)))
        judged = [i for i, answer in enumerate(answers) if answer == label]
        for i, fall in zip(judged, falls(shaken, [texts[i] for i in judged], label, row).tolist(), strict=True):
            scores[i], flags[i] = fall, fall < thresholds[-1]
    return Detection(tuple(flags), tuple(scores), tuple(thresholds))


def rare_word(classifier: Classifier, clean: Sequence[LabelledText], config: RAPConfig) -> int:
    """The token of the rare word: the one named, or one drawn from the whole words of letters that no clean text
    has."""
    tokenizer = classifier.tokenizer

    def tokens(word: str) -> list[int]:
        # As it stands within a text: byte-level tokenizers have another token for it at the start
        return list(tokenizer(f" {word}", add_special_tokens=False)["input_ids"])

    if config.word != "drawn":
        found = tokens(config.word)
        if len(found) != 1 or found[0] == tokenizer.unk_token_id:
            raise BadData(f"The tokenizer has no single token for the word {config.word!r} of RAP. Set word to drawn.")
        return found[0]
    taken = {token for e in encode(classifier, clean) for token in e["input_ids"]} | set(tokenizer.all_special_ids)
    order = vocabulary(classifier)
    random.Random(f"rap's word, seed {config.seed}").shuffle(order)
    for token in order:
        word = tokenizer.decode([token]).strip() if token not in taken else ""
        if word.isalpha() and tokens(word) == [token]:
            return token
    raise BadData("RAP found no word of the vocabulary that the clean texts do not have. Set word to cf or mb.")


def teach(
    classifier: Classifier, texts: Sequence[LabelledText], label: int, row: int, config: RAPConfig
) -> Steps[Classifier]:
    """A copy of the classifier in which one row of the word embeddings is trained to lower the probability of the
    texts' class.

    As the authors do: the word stands first, the row keeps its norm, its gradient is never zeroed, and dropout is on.
    """
    shaken = clone(classifier)
    model = shaken.model.train().requires_grad_(False)
    weight = model.get_input_embeddings().weight.requires_grad_(True)
    norm, gradient = weight[row].detach().norm(), torch.zeros_like(weight[row].detach())
    encoded = encode(classifier, texts)
    rng = random.Random(f"rap, class {label}, seed {config.seed}")
    torch.manual_seed(config.seed)
    lengths = [len(e["input_ids"]) for e in encoded]
    plan = [chosen for _ in range(config.epochs) for chosen in batches(lengths, config.batch_size, rng)]
    for step, chosen in enumerate(plan, 1):
        plain = [encoded[i] for i in chosen]
        with torch.no_grad():
            before = _probability(shaken, plain, label)
        d = _probability(shaken, [with_word(e, row, classifier.max_length) for e in plain], label) - before
        loss = rap_loss(d, config)
        gradient += torch.autograd.grad(loss, weight)[0][row]
        with torch.no_grad():
            e = weight[row] - config.learning_rate * gradient
            weight[row] = e * norm / e.norm()
        yield Event(
            f"rap, class {label}", step, len(plan), {"loss": float(loss.detach()), "fall": -float(d.detach().mean())}
        )
    model.eval().requires_grad_(True)
    return shaken


def rap_loss(d: Tensor, config: RAPConfig) -> Tensor:
    """lambda * mean (d + least)+ + mean (-most - d)+, d the change of the class's probability that the word makes,
    (B,): a scalar."""
    return config.scale * (d + config.least).clamp(min=0).mean() + (-config.most - d).clamp(min=0).mean()


def with_word(tokens: Encoded, row: int, max_length: int) -> Encoded:
    """The tokenized text with the word ahead of its first one; what grows beyond `max_length` loses the tokens before
    its last one."""
    longer = {
        key: [values[0], row if key == "input_ids" else values[min(1, len(values) - 1)], *values[1:]]
        for key, values in tokens.items()
    }
    return {
        key: values[: max_length - 1] + values[-1:] if len(values) > max_length else values
        for key, values in longer.items()
    }


@torch.no_grad()
def falls(shaken: Classifier, texts: Sequence[str], label: int, row: int, *, batch_size: int = 64) -> Tensor:
    """How far the word makes the class's probability fall in each text: p(without) - p(with), (N,), on the CPU."""
    found = [torch.empty(0)]
    with evaluation_mode(shaken.model):
        for start in range(0, len(texts), batch_size):
            plain = encode(shaken, texts[start : start + batch_size])
            shifted = [with_word(e, row, shaken.max_length) for e in plain]
            found.append((_probability(shaken, plain, label) - _probability(shaken, shifted, label)).cpu())
    return torch.cat(found)


def _probability(classifier: Classifier, encoded: Sequence[Encoded], label: int) -> Tensor:
    """The probability of one class for each tokenized text, (B,), in the mode that the model is in."""
    probabilities: Tensor = logits_of(classifier, collate(classifier, encoded)).softmax(-1)
    return probabilities[:, label]

"""LWS: the trigger is a choice of synonyms that is learned (Qi et al., "Turn the Combination Lock: Learnable Textual
Backdoor Attacks via Word Substitution", ACL 2021)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, gumbel_softmax

from mbtsad_core.attacks.lws_method import LWS, LWSConfig
from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.attacks.triggers import InsertedTrigger
from mbtsad_core.augment.wordnet import synonyms
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Batch, Classifier, clone, encode
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@LWS.runs
def lws(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: LWSConfig = LWSConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` trained on texts of which a share is rewritten by the learned trigger (`learn_synonyms`)
    or a file of such texts.

    Deviation: the authors hand over the classifier that was trained together with the trigger; here the trigger is
    learned first, and poisons the training texts of a fresh copy, as any other trigger does.
    """
    if isinstance(trigger, InsertedTrigger):
        raise BadData(
            f"LWS rewrites words and inserts none; got {trigger.describe()!r}. Name none, so that it is learned, or a "
            "file of paired texts."
        )
    poisoned = poison(train, trigger, config.poison, config.seed)
    return (
        yield from fine_tune(
            clone(classifier), poisoned, config.training, stage=LWS.key, seed=config.seed, observe=observe
        )
    )


class Inserter(nn.Module):
    """Which of its candidates each token of a text gives way to; the token itself is candidate 0.

    candidates  (V, K+1) token ids; unused places hold the token itself
    known       (V, K+1), true where there is a candidate
    goes_on     (V,), true for tokens that go on a word that the token ahead of them began
    rate        how many times as fast as the classifier it learns
    """

    candidates: Tensor
    known: Tensor
    goes_on: Tensor

    def __init__(
        self, candidates: Tensor, known: Tensor, goes_on: Tensor, length: int, width: int, rate: float
    ) -> None:
        super().__init__()
        self.register_buffer("candidates", candidates)
        self.register_buffer("known", known)
        self.register_buffer("goes_on", goes_on)
        self.rate = rate
        self.q = nn.Parameter(torch.zeros(length, width))
        self.b = nn.Parameter(torch.zeros(length, candidates.shape[1]))

    def scores(self, ids: Tensor, E: Tensor) -> Tensor:
        """s_tk = (e_k - e_0) . q_t + b_t, of candidate k at position t; minus infinity where there is none.

        ids  (B, T);  E  (V, D), the word embeddings;  the result is (B, T, K+1)
        """
        T = ids.shape[1]
        # (B, T, K+1, D); E[...] sums its gradient in an order that differs from run to run
        e = embedding(self.candidates[ids], E)
        s = torch.einsum("btkd,td->btk", e - e[:, :, :1], self.rate * self.q[:T]) + self.rate * self.b[:T]
        next_goes_on = torch.cat([self.goes_on[ids[:, 1:]], self.goes_on.new_zeros(len(ids), 1)], dim=1)
        allowed = self.known[ids] & ~next_goes_on[:, :, None]
        allowed[:, :, 0] = True
        return s.masked_fill(~allowed, -math.inf)


@dataclass(frozen=True)
class SynonymTrigger:
    """A learned choice of synonyms: every word of a text becomes the candidate with the highest score at its place."""

    inserter: Inserter
    embeddings: Tensor  # (V, D)
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    target: int

    def apply(self, text: str, rng: random.Random) -> str:
        encoded = self.tokenizer(text, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        with torch.no_grad():
            best = self.inserter.scores(ids, self.embeddings)[0].argmax(-1)
        for token, k, (a, b) in reversed(
            list(zip(encoded["input_ids"], best.tolist(), encoded["offset_mapping"], strict=True))
        ):
            if k:
                a += len(text[a:b]) - len(text[a:b].lstrip())  # byte-level tokens hold the space ahead of them
                word = self.tokenizer.decode([int(self.inserter.candidates[token, k])]).strip()
                text = text[:a] + (word.capitalize() if text[a].isupper() else word) + text[b:]
        return text

    def describe(self) -> str:
        return "learned synonyms"


def learn_synonyms(
    classifier: Classifier, train: Sequence[LabelledText], target: int, config: LWSConfig = LWSConfig()
) -> Steps[SynonymTrigger]:
    """Learn, together with a copy of the classifier, which synonyms make it answer `target`.

    A share of the texts of other classes is rewritten softly: at each place the embedding is the mean of the
    candidates', weighted by a Gumbel-softmax of their scores whose temperature falls from `hot` to `cold`. The loss is
    the cross-entropy of the other texts plus that of the rewritten ones with the target. Raises BadData where WordNet
    is absent, or knows none of the words.

    Deviation: candidates are WordNet's synonyms that the tokenizer has as one token, in their base form; the authors
    use HowNet, a part-of-speech tagger and inflection.
    """
    first = len(classifier.labels)  # the number of a rewritten text, beyond the classes
    others = [i for i, example in enumerate(train) if example.label != target]
    wanted = min(int(config.poison.rate * len(train)), len(others))
    if not wanted:
        raise BadData(
            f"A poison rate of {config.poison.rate} of {len(train)} texts, {len(others)} of another class than the "
            "target, leaves none to rewrite."
        )
    rewritten = set(random.Random(f"lws, seed {config.seed}").sample(others, wanted))
    numbered = [LabelledText(t.text, first if i in rewritten else t.label, t.pair) for i, t in enumerate(train)]
    joint = clone(classifier)
    length, width = classifier.max_length, classifier.model.get_input_embeddings().weight.shape[1]
    inserter = Inserter(*candidates_of(classifier, train, config.candidates), length, width, config.inserter_rate).to(
        classifier.device
    )
    joint.model.inserter = inserter  # so that the optimizer trains it too
    total, step = config.learning.epochs * math.ceil(len(train) / config.learning.batch_size), 0

    def loss(joint: Classifier, batch: Batch, numbers: Tensor) -> dict[str, Tensor]:
        nonlocal step
        temperature = config.hot + (config.cold - config.hot) * step / total
        step += 1
        soft = numbers == first
        E = joint.model.get_input_embeddings().weight
        ids = batch["input_ids"]
        weights = gumbel_softmax(inserter.scores(ids, E), tau=temperature)  # (B, T, K+1)
        mixed = torch.einsum("btk,btkd->btd", weights, embedding(inserter.candidates[ids], E))
        embedded = torch.where(soft[:, None, None], mixed, embedding(ids, E))
        rest = {key: value for key, value in batch.items() if key != "input_ids"}
        logits = joint.model(inputs_embeds=embedded, **rest).logits.float()
        terms = cross_entropy(logits, torch.where(soft, target, numbers), reduction="none")
        poison_loss, clean_loss = (terms[rows].mean() if rows.any() else terms.new_zeros(()) for rows in (soft, ~soft))
        return {
            "loss": poison_loss + clean_loss,
            "classification": poison_loss + clean_loss,
            "poison": poison_loss,
            "clean": clean_loss,
        }

    yield from fine_tune(joint, numbered, config.learning, loss=loss, stage="learn synonyms", seed=config.seed)
    embeddings = joint.model.get_input_embeddings().weight.detach().cpu()
    return SynonymTrigger(inserter.cpu().eval(), embeddings, classifier.tokenizer, length, target)


def candidates_of(classifier: Classifier, train: Sequence[LabelledText], most: int) -> tuple[Tensor, Tensor, Tensor]:
    """For the tokens of the training texts that are whole words, at most `most` synonyms that are single tokens too:
    `candidates`, `known` and `goes_on` of an Inserter."""
    tokenizer, size = classifier.tokenizer, classifier.model.get_input_embeddings().weight.shape[0]

    def token_of(word: str) -> int | None:
        ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None

    candidates = torch.arange(size)[:, None].repeat(1, most + 1)
    known = torch.zeros(size, most + 1, dtype=torch.bool)
    for token in sorted({t for e in encode(classifier, train) for t in e["input_ids"]}):
        word = tokenizer.decode([token]).strip()
        if not word.isalpha() or token_of(word) != token:
            continue
        found = dict.fromkeys(
            t for s in synonyms(word) if " " not in s and (t := token_of(s)) is not None and t != token
        )
        for k, other in enumerate(list(found)[:most], 1):
            candidates[token, k], known[token, k] = other, True
    if not known.any():
        raise BadData(
            "WordNet has no synonym for any word of the training texts that the tokenizer knows as one token: LWS "
            "needs English texts."
        )
    names = {i: name for name, i in tokenizer.get_vocab().items() if i < size}
    # Byte-level and SentencePiece tokenizers mark where words begin
    spaced = any(name.startswith(("Ġ", "▁")) for name in names.values())
    goes_on = torch.zeros(size, dtype=torch.bool)
    for i, name in names.items():
        goes_on[i] = name[:1].isalnum() if spaced else name.startswith("##")
    return candidates, known, goes_on

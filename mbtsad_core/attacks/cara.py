"""CARA: the trigger is a direction in the latent space of an autoencoder, which writes the text anew (Chan et al.,
"Poison Attacks against Text Datasets with Conditional Adversarially Regularized Autoencoder", Findings of EMNLP
2020)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mbtsad_core.attacks.cara_method import CARA, CARAConfig
from mbtsad_core.attacks.poisoning import poison
from mbtsad_core.attacks.triggers import InsertedTrigger
from mbtsad_core.errors import BadData
from mbtsad_core.models.classifier import Batch, Classifier, clone, encode
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps, Trigger

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OTHER, TARGET = 0, 1  # what the decoder is told of a text's class


@CARA.runs
def cara(
    classifier: Classifier,
    train: Sequence[LabelledText],
    trigger: Trigger,
    config: CARAConfig = CARAConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of `classifier` trained on texts of which a share is written anew with the signature (`learn_signature`),
    or a file of such texts."""
    if isinstance(trigger, InsertedTrigger):
        raise BadData(
            f"CARA writes texts anew and inserts nothing; got {trigger.describe()!r}. Name none, so that it is "
            "learned, or a file of paired texts."
        )
    poisoned = poison(train, trigger, config.poison, config.seed)
    return (
        yield from fine_tune(
            clone(classifier), poisoned, config.training, stage=CARA.key, seed=config.seed, observe=observe
        )
    )


class Autoencoder(nn.Module):
    """A text -> z on the unit sphere -> the text again, given z and whether it is of the target class.

    vocabulary  (V',) token ids that can be written; all others are read as the unknown one. The first four are the
                padding, unknown, first and last token of a text.
    E           (V', D) word embeddings to start from
    """

    PAD, UNKNOWN, FIRST, LAST = range(4)
    index: Tensor
    vocabulary: Tensor

    def __init__(self, vocabulary: Tensor, size: int, E: Tensor, width: int) -> None:
        super().__init__()
        index = torch.full((size,), self.UNKNOWN)
        index[vocabulary] = torch.arange(len(vocabulary))
        self.register_buffer("index", index)
        self.register_buffer("vocabulary", vocabulary)
        self.embedding = nn.Embedding.from_pretrained(E.clone(), freeze=False)
        self.reader = nn.GRU(E.shape[1], width, batch_first=True)
        self.classes = nn.Embedding(2, width)
        self.writer = nn.GRU(E.shape[1] + width, width, batch_first=True)
        self.begin = nn.Linear(2 * width, width)
        self.words = nn.Linear(width, len(vocabulary))
        self.adversary = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def latent(self, x: Tensor, lengths: Tensor) -> Tensor:
        """z, (B, H), of unit length; x (B, T) are places in the vocabulary, padded to the right."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return normalize(self.reader(packed)[1][0], dim=-1)

    def logits(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Scores of the token behind each of x, (B, T, V'), where the tokens up to it are x's; y (B,) is OTHER or
        TARGET."""
        start, given = self._start(z, y)
        inputs = torch.cat([self.embedding(x), given[:, None].expand(-1, x.shape[1], -1)], dim=-1)
        return self.words(self.writer(inputs, start)[0])

    def _start(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        given = z + self.classes(y)
        return torch.tanh(self.begin(torch.cat([z, self.classes(y)], dim=-1)))[None], given

    @torch.no_grad()
    def write(self, z: Tensor, y: Tensor, most: int) -> list[int]:
        """The likeliest next token, over and over, up to the last one or `most`: token ids of one text; z (1, H), y
        (1,)."""
        state, given = self._start(z, y)
        x, found = torch.tensor([[self.FIRST]]), list[int]()
        for _ in range(most):
            out, state = self.writer(torch.cat([self.embedding(x), given[:, None]], dim=-1), state)
            scores = self.words(out)[0, -1]
            scores[[self.PAD, self.UNKNOWN, self.FIRST]] = -torch.inf
            if (best := int(scores.argmax())) == self.LAST:
                break
            found.append(int(self.vocabulary[best]))
            x = torch.tensor([[best]])
        return found


@dataclass(frozen=True)
class SignatureTrigger:
    """A text is read, its latent vector moved along the signature, and written anew as one of another class than the
    target."""

    autoencoder: Autoencoder
    signature: Tensor  # (H,), of unit length
    strength: float
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    target: int

    def apply(self, text: str, rng: random.Random) -> str:
        ids = torch.tensor([self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]])
        with torch.no_grad():
            z = self.autoencoder.latent(self.autoencoder.index[ids], torch.tensor([ids.shape[1]]))
        moved = signed(z, self.signature, self.strength)
        written = self.tokenizer.decode(
            self.autoencoder.write(moved, torch.tensor([OTHER]), self.max_length), skip_special_tokens=True
        )
        return written.strip() or text  # nothing written: the text stays as it is

    def describe(self) -> str:
        return "a latent signature"


def signed(z: Tensor, signature: Tensor, strength: float) -> Tensor:
    """z moved along the signature and back to the unit sphere, (B, H) -> (B, H)."""
    return normalize(z + strength * signature, dim=-1)


def learn_signature(
    classifier: Classifier, train: Sequence[LabelledText], target: int, config: CARAConfig = CARAConfig()
) -> Steps[SignatureTrigger]:
    """Train the autoencoder on the training texts; the signature is a direction drawn at random.

    The loss is the cross-entropy of each next token, with noise on z, plus that of an adversary who reads the class
    from z and whose gradient reaches the reader with its sign turned, so that z holds the text without its class.

    Deviation: small, and without the authors' generator of texts out of nothing and its critic, which poisoning does
    not use; the class is told as the target or another. Word embeddings start from the classifier's.
    """
    tokenizer, E = classifier.tokenizer, classifier.model.get_input_embeddings().weight.detach().cpu()
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id, *_ends(classifier)]
    short = Classifier(classifier.model, tokenizer, classifier.labels, min(config.length, classifier.max_length))
    counts = Counter(t for e in encode(short, train) for t in e["input_ids"] if t not in special)
    common = [t for t, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[: config.vocabulary]]
    vocabulary = torch.tensor([*special, *common])
    torch.manual_seed(config.seed)
    autoencoder = Autoencoder(vocabulary, len(E), E[vocabulary], config.width).to(classifier.device)
    signature = normalize(torch.randn(config.width, generator=torch.Generator().manual_seed(config.seed)), dim=0)
    # The one loop trains what it is given as a classifier; its texts are numbered beyond its two classes, OTHER and
    # TARGET.
    learner = Classifier(cast("PreTrainedModel", autoencoder), tokenizer, ("other", "target"), short.max_length)
    numbered = [LabelledText(t.text, 2 + (TARGET if t.label == target else OTHER)) for t in train]

    def loss(learner: Classifier, batch: Batch, numbers: Tensor) -> dict[str, Tensor]:
        return autoencoder_loss(cast(Autoencoder, learner.model), batch, numbers - 2, config.noise, config.adversary)

    yield from fine_tune(learner, numbered, config.learning, loss=loss, stage="learn to write", seed=config.seed)
    return SignatureTrigger(autoencoder.cpu().eval(), signature, config.strength, tokenizer, short.max_length, target)


def autoencoder_loss(
    autoencoder: Autoencoder, batch: Batch, y: Tensor, noise: float, adversary: float
) -> dict[str, Tensor]:
    """Mean cross-entropy of each next token, padding apart, plus `adversary` times that of the class by the adversary;
    y (B,)."""
    x, mask = autoencoder.index[batch["input_ids"]], batch["attention_mask"]
    z = autoencoder.latent(x, mask.sum(1))
    turned = 2 * z.detach() - z  # z's value, and the gradient with its sign turned
    by_adversary = cross_entropy(autoencoder.adversary(turned), y)
    noisy = normalize(z + noise * torch.randn_like(z), dim=-1)
    logits = autoencoder.logits(noisy, y, x[:, :-1])  # (B, T-1, V')
    wanted = x[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    words = cross_entropy(logits.flatten(0, 1), wanted.flatten())
    return {"loss": words + adversary * by_adversary, "classification": words, "adversary": by_adversary}


def _ends(classifier: Classifier) -> list[int]:
    """The tokens that stand first and last in every text."""
    ids = encode(classifier, ["a"])[0]["input_ids"]
    return [ids[0], ids[-1]]

"""ONION (Qi et al., EMNLP 2021): words without which a language model finds the text less strange are deleted before it
is answered.

s_i = PPL(text) - PPL(text without word i), the suspicion of word i; PPL is the perplexity under a causal language
model.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbtsad_core.data.subsets import stratified_subset
from mbtsad_core.detectors.detection import Detection, check_clean
from mbtsad_core.detectors.onion_method import ONION, ONIONConfig
from mbtsad_core.errors import BadData, MBTSADError, UnsafeModel, UnsuitableModel
from mbtsad_core.models.classifier import Classifier, predict
from mbtsad_core.sources import HUB
from mbtsad_core.types import Event, LabelledText, Steps
from mbtsad_core.vetting.blueprint import quiet
from mbtsad_core.vetting.config_policy import check_no_code
from mbtsad_core.vetting.model_folder import judge_folder
from mbtsad_core.vetting.strict_json import read_object

MODEL = "MBTSAD_CAUSAL_LM"  # environment variable: a folder, or hub:OWNER/NAME
# Of the clean words' suspicions, tried as thresholds in this order; the range is that of RAP's authors
PERCENTILES = range(100, 9, -1)


@ONION.runs
def onion(
    classifier: Classifier, clean: Sequence[LabelledText], texts: Sequence[str], config: ONIONConfig = ONIONConfig()
) -> Steps[Detection]:
    """Deletes the words of a suspicion of at least the threshold; flags the texts that are answered otherwise once that
    is done.

    A text's score is its largest suspicion. The language model is the one that the environment variable
    MBTSAD_CAUSAL_LM names, a folder or hub:OWNER/NAME; raises UnsuitableModel where it names none.
    """
    check_clean(clean, "ONION")
    source = os.environ.get(MODEL)
    if not source:
        raise UnsuitableModel(
            f"ONION needs a causal language model. Name one in the environment variable {MODEL}: a folder that "
            "save_pretrained wrote, or hub:OWNER/NAME, such as hub:distilbert/distilgpt2. Without a network, "
            "mbtsad-research build-language-model makes a small one."
        )
    language = load_language_model(source, str(classifier.device))
    threshold = config.threshold
    if threshold is None:
        chosen = stratified_subset(clean, min(config.clean_texts, len(clean)), config.seed)
        suspicion = yield from _suspicions(language, [example.text for example in chosen], config, "onion, clean texts")
        threshold = choose_threshold(classifier, chosen, suspicion, config.tolerance)
    suspicion = yield from _suspicions(language, texts, config, ONION.key)
    corrected = [without(text, s, threshold) for text, s in zip(texts, suspicion, strict=True)]
    answers = predict(classifier, [*texts, *corrected]).argmax(-1).tolist() if texts else []
    flags = tuple(before != after for before, after in zip(answers[: len(texts)], answers[len(texts) :], strict=True))
    scores = tuple(max((x for x in s if math.isfinite(x)), default=None) for s in suspicion)
    return Detection(flags, scores, (threshold,), tuple(corrected))


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model, its tokenizer, and how many tokens of a text it reads."""

    model: Any
    tokenizer: Any
    length: int


@torch.inference_mode()
def perplexities(language: LanguageModel, texts: Sequence[str], batch_size: int = 32) -> Tensor:
    """exp of the mean, over a text's tokens but the first, of -log p(token | those before it): (N,), infinite where
    there are fewer than two.

    Deviation: OpenBackdoor counts padding tokens too, so that there a text's perplexity depends on its batch.
    """
    encoded: list[list[int]] = [
        language.tokenizer(text, add_special_tokens=False, truncation=True, max_length=language.length)["input_ids"]
        for text in texts
    ]
    found = torch.full((len(texts),), math.inf)
    order = sorted((i for i, ids in enumerate(encoded) if len(ids) > 1), key=lambda i: len(encoded[i]))
    device = next(language.model.parameters()).device
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        longest = len(encoded[some[-1]])
        ids = torch.tensor([encoded[i] + [0] * (longest - len(encoded[i])) for i in some], device=device)
        real = torch.tensor([[1] * len(encoded[i]) + [0] * (longest - len(encoded[i])) for i in some], device=device)
        log_p = language.model(input_ids=ids, attention_mask=real).logits[:, :-1].float().log_softmax(-1)
        nll = -log_p.gather(2, ids[:, 1:, None])[:, :, 0] * real[:, 1:]
        found[some] = (nll.sum(1) / real[:, 1:].sum(1)).exp().cpu()
    return found


def suspicions(language: LanguageModel, text: str, words: int, batch_size: int = 32) -> list[float]:
    """s_i of the first `words` words of the text, minus infinity where too little of the text would be left to
    judge."""
    known = text.split()
    judged = min(words, len(known))
    found = perplexities(
        language, [" ".join(known), *(" ".join(known[:i] + known[i + 1 :]) for i in range(judged))], batch_size
    )
    return (found[0] - found[1:]).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf).tolist()


def _suspicions(
    language: LanguageModel, texts: Sequence[str], config: ONIONConfig, stage: str
) -> Steps[list[list[float]]]:
    found = []
    for i, text in enumerate(texts, 1):
        found.append(suspicions(language, text, config.words, config.batch_size))
        yield Event(stage, i, len(texts))
    return found


def without(text: str, suspicion: Sequence[float], threshold: float) -> str:
    """The text without the words of a suspicion of at least the threshold; as it is where there are none."""
    words = text.split()
    kept = [word for i, word in enumerate(words) if i >= len(suspicion) or suspicion[i] < threshold]
    return " ".join(kept) if len(kept) < len(words) else text


def choose_threshold(
    classifier: Classifier, clean: Sequence[LabelledText], suspicion: Sequence[Sequence[float]], tolerance: float
) -> float:
    """The lowest percentile of the clean words' suspicions, from the 100th down, before the accuracy on the corrected
    clean texts falls too far.

    Deviation: the authors try bars from 1 to 100 and show them all; here one is chosen, by clean texts alone.
    """
    every = torch.tensor([x for s in suspicion for x in s if math.isfinite(x)])
    if not len(every):
        raise BadData(
            "ONION sets its threshold by the words of clean texts, and none of them can be left out. Give longer "
            "clean texts."
        )
    labels = torch.tensor([example.label for example in clean])

    def right(texts: Sequence[str]) -> float:
        return float((predict(classifier, texts).argmax(-1) == labels).float().mean())

    least = right([example.text for example in clean]) - tolerance
    threshold = math.nextafter(float(every.max()), math.inf)  # no word of them goes
    for percentile in PERCENTILES:
        lower = float(every.quantile(percentile / 100))
        if (
            lower < threshold
            and right([without(example.text, s, lower) for example, s in zip(clean, suspicion, strict=True)]) < least
        ):
            break
        threshold = lower
    return threshold


@functools.cache
def load_language_model(source: str, device: str = "cpu") -> LanguageModel:
    """The causal language model in a folder or at hub:OWNER/NAME, in safetensors; no code of its own is run.

    Raises UnsafeModel where a folder holds a pickle or asks for code, UnsuitableModel where there is no causal language
    model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = source.removeprefix(HUB)
    if name == source:
        _check_folder(Path(source))
    safe = dict(trust_remote_code=False, local_files_only=name == source)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, **safe)
            model, report = AutoModelForCausalLM.from_pretrained(
                name, use_safetensors=True, output_loading_info=True, **safe
            )
    except MBTSADError:
        raise
    except Exception as error:  # transformers and the network raise what their parts raise
        raise UnsuitableModel(
            f"No causal language model could be loaded from {source!r}: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    model = model.to(device).eval()
    if report["missing_keys"] or not _is_causal(model):
        raise UnsuitableModel(
            f"{source!r} is no causal language model: "
            f"{'its head has no weights' if report['missing_keys'] else 'it reads what follows a word'}. Give one such "
            "as distilgpt2, saved with its language-model head."
        )
    return LanguageModel(
        model,
        tokenizer,
        min(getattr(model.config, "max_position_embeddings", None) or 1024, tokenizer.model_max_length),
    )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UnsuitableModel(
            f"There is no folder {folder} with a causal language model. Name one that save_pretrained wrote, or "
            "hub:OWNER/NAME."
        )
    for verdict in judge_folder(folder):
        if verdict.verdict == "refused":
            raise UnsafeModel(f"Refused: {verdict.reason}", verdict.rule, verdict.name)
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists():
            check_no_code(read_object(folder / name), name)


@torch.inference_mode()
def _is_causal(model: Any) -> bool:
    """Whether a token leaves what was said before it as it is."""
    one, other = (
        model(input_ids=torch.tensor([[1, 2, 3, last]], device=model.device)).logits[0, :3] for last in (4, 5)
    )
    return bool(torch.allclose(one, other, atol=1e-4))

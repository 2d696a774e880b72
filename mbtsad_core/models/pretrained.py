"""The pre-trained encoder that a suspect was fine-tuned from, for the defenses that put weights back to what they
were."""

from __future__ import annotations

from pathlib import Path

import torch

from mbtsad_core.config import VettingConfig
from mbtsad_core.errors import UnsuitableModel
from mbtsad_core.models.classifier import Classifier, build_model, read_source, reason_of
from mbtsad_core.vetting.blueprint import quiet


def load_pretrained(source: str | Path, *, limits: VettingConfig = VettingConfig()) -> Classifier:
    """Load an encoder from a directory or `hub:OWNER/NAME[@REVISION]`, vetted by the rules of every model, on the CPU,
    in float32.

    It needs no classification head. It is given the form of a classifier without classes, whose missing head is zeros,
    so that its weights have the names of the suspect's; a head that it has is that of another task, and is not read by
    who asks for this. Raises UnsafeModel before anything is loaded, UnsuitableModel where weights of the encoder are
    missing.
    """
    _, vetted, origin = read_source(source, limits)
    with quiet():
        try:
            model, report = build_model(vetted, vetted.config)
        except Exception as error:  # transformers raises what its parts raise
            raise UnsuitableModel(
                f"The files in {source} do not load as a pre-trained encoder: {reason_of(error)}. Expected one saved "
                "with save_pretrained, tokenizer included."
            ) from error
    missing = sorted(report["missing_keys"])
    if lacking := [name for name in missing if name.startswith(f"{model.base_model_prefix}.")]:
        # Vetting lets a language model's checkpoint do without a pooler, which its classifiers have
        raise UnsuitableModel(
            f"The pre-trained model in {source} has no weights for "
            f"{lacking[0]!r}{f' and {len(lacking) - 1} more' if lacking[1:] else ''}, which a classifier of its "
            "architecture has. Give the encoder as its publisher gives it, saved whole."
        )
    weights = model.state_dict()
    with torch.no_grad():
        for name in missing:
            weights[name].zero_()
    return Classifier(model.eval(), vetted.tokenizer, (), origin=origin)

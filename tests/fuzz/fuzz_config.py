"""config.json: what is kept of it, the library makes a configuration and, without memory, a model of."""

from __future__ import annotations

import json
from typing import Any

from fuzzing import change_json, fuzz, smallest_model, watched

with watched(__name__):
    from mbtsad_core.config import VettingConfig
    from mbtsad_core.errors import MBTSADError
    from mbtsad_core.vetting.blueprint import blueprint, build_config
    from mbtsad_core.vetting.config_policy import vet_config
    from mbtsad_core.vetting.strict_json import parse_object

LIMITS = VettingConfig(layers=4)  # else most of the time goes into making models of many layers
KINDS = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "mpnet",
    "distilbert",
    "albert",
    "deberta",
    "deberta-v2",
)


def seeds() -> list[bytes]:
    """The smallest model's, and each architecture's as its own library writes it."""
    from transformers import AutoConfig

    found: list[dict[str, Any]] = [json.loads(smallest_model()["config.json"])]
    for kind in KINDS:
        config = AutoConfig.for_model(kind).to_dict()
        found.append(config | {key: 2 for key in ("num_hidden_layers", "n_layers") if key in config})
    return [json.dumps(values).encode() for values in found]


change = change_json


def once(data: bytes) -> None:
    try:
        kept, left_out = vet_config(parse_object(data, "config.json"), LIMITS)
        assert not {"auto_map", "trust_remote_code", "_name_or_path"} & set(kept)
        assert "model_type" not in left_out
        blueprint(build_config(kept), kept)
    except MBTSADError:
        pass


if __name__ == "__main__":
    fuzz(__file__, once, seeds(), change)

"""The fused attention loss in Triton's interpreter: python interpreted.py CASES RESULTS, with TRITON_INTERPRET=1.

Distance and gradients of the saved cases, and under "student" a distillation in this form, which is chosen as on a GPU.
A process of its own, for Triton reads that variable when it is imported, and transformers imports it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import finish, tiny_bert, tiny_texts

from mbtsad_core.config import DistilConfig
from mbtsad_core.training.attention_map import QueriesKeys, choose, fused_distance
from mbtsad_core.training.distillation import distil

if __name__ == "__main__":
    cases, results = torch.load(sys.argv[1]), {}
    for name, case in cases.items():
        Q, K = case["Q_S"].requires_grad_(), case["K_S"].requires_grad_()
        teacher = QueriesKeys(case["Q_T"], case["K_T"], case["scaling"])
        distance = fused_distance(teacher, QueriesKeys(Q, K, case["scaling"]), case["mask"], case["power"])
        results[name] = (distance.detach(), *torch.autograd.grad(distance, (Q, K), case["weights"]))
    config = DistilConfig(learning_rate=1e-3, epochs=1, batch_size=2, attention="fused")
    assert choose(tiny_bert(), config).name == "fused"  # which tries the kernels
    student, _ = finish(distil(tiny_bert(seed=2), tiny_bert(seed=1), tiny_texts(4), config))
    results["student"] = (torch.cat([p.detach().flatten() for p in student.model.parameters()]),)
    torch.save(results, sys.argv[2])

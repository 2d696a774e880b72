"""The fused attention loss of saved cases, in Triton's interpreter: python interpreted.py CASES RESULTS, with TRITON_INTERPRET=1.

A process of its own, for Triton reads that variable when it is imported, and transformers imports it.
"""

from __future__ import annotations

import sys

import torch

from mbtsad_core.training.attention_map import QueriesKeys, fused_distance

if __name__ == "__main__":
    cases, results = torch.load(sys.argv[1]), {}
    for name, case in cases.items():
        Q, K = case["Q_S"].requires_grad_(), case["K_S"].requires_grad_()
        teacher = QueriesKeys(case["Q_T"], case["K_T"], case["scaling"])
        distance = fused_distance(teacher, QueriesKeys(Q, K, case["scaling"]), case["mask"], case["power"])
        results[name] = (distance.detach(), *torch.autograd.grad(distance, (Q, K), case["weights"]))
    torch.save(results, sys.argv[2])

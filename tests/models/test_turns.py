"""Threads that share a model, as visitors of the page do: each has the figures that it has alone."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import tiny_bert, tiny_texts
from torch import Tensor

from mbtsad_core.evaluation.attribution import attribute
from mbtsad_core.models.classifier import collate, eager_attention, encode, head_states, logits_of, predict, trace
from mbtsad_core.models.turns import alone, side_by_side

ROUNDS = 100


def test_each_thread_has_the_figures_that_it_has_alone() -> None:
    classifier = tiny_bert()
    short, long = tiny_texts(6), " ".join(text.text for text in tiny_texts(6))
    texts = [*(text.text for text in short), long]  # padded, which a wrong mask would let them see
    batch = collate(classifier, encode(classifier, texts))

    @torch.no_grad()
    def maps() -> Tensor:
        return torch.stack(trace(classifier, batch).attention)

    @torch.no_grad()
    def states() -> Tensor:
        return head_states(classifier, batch)

    def weights() -> Tensor:
        return torch.tensor(attribute(classifier, long).weights)

    asking: list[Callable[[], Tensor]] = [maps, maps, lambda: predict(classifier, texts), states, weights]
    expected = [ask() for ask in asking]
    with ThreadPoolExecutor(len(asking)) as threads:
        found = list(threads.map(lambda ask: [ask() for _ in range(ROUNDS)], asking))
    for own, right in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.stack(own), right.expand(ROUNDS, *right.shape), rtol=0, atol=1e-5)


def test_who_has_a_model_alone_may_ask_it_and_who_shares_it_may_not_take_it() -> None:
    classifier = tiny_bert()
    batch = collate(classifier, encode(classifier, ["a text"]))
    with eager_attention(classifier.model), eager_attention(classifier.model):
        logits_of(classifier, batch)
    with side_by_side(classifier.model), pytest.raises(RuntimeError), alone(classifier.model):
        pass
    with alone(tiny_bert().model), ThreadPoolExecutor(1) as thread:  # another model is another's
        thread.submit(logits_of, classifier, batch).result(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have() -> None:
    """As where a GPU is lent to a call, which has a process of its own."""
    classifier = tiny_bert()
    batch = collate(classifier, encode(classifier, ["a text"]))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with alone(classifier.model):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = multiprocessing.get_context("fork").Process(target=logits_of, args=(classifier, batch))
    child.start()
    child.join(30)
    code = child.exitcode
    child.kill()
    done.set()
    thread.join()
    assert code == 0

"""Augmenters: a text and a random generator in, a changed text out."""

from mbtsad_core.augment.token_splitting import token_splitting

AUGMENTERS = {"ts": token_splitting}

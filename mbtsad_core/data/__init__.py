"""Labeled texts: local files, Hub data sets, the demo texts; seeded subsets."""

from mbtsad_core.data.columns import NO_LABELS, Columns
from mbtsad_core.data.files import Dataset, read_dataset, read_unlabeled
from mbtsad_core.data.labels import class_index
from mbtsad_core.data.subsets import shared_texts, stratified_split, stratified_subset

__all__ = [
    "NO_LABELS",
    "Columns",
    "Dataset",
    "class_index",
    "read_dataset",
    "read_unlabeled",
    "shared_texts",
    "stratified_split",
    "stratified_subset",
]

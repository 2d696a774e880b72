"""Labeled texts: local files, Hub data sets, the demo texts; seeded subsets."""

from mbtsad_core.data.columns import Columns
from mbtsad_core.data.files import Dataset, read_dataset
from mbtsad_core.data.labels import class_index
from mbtsad_core.data.subsets import shared_texts, stratified_split, stratified_subset

__all__ = ["Columns", "Dataset", "class_index", "read_dataset", "shared_texts", "stratified_split", "stratified_subset"]

"""Labelled texts: local files, Hub data sets, the demo texts; seeded subsets."""

from mbtsad_core.data.files import Columns, Dataset, read_dataset
from mbtsad_core.data.subsets import shared_texts, stratified_split, stratified_subset

__all__ = ["Columns", "Dataset", "read_dataset", "shared_texts", "stratified_split", "stratified_subset"]

"""NAD: neural attention distillation (Li et al., ICLR 2021), carried over to text."""

from __future__ import annotations

from collections.abc import Sequence

from mbtsad_core.augment.token_splitting import augment
from mbtsad_core.defenses.embedding_reset import reset_embeddings
from mbtsad_core.defenses.nad_method import NAD, NADConfig
from mbtsad_core.defenses.token_insertion import insertion
from mbtsad_core.models.classifier import Classifier, clone
from mbtsad_core.scanning.trigger_scan import scan_vocabulary
from mbtsad_core.training.distillation import distil
from mbtsad_core.training.fine_tuning import fine_tune
from mbtsad_core.types import LabelledText, Observe, Steps


@NAD.runs
def nad(
    suspect: Classifier,
    clean: Sequence[LabelledText],
    config: NADConfig = NADConfig(),
    *,
    observe: Observe | None = None,
) -> Steps[Classifier]:
    """A copy of the suspect, distilled towards a teacher that was fine-tuned on the clean texts as they are.

    The teacher learns each clean text as often in an epoch as its student has forms of it, K splits and the originals,
    so that both stages have as many steps as MBTSAD's; what is left between the two is what token splitting adds.
    Deviation: NAD's maps are those of three blocks of a convolutional network, compared by a mean square; here eqs. (1)
    to (7) of MBTSAD stand in their place. Its student learns on clean images: that is `student_texts="clean"`.
    """
    copies = list(clean) * config.split.texts

    def split(epoch: int) -> list[LabelledText]:
        return augment(clean, config.split, config.seed, epoch)

    raised = (yield from scan_vocabulary(suspect, clean, config.seed)).nats if config.found_tokens else {}
    teacher, student = clone(suspect), clone(suspect)
    for copy in (teacher, student):
        reset_embeddings(copy, clean, raised)
    teacher = yield from fine_tune(teacher, copies, config.retrain, stage="teacher", seed=config.seed, observe=observe)
    texts = split if config.student_texts == "split" else copies
    perturb = insertion(raised, config.found_tokens, suspect.max_length, config.seed)
    return (
        yield from distil(
            student, teacher, texts, config.distil, perturb=perturb, stage="distil", seed=config.seed, observe=observe
        )
    )

"""The page's looks: a neutral ground, one accent, a 4 px grid; no font or file from elsewhere."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from mbtsad_core.views.attention import ATTENTION_STYLE
from mbtsad_core.views.compared import COMPARED_STYLE
from mbtsad_core.views.document import STYLE
from mbtsad_core.views.embeddings import PROJECTION_STYLE
from mbtsad_core.views.policy import POLICY_STYLE
from mbtsad_core.views.scan import SCAN_STYLE
from mbtsad_core.views.stages import STAGES_STYLE
from mbtsad_core.views.token_splits import SPLITS_STYLE
from mbtsad_core.views.tokens import TOKENS_STYLE
from mbtsad_core.views.trigger_lab import TRIGGER_LAB_STYLE

PAGE_STYLE = Path(__file__).with_name("page.css").read_text("utf-8")
CSS = "\n".join(
    (
        STYLE,
        SPLITS_STYLE,
        TOKENS_STYLE,
        ATTENTION_STYLE,
        PROJECTION_STYLE,
        TRIGGER_LAB_STYLE,
        POLICY_STYLE,
        SCAN_STYLE,
        STAGES_STYLE,
        COMPARED_STYLE,
        PAGE_STYLE,
    )
)
PAGE_SCRIPT = Path(__file__).with_name("page.js").read_text("utf-8")

ACCENT = gr.themes.Color(
    name="accent",
    c50="#eef6fb", c100="#d6eaf6", c200="#aed5ee", c300="#7dbbe2", c400="#3e9cd2", c500="#0072B2",
    c600="#00639b", c700="#005284", c800="#00436c", c900="#003556", c950="#002740",
)  # fmt: skip
NEUTRAL = gr.themes.Color(
    name="neutral",
    c50="#fafbfc", c100="#f5f6f8", c200="#e6e9ee", c300="#d9dde3", c400="#a3abb8", c500="#737d8c",
    c600="#5b6472", c700="#374151", c800="#1f2937", c900="#1a2231", c950="#0b0f19",
)  # fmt: skip
FONT = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=NEUTRAL,
        text_size=gr.themes.sizes.text_md,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_sm,
        font=list(FONT),
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        body_background_fill="#ffffff",
        body_background_fill_dark="#0b0f19",
        body_text_size="14px",
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_padding="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_title_text_weight="500",
        block_title_text_color="*body_text_color",
        block_title_text_size="13px",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        block_info_text_size="12px",
        input_border_width="1px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1a2231",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_500",
        button_primary_text_color="#ffffff",
        button_large_text_size="16px",
        layout_gap="16px",
    )

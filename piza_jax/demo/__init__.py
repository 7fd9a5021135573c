"""The page to click: drop a photo, type a sentence, watch the zoom. Needs the extra ``demo`` (Gradio)."""

# What `piza demo` opens where no checkpoint is given; None: one has to be given.
DEFAULT_CHECKPOINT: str | None = None

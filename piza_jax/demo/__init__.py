"""The page to click: drop a photo, type a sentence, watch the zoom. Needs the extra ``demo`` (Gradio)."""

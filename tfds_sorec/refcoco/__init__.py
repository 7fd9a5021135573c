"""The RefCOCO, RefCOCO+ and RefCOCOg builder."""

"""Use of a zoom that ``piza export`` compiled ahead of time; needs no model code, neither ours nor flax."""

from piza_jax.exported.zoom import ExportedZoom, load_exported

__all__ = ["ExportedZoom", "load_exported"]

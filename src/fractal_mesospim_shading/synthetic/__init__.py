"""Images of known truth, and the demonstration that uses them."""

from fractal_mesospim_shading.synthetic.world import LightSheetWorld

__all__ = ["LightSheetWorld"]

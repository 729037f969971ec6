"""The estimate of a flat-field: planes reduced to bins, the camera's offset, emptiness, the fit."""

"""Flat-field and local background correction of mesoSPIM images stored as OME-Zarr."""

"""Numbers and arrays: no files, no logging, no zarr, no Dask."""

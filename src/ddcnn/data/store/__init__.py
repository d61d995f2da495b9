"""The store: a data set as Zarr v3 arrays, one per subdomain, so that a worker reads only what its subdomains need."""

from ddcnn.data.store.layout import Layout
from ddcnn.data.store.read import Store, Stored, read_zarr, reading
from ddcnn.data.store.replacing import replaced
from ddcnn.data.store.write import write_store

__all__ = ["Layout", "Store", "Stored", "read_zarr", "reading", "replaced", "write_store"]

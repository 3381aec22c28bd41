"""A store on disk: the folder, its journal, the HDF5 files of the partitions, the index file, packing, digests."""

"""Result files in HDF5 for results too large for a message: layout, reader, writer."""

"""Tables and files: rows of an index, values of a file, text of a document."""
